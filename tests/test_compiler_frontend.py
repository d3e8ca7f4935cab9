"""Folding against the float network, and quantisation against both."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance  # noqa: E402
from reverb_fpga.compiler.pipeline import CompileOptions, compile_network  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import InputSpec, NetworkSpec, PoolSpec  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402
from reverb_fpga.models.zoo import DatasetSpec, Options, describe  # noqa: E402
from reverb_fpga.sim.golden import GoldenModel  # noqa: E402

INPUT = InputSpec(3, 12, 12, (120, 100, 90), (60.0, 55.0, 70.0))


def _network(options: Options, seed: int, source: InputSpec = INPUT) -> Network:
    wide = dataclasses.replace(source, height=28, width=28)  # what the whole architecture needs
    spec = _small(describe("fmnist", DatasetSpec("random", wide, tuple("abcde")), options), source)
    return _with_bad_scales(randomise(Network(spec), seed))


def _with_bad_scales(network: Network) -> Network:
    """Negative and zero alpha and gamma in every layer that has them, whatever the seed."""
    with torch.no_grad():
        for layer in network.stages():
            if layer.bn is not None:
                layer.bn.weight[:3] = torch.tensor([-0.8, 0.0, 0.6])
        for tensor in network.activations():
            if tensor.alpha is not None:
                tensor.alpha[:3] = torch.tensor([-0.8, 0.0, 0.6])
    return network


def _small(spec: NetworkSpec, source: InputSpec) -> NetworkSpec:
    """Two convolutions, the second pooled, and the classifier."""
    first, second, last = spec.layers[0], spec.layers[1], spec.layers[-1]
    side = source.height // 2
    pooled = PoolSpec.square(2) if second.pool_after is None else None
    last = dataclasses.replace(
        last, source=second.name, in_channels=second.out_channels * side * side, pool_before=pooled
    )
    tensors = (spec.tensors[0], dataclasses.replace(spec.tensors[1], alpha=False))
    return dataclasses.replace(spec, input=source, tensors=tensors, layers=(first, second, last))


def _checkpoint(network: Network) -> Checkpoint:
    state = network.state_dict()
    return Checkpoint(network.spec, {name: state[name].numpy() for name in network.spec.tensor_shapes()})


def _pixels(seed: int, source: InputSpec = INPUT, images: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *source.shape), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(12))
def test_folded_form_equals_the_float_network(seed: int) -> None:
    options = Options(
        system="reverb" if seed % 4 == 3 else "reverb-learnable",
        timesteps=1 + seed % 2,
        v_th=0.25 if seed % 3 else 0.0,
        pool_mode="spike" if seed % 4 < 2 else "current",
        width=0.25,
        first_bits=1 if seed % 5 == 0 else 4,
    )
    network = _network(options, seed).double()
    checkpoint = _checkpoint(network)
    graph = import_checkpoint(checkpoint)
    proof = prove_invariance(graph)
    assert proof.emitted == (1 if options.v_th == 0 else options.timesteps)
    folded = fold(drop_redundant_time(graph, proof))
    pixels = _pixels(seed)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    got = evaluate_folded(folded, pixels)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))


def _codes_in(network: Network, pixels: np.ndarray) -> np.ndarray:
    """Input codes (N, 1, H, W, C) of a program, as the host makes them."""
    spec = network.spec.input
    std = np.asarray(spec.std)
    scale = std.min() / std
    mean = np.asarray(spec.mean)
    offset = np.rint(mean * scale) - mean * scale
    codes = np.floor(pixels * scale[:, None, None] + offset[:, None, None] + 0.5).clip(0, 255)
    return codes.astype(np.uint8).transpose(0, 2, 3, 1)[:, None]


GREY = InputSpec(1, 8, 8, (73,), (90.0,))


@pytest.mark.parametrize(
    ("timesteps", "v_th", "pool_mode", "bits"),
    [(1, 0.0, "current", 8), (2, 0.25, "current", 8), (2, 0.25, "spike", 8), (1, 0.0, "spike", 4)],
)
def test_program_computes_what_was_trained(timesteps: int, v_th: float, pool_mode: str, bits: int) -> None:
    options = Options(timesteps=timesteps, v_th=v_th, pool_mode=pool_mode, width=0.5, act_bits=bits)
    network = _network(options, 5, GREY).double()
    pixels = _pixels(5, GREY)
    config = preset("ulx3s-85f")
    compiled = compile_network(_checkpoint(network), config)
    layers, logits = GoldenModel(compiled.program, config).run_layers(_codes_in(network, pixels))
    trained = network.codes(torch.from_numpy(pixels))
    for info, got, name in zip(compiled.program.layers, layers, list(trained), strict=False):
        want = trained[name].numpy().transpose(1, 0, 3, 4, 2)
        assert info.spiking
        differ = got.astype(int) - want
        # m, b and theta are rounded: a code moves by one, a neuron on the brink of its threshold by more
        assert (np.abs(differ) <= 1).mean() > 0.99
        assert (differ == 0).mean() > 0.98
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    spread = np.abs(expected - expected.mean(axis=1, keepdims=True)).max()
    # a code of four bits is sixteen times as coarse as one of eight
    share = 0.01 if bits == 8 else 0.04
    assert np.abs(logits * compiled.program.logit_scale - expected).mean() < share * spread


def test_scales_are_calibrated_where_training_learned_none() -> None:
    network = _network(Options(width=0.5), 3, GREY)
    pixels = _pixels(3, GREY, 32)
    config = preset("ulx3s-85f")
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    spread = np.abs(expected - expected.mean(axis=1, keepdims=True)).max()
    for images, origin in ((pixels, "calibration"), (None, "statistics")):
        compiled = compile_network(_checkpoint(network), config, CompileOptions(images=images))
        assert [layer.code_origin for layer in compiled.report.layers] == [origin, origin, ""]
        logits = GoldenModel(compiled.program, config).run(_codes_in(network, pixels))
        np.testing.assert_allclose(logits * compiled.program.logit_scale, expected, rtol=0, atol=0.06 * spread)


def test_redundant_time_is_dropped_and_reported() -> None:
    network = _network(Options(width=0.25, timesteps=4, act_bits=8), 1, GREY)
    compiled = compile_network(_checkpoint(network), preset("ulx3s-85f"))
    assert compiled.program.timesteps == 1
    assert (compiled.report.timesteps_trained, compiled.report.timesteps) == (4, 1)
    assert all(static for _, static, _ in compiled.report.invariance)


def test_real_weights_are_refused_by_name() -> None:
    network = _network(Options(system="snn", v_th=0.5, width=0.25), 1, GREY)
    with pytest.raises(InputError, match=r"layer conv1: binary spikes are not supported; supported: chains of conv"):
        compile_network(_checkpoint(network), preset("ulx3s-85f"))


def test_too_large_a_network_says_by_how_much() -> None:
    network = _network(Options(width=16, act_bits=8), 1, GREY)
    with pytest.raises(
        InputError,
        match=r"network too large for ulx3s-12f: layer conv2 needs 1024 channels, there are 512 \(512 too many\)",
    ):
        compile_network(_checkpoint(network), preset("ulx3s-12f"))
