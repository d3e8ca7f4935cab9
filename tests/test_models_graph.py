"""Graphs: shortcuts, pools, kernels, neurons of every kind against a plain reading of the description."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from test_models_network import DATA, check_forward, pixels

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.description import (
    ALPHA_RATIO,
    SYSTEMS,
    InputSpec,
    LayerSpec,
    NetworkSpec,
    NeuronSpec,
    PoolSpec,
    TensorSpec,
    WeightSpec,
)
from reverb_fpga.models.network import Network
from reverb_fpga.models.random_graphs import random_graph
from reverb_fpga.models.testing import randomise
from reverb_fpga.models.zoo import Options, build

RESNETS = ("resnet20-classic", "resnet20", "resnet18")


def graph(bits: int | None = None, timesteps: int = 2, alpha: bool = True) -> NetworkSpec:
    """Every kind of layer: shortcuts that cross, a tensor of several readers, odd geometry, neurons that differ."""
    slow, fast = NeuronSpec(0.5, 0.25), NeuronSpec(0.0, 0.125)
    small = PoolSpec("avg", (3, 2), (2, 2), (1, 0))
    layers = (
        LayerSpec("stem", "conv", "input", 3, 6, (5, 3), (2, 2), (2, 1), weight=WeightSpec("multibit", 4), neuron=slow),
        LayerSpec("thin", "pool", "stem", 6, 6, weight=WeightSpec("unit"), bn="none", pool_before=small,
                  neuron=NeuronSpec(0.0, 0.0)),
        LayerSpec("down", "conv", "thin", 6, 8, stride=(2, 2), bias=True, bn="plain"),
        LayerSpec("wide", "conv", "thin", 6, 6, (3, 3), (1, 1), (2, 2), (2, 2), bn="none", bias=True, neuron=fast,
                  shortcuts=("thin",)),
        LayerSpec("low", "conv", "wide", 6, 8, (3, 3), (2, 2), (1, 1), weight=WeightSpec("ternary", 2), neuron=slow,
                  shortcuts=("down",)),
        LayerSpec("peak", "conv", "low", 8, 8, (3, 3), padding=(1, 1), pool_after=PoolSpec("max", (2, 2), (2, 2)),
                  neuron=slow),
        LayerSpec("mean", "conv", "low", 8, 8, (3, 3), padding=(1, 1), neuron=slow, shortcuts=("low",),
                  pool_after=PoolSpec("avg", (3, 3), (1, 1), (1, 1))),
        LayerSpec("both", "conv", "mean", 8, 8, (1, 3), padding=(0, 1), pool_before=PoolSpec("max", (2, 2), (2, 2)),
                  weight=WeightSpec("scaled"), neuron=fast, shortcuts=("peak",)),
        LayerSpec("fc", "linear", "both", 8, 5, weight=WeightSpec("multibit", 8), bias=True, bn="none",
                  pool_before=PoolSpec("avg", (2, 1), (2, 1))),
    )  # fmt: skip
    tensors = tuple(TensorSpec(layer.name, bits, alpha) for layer in layers if layer.neuron is not None)
    system = "reverb-learnable" if alpha else "reverb"
    source = InputSpec(3, 36, 20, (120, 5, 200), (60.0, 70.5, 50.0))
    return NetworkSpec("graph", system, "toy", tuple("abcde"), source, timesteps, tensors, layers)  # type: ignore[arg-type]


def images(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 36, 20), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("timesteps", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_graph_equals_the_description(seed: int, alpha: bool, timesteps: int) -> None:
    network = randomise(Network(graph(timesteps=timesteps, alpha=alpha)), seed)
    assert NetworkSpec.from_json(network.spec.to_json()) == network.spec
    check_forward(network, images())


def _features(spec: NetworkSpec) -> set[str]:
    """What a random graph has of what random graphs are to cover."""
    fired = {tensor.name for tensor in spec.tensors}
    added = [name for layer in spec.layers for name in layer.shortcuts]
    pools = [pool for layer in spec.layers for pool in (layer.pool_before, layer.pool_after) if pool is not None]
    found = {
        "identity": any(name in fired for name in added),
        "downsample": any(name not in fired for name in added),
        "several shortcuts": any(len(layer.shortcuts) > 1 for layer in spec.layers),
        "several readers": any(len(spec.readers(name)) + len(spec.adders(name)) > 1 for name in fired),
        "pooled shortcut": any(spec.layer(name).kind == "pool" for name in added),
        "maximum": any(pool.kind == "max" for pool in pools),
        "gate": any(layer.gate is not None for layer in spec.layers),
        "dilation": any(layer.dilation != (1, 1) for layer in spec.layers),
        "non-square": any(layer.kernel[0] != layer.kernel[1] for layer in spec.layers),
        "frames": not spec.static_input,
        spec.system: True,
        f"T = {spec.timesteps}": True,
    }
    return {name for name, has in found.items() if has}


def test_random_graphs_cover_what_descriptions_can_say() -> None:
    counts = Counter(name for seed in range(400) for name in _features(random_graph(seed)))
    wanted = {"identity", "downsample", "several shortcuts", "several readers", "pooled shortcut", "maximum", "gate"}
    wanted |= {"dilation", "non-square", "frames", *SYSTEMS, *(f"T = {steps}" for steps in (1, 2, 3, 4))}
    assert {name: counts[name] for name in wanted if counts[name] < 20} == {}


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_equal_the_description(seed: int) -> None:
    spec = random_graph(seed)
    assert NetworkSpec.from_json(spec.to_json()) == spec
    shape = spec.input.shape if spec.static_input else (spec.timesteps, *spec.input.shape)
    pictures = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(seed))
    network = randomise(Network(spec), seed).double()  # in double no tie falls to the other side
    check_forward(network, pictures)


@pytest.mark.parametrize("bits", [3, 8])
def test_codes_of_shared_tensors_are_what_every_reader_takes(bits: int) -> None:
    """In double, where no tie falls to the other side: codes, shortcuts and pools of one rounding."""
    network = randomise(Network(graph(bits)), 3).double()
    codes = network.codes(images())
    assert list(codes) == [tensor.name for tensor in network.spec.tensors]
    assert all(0 <= int(code.min()) <= int(code.max()) <= 2**bits - 1 for code in codes.values())
    check_forward(network, images())


@pytest.mark.parametrize("arch", RESNETS)
@pytest.mark.parametrize("pool_mode", ["current", "spike"])
@pytest.mark.parametrize(("timesteps", "v_th"), [(1, 0.0), (2, 0.25)])
def test_residual_networks_equal_the_description(arch: str, pool_mode: str, timesteps: int, v_th: float) -> None:
    options = Options(timesteps=timesteps, v_th=v_th, pool_mode=pool_mode, width=0.0625)  # type: ignore[arg-type]
    check_forward(randomise(build(arch, DATA, options, seed=1), seed=2), pixels())


def test_time_changes_nothing_without_threshold_or_leak() -> None:
    for neuron in (NeuronSpec(0.25, 0.0), NeuronSpec(0.0, 0.25)):
        spec = build("resnet20-classic", DATA, Options(width=0.25)).spec
        layers = tuple(dataclasses.replace(x, neuron=neuron if x.neuron is not None else None) for x in spec.layers)
        one = randomise(Network(dataclasses.replace(spec, layers=layers)), seed=3)
        four = Network(dataclasses.replace(one.spec, timesteps=4))
        four.load_state_dict(one.state_dict())
        four.eval()
        with torch.no_grad():
            assert torch.equal(one(pixels()), four(pixels()))
            stacked = pixels()[:, None].expand(-1, 4, -1, -1, -1)
            torch.testing.assert_close(four(stacked), one(pixels()))  # every step computed


def test_gradients_of_shared_tensors_equal_those_of_separate_passes() -> None:
    """alpha and the step gather the gradient of every reader: against autograd through the plain formulas."""
    network = randomise(Network(graph(8, timesteps=1)), 5).double()
    name, x = "thin", torch.rand(1, 2, 6, 4, 4, dtype=torch.float64)
    tensor = network.tensor(name)
    assert tensor.alpha is not None
    assert tensor.scale is not None
    with torch.no_grad():
        tensor.alpha.copy_(torch.tensor([0.5, -1.5, 1.0, -0.25, 2.0, 0.75]))
    weight = torch.randn(6, dtype=torch.float64)

    def total(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        return (one * weight[:, None, None]).sum() + (two * two).sum()

    encoded = tensor.encode(x)
    wide = encoded.gain.reshape(-1, 1, 1), encoded.identity.reshape(-1, 1, 1)
    own = torch.autograd.grad(total(encoded.values * wide[0], encoded.values * wide[1]), [tensor.alpha, tensor.scale])
    alpha, scale = tensor.alpha.detach().requires_grad_(), tensor.scale.detach().requires_grad_()
    ratio = x * alpha.abs()[:, None, None] / scale
    inside = (ratio.detach() > -0.5) & (ratio.detach() < 255.5)
    rounded = torch.floor(ratio.detach() + 0.5).clamp(0, 255) + (ratio - ratio.detach()) * inside
    signs = torch.sign(alpha.detach())[:, None, None]
    value = rounded * scale
    plain = torch.autograd.grad(total(value * signs, value / alpha.abs()[:, None, None]), [alpha, scale])
    torch.testing.assert_close(own[0], plain[0])
    torch.testing.assert_close(own[1], plain[1] * (x.numel() * 255) ** -0.5)


def test_alpha_of_shortcuts_keeps_its_ratio() -> None:
    network = randomise(Network(graph()), 1)
    divided = {t.spec.name for t in network.activations() if t.divided}
    assert divided == {"stem", "thin", "low", "peak"}
    network.constrain()
    for tensor in network.activations():
        assert tensor.alpha is not None
        size = tensor.alpha.detach().abs()
        assert bool(size.min() >= size.max() / ALPHA_RATIO * 0.9999) == tensor.divided


def test_every_parameter_of_a_graph_gets_a_finite_gradient() -> None:
    for bits in (None, 8):
        network = Network(graph(bits))
        network.initialise_scales(images(16))
        F.cross_entropy(network(images(16)), torch.arange(16) % 5).backward()
        for name, parameter in network.named_parameters():
            if bits is None and name in ("tensors.stem.alpha", "tensors.peak.alpha"):
                continue  # without rounding, a reader that divides by alpha never multiplies by it
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (3, {"shortcuts": ("low",)}, "'low' is no layer before it"),
        (3, {"shortcuts": ("input",)}, "image cannot be a shortcut"),
        (4, {"shortcuts": ("down", "stem")}, r"its current is \(8, 5, 3\), its shortcut 'stem' is"),
        (4, {"shortcuts": ()}, "layer 'down': no layer reads it"),
        (4, {"source": "down"}, "its source 'down' is no tensor before it"),
        (2, {"shortcuts": ("thin",)}, "without neuron takes no shortcuts"),
        (1, {"neuron": NeuronSpec(0.5, 0.0)}, "tau = 0"),
        (5, {"padding": (9, 9)}, "padding: 9 exceeds the reach"),
        (0, {"pool_before": PoolSpec("max", (2, 2), (2, 2))}, "image cannot be max-pooled"),
        (8, {"in_channels": 15}, "in_channels is 15, its input has 8 features"),
    ],
)
def test_a_graph_that_does_not_fit_is_named(place: int, change: dict[str, object], message: str) -> None:
    def changed() -> NetworkSpec:
        spec = graph()
        layer = dataclasses.replace(spec.layers[place], **change)  # type: ignore[arg-type]
        return dataclasses.replace(spec, layers=(*spec.layers[:place], layer, *spec.layers[place + 1 :]))

    with pytest.raises(InputError, match=message):
        changed()


def test_names_of_methods_are_names_of_layers() -> None:
    """``nn.ModuleDict`` refuses those."""
    spec = build("scnn5", DATA, Options(width=0.125)).spec
    text = spec.to_json().replace('"conv1"', '"keys"').replace('"conv2"', '"forward"')
    network = randomise(Network(NetworkSpec.from_json(text)), 1)
    assert set(network.spec.tensor_shapes()) <= set(network.state_dict())
    check_forward(network, pixels())


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_train_in_bfloat16(seed: int) -> None:
    """What GPUs do, on the CPU: mixed types meet at every shortcut, gate and pool."""
    spec = random_graph(seed)
    shape = spec.input.shape if spec.static_input else (spec.timesteps, *spec.input.shape)
    network = randomise(Network(spec), seed).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randint(0, 256, (5, *shape))).float()
    F.cross_entropy(logits, torch.arange(5)).backward()
    weight = network.layer("fc").weight
    assert weight is not None
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()
