"""Systems: what each makes of weights, spikes, gates and shortcuts; that each learns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from pictures import write_idx
from test_models_network import DATA, check_forward, pixels

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.augment import Augmentation
from reverb_fpga.models.description import BINARY_SPIKES, SYSTEMS, NetworkSpec
from reverb_fpga.models.flips import SignFlips
from reverb_fpga.models.network import LayerTrace, Network
from reverb_fpga.models.quant import effective_weight, quantise_ternary
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.testing import randomise
from reverb_fpga.models.train import Trainer
from reverb_fpga.models.zoo import Options, build, describe


def options(system: str, **changes: object) -> Options:
    binary = system in BINARY_SPIKES
    base = Options(system=system, timesteps=3, v_th=0.5 if binary else 0.25, width=0.125)
    return dataclasses.replace(base, weight_bits=4 if system == "snn" else None, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("pool_mode", ["current", "spike"])
@pytest.mark.parametrize("arch", ["cnv", "resnet20-classic", "resnet20"])
def test_every_system_equals_the_description(arch: str, pool_mode: str, system: str) -> None:
    network = randomise(build(arch, DATA, options(system, pool_mode=pool_mode), seed=1), seed=2)
    assert NetworkSpec.from_json(network.spec.to_json()) == network.spec
    traces: list[LayerTrace] = []
    with torch.no_grad():
        network(pixels(), traces)
    for layer, trace in zip(network.spec.layers, traces, strict=True):
        tensor = network.spec.tensor(layer.source)
        if tensor is not None and tensor.binary:
            assert trace.events is not None
            assert set(trace.events.unique().tolist()) <= {0.0, 1.0}
    check_forward(network)


@pytest.mark.parametrize("mean", ["channel", "layer"])
def test_the_gate_takes_the_mean_it_is_told(mean: str) -> None:
    network = randomise(build("resnet20-classic", DATA, options("agmm-bsnn", gate_mean=mean)), seed=3)
    layer = network.layer("b11a")
    assert layer.gate is not None
    network.set_quantised(False)
    with torch.no_grad():
        x = torch.randn(
            1, 2, 2, 5, 4, generator=torch.Generator().manual_seed(1)
        )  # static: every step has its own gate
        found = layer._gated(x, layer.gate)
        over = (2, 3, 4) if mean == "layer" else (3, 4)
        expected = torch.cat([torch.sigmoid(a * x.mean(over, keepdim=True)) * x for a in layer.gate])
        torch.testing.assert_close(found, expected)
    network.set_quantised(True)
    check_forward(network)


def test_layers_are_what_the_system_says() -> None:
    for system, kind, bits in (
        ("reverb", "binary", 4),
        ("ternary", "ternary", 4),
        ("snn", "multibit", 4),
        ("bsnn", "scaled", 8),
        ("agmm-bsnn", "scaled", 8),
    ):
        spec = describe("resnet20-classic", DATA, options(system))
        first, *hidden, last = spec.layers
        assert [first.weight.bits, last.weight.bits] == [bits, bits]
        assert {layer.weight.kind for layer in hidden} == {kind}
        assert {tensor.bits for tensor in spec.tensors} == {1 if system in BINARY_SPIKES else None}
        gated = {layer.name for layer in spec.layers if layer.gate is not None}
        blocks = {layer.name for layer in hidden if layer.neuron is not None}
        assert gated == (blocks if system == "agmm-bsnn" else set())
        around_each = system in ("bsnn", "agmm-bsnn")
        assert {name for name in blocks if spec.layer(name).shortcuts} == {
            name for name in blocks if around_each or name.endswith("b")
        }
    double = describe("resnet20-classic", DATA, options("reverb", shortcuts="double"))
    assert [double.layer(name).shortcuts for name in ("b21a", "b21b", "b22a")] == [("b21d",), ("b21a",), ("b21b",)]


def test_real_weights_are_the_vanilla_networks_own() -> None:
    spec = describe("cnv", DATA, dataclasses.replace(options("snn"), weight_bits=None))
    with pytest.raises(InputError, match="real weights in system 'bsnn'"):
        dataclasses.replace(spec, system="bsnn")
    for wrong, message in ((options("reverb", v_th=0.0), ""), (options("bsnn", v_th=0.0), "must be above 0")):
        settings = TrainSettings("cnv", "mnist", "", wrong)
        if message:
            with pytest.raises(InputError, match=message):
                settings.check(1)
        else:
            settings.check(1)
    with pytest.raises(InputError, match="--weight-bits is for system snn"):
        TrainSettings("cnv", "mnist", "", dataclasses.replace(options("reverb"), weight_bits=8)).check(1)


def test_ternary_weights_leave_out_what_is_small() -> None:
    weight = torch.tensor([[0.5, -0.5, 0.34, -0.36, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    assert quantise_ternary(weight).tolist() == [[1, -1, 1, -1, 0], [1, 0, 0, 0, 0]]
    assert quantise_ternary(torch.tensor([[1.0, 0.2, -0.2]])).tolist() == [[1, 0, 0]]
    spec = describe("cnv", DATA, options("ternary")).layers[1].weight
    effective_weight(weight, spec).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]


def test_scaled_weights_have_the_gradient_of_sign_and_scale() -> None:
    spec = describe("cnv", DATA, options("bsnn")).layers[1].weight
    weight = torch.tensor([[0.5, -1.5, 0.25, 0.75]], dtype=torch.float64, requires_grad=True)
    grad = torch.tensor([[1.0, 2.0, -3.0, 4.0]], dtype=torch.float64)
    found = effective_weight(weight, spec)
    assert found.tolist() == [[0.75, -0.75, 0.75, 0.75]]
    found.backward(grad)
    signs = torch.sign(weight.detach())
    through_scale = signs * (grad * signs).sum() / 4
    through_sign = 0.75 * grad * (weight.detach().abs() <= 1)
    torch.testing.assert_close(weight.grad, through_scale + through_sign)


def test_flips_are_counted_since_the_last_look() -> None:
    network = Network(describe("cnv", DATA, options("reverb")))
    flips = SignFlips(network)
    assert flips.share() == 0
    layers = [layer for layer in network.stages() if layer.weight is not None and layer.spec.weight.signs]
    count = sum(layer.weight.numel() for layer in layers if layer.weight is not None)
    weight = layers[0].weight
    assert weight is not None
    with torch.no_grad():
        weight.neg_()
    assert flips.share() == weight.numel() / count
    assert flips.share() == 0
    assert SignFlips(Network(describe("cnv", DATA, options("snn")))).share() is None


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 28x28 pictures: a bright patch whose place tells the class."""
    folder = tmp_path_factory.mktemp("data") / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for stem, count in (("train", 400), ("t10k", 100)):
        labels = rng.integers(0, 3, count).astype(np.uint8)
        images = rng.integers(0, 90, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 + 7 * label : 11 + 7 * label, 8:20] += 120
        write_idx(folder, stem, images, labels)
    return folder.parent


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_learns(system: str, data_dir: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        "scnn5", "mnist", str(data_dir), dataclasses.replace(options(system, act_bits=8), timesteps=2),
        Augmentation(1, False), epochs=4, batch_size=16, lr=1e-2, qat_start=0.5, seed=3,
    )  # fmt: skip
    result = Trainer(settings, tmp_path / "run").run()
    assert result.accuracy > 60  # three classes
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rounded = system not in BINARY_SPIKES or system == "agmm-bsnn"  # its gates are
    assert [line["quantised"] for line in lines] == [False, False, rounded, rounded]
    if system == "snn":
        assert [line["sign_flips"] for line in lines] == [None] * 4
    else:
        assert all(0 < line["sign_flips"] < 0.5 for line in lines)


def test_gradients_reach_every_parameter_of_every_system() -> None:
    for system in SYSTEMS:
        network = build("resnet20-classic", DATA, options(system, act_bits=8))
        network.initialise_scales(pixels(16))
        F.cross_entropy(network(pixels(16)), torch.arange(16) % 5).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, (system, name)
            assert torch.isfinite(parameter.grad).all(), (system, name)
            assert parameter.grad.abs().sum() > 0, (system, name)
