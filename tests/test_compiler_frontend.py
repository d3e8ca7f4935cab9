"""Folding against the float network, and quantisation against both."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler import reference  # noqa: E402
from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance  # noqa: E402
from reverb_fpga.compiler.pipeline import CompileOptions, compile_network  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import GateSpec, InputSpec, NetworkSpec, NeuronSpec, PoolSpec  # noqa: E402
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


SMALL = InputSpec(3, 16, 16, (120, 100, 90), (60.0, 55.0, 70.0))
ONE_DEVIATION = InputSpec(3, 16, 16, (120, 100, 90), (60.0, 60.0, 60.0))
RESIDUAL = [  # identity and downsample shortcuts; resnet20 also across pooled spikes
    ("resnet20-classic", Options(width=0.5), 0),
    ("resnet20-classic", Options(width=0.5, timesteps=3, v_th=0.25), 1),
    ("resnet20-classic", Options(width=0.5, act_bits=8), 2),
    ("resnet20-classic", Options(width=0.5, timesteps=2, v_th=0.25, act_bits=8), 3),
    ("resnet20-classic", Options(system="reverb", width=0.5, timesteps=2, v_th=0.25), 4),
    ("resnet20", Options(width=0.125, pool_mode="spike", act_bits=8), 5),
    ("resnet20", Options(width=0.125, pool_mode="current", timesteps=2, v_th=0.25), 6),
    ("resnet20", Options(width=0.125, pool_mode="spike", timesteps=2, v_th=0.25), 7),
]


def _residual(arch: str, options: Options, seed: int) -> Network:
    spec = describe(arch, DatasetSpec("random", SMALL, tuple("abcde")), options)
    return _with_bad_scales(randomise(Network(spec), seed)).double()


@pytest.mark.parametrize(("arch", "options", "seed"), RESIDUAL)
def test_folded_residual_networks_equal_the_float_networks(arch: str, options: Options, seed: int) -> None:
    """Shortcuts do not see alpha, convolutions do, the quantiser of the tensor sees what both see."""
    network = _residual(arch, options, seed)
    network.set_quantised(False)
    graph = import_checkpoint(_checkpoint(network))
    folded = fold(drop_redundant_time(graph, prove_invariance(graph)))
    pixels = _pixels(seed, SMALL, 4)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    got = evaluate_folded(folded, pixels)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(("arch", "options", "seed"), [case for case in RESIDUAL if case[1].act_bits])
def test_residual_programs_compute_what_was_trained(arch: str, options: Options, seed: int) -> None:
    network = _residual(arch, options, seed)
    pixels = _pixels(seed, SMALL)
    config = dataclasses.replace(preset("ulx3s-85f"), name="roomy", descriptors=256, count_words=8192)
    compiled = compile_network(_checkpoint(network), config)
    layers, logits = GoldenModel(compiled.program, config).run_layers(_codes_in(network, pixels))
    trained = network.codes(torch.from_numpy(pixels))
    first = next(iter(trained))
    for info, got in zip(compiled.program.layers, layers, strict=True):
        if info.name == first:  # later layers differ where a code on the brink of rounding fell the other way
            differ = np.abs(got.astype(int) - trained[first].numpy().transpose(1, 0, 3, 4, 2))
            # the input's codes are rounded, for its colours have three deviations
            assert (differ == 0).mean() > 0.9
            assert (differ <= 1).mean() > 0.999
    assert any(len(info.maps) > 1 for info in compiled.program.layers)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    spread = np.abs(expected - expected.mean(axis=1, keepdims=True)).max()
    # random weights use a sixtieth of the codes: what rounds the other way in one layer moves others in the next
    share = 0.05 if arch == "resnet20-classic" else 0.12
    assert np.abs(logits * compiled.program.logit_scale - expected).mean() < share * spread


GATED = [  # T, trained factors alike at every step
    (1, False),
    (3, False),
    (3, True),
]
ROOMY = dataclasses.replace(
    preset("ulx3s-85f"), name="roomy", descriptors=512, count_words=8192, act_words=65536, skip_words=8192,
    param_groups=1024,
)  # fmt: skip


def _gated(timesteps: int, alike: bool, seed: int) -> Network:
    """Binary weights and spikes, a gate and a shortcut around every convolution."""
    options = Options(system="agmm-bsnn", width=0.5, timesteps=timesteps, v_th=0.25)
    spec = describe("resnet20-classic", DatasetSpec("random", SMALL, tuple("abcde")), options)
    network = randomise(Network(spec), seed).double()
    with torch.no_grad():
        for layer in network.stages():
            if layer.gate is not None and alike:
                layer.gate[:] = 0.7
    return network


@pytest.mark.parametrize(("timesteps", "alike"), GATED)
def test_folded_gates_equal_the_float_network(timesteps: int, alike: bool) -> None:
    """The mean is that of the normalised current, whatever scale the folded one has."""
    network = _with_bad_scales(_gated(timesteps, alike, 4)).double()
    network.set_quantised(False)
    graph = import_checkpoint(_checkpoint(network))
    proof = prove_invariance(graph)
    same = [name for name, static, _ in proof.tensors if static]
    assert len(same) == (len(graph.layers) + 1 if timesteps == 1 else 1)
    folded = fold(drop_redundant_time(graph, proof))
    assert sum(layer.gate is not None for layer in folded.layers) == 18
    pixels = _pixels(4, SMALL, 4)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(evaluate_folded(folded, pixels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("timesteps", "alike"), GATED)
def test_gated_programs_compute_what_was_trained(timesteps: int, alike: bool) -> None:
    network = _gated(timesteps, alike, 3)
    pixels = _pixels(3, SMALL, 20)
    compiled = compile_network(_checkpoint(network), ROOMY)
    layers, logits = GoldenModel(compiled.program, ROOMY).run_layers(_codes_in(network, pixels))
    trained = network.codes(torch.from_numpy(pixels))
    gated = compiled.program.layers[1]
    assert [leg.gate for leg in gated.maps] == [1, 2, 3, 0]
    want = trained[gated.name].numpy().transpose(1, 0, 3, 4, 2)
    assert (layers[1] == want).mean() > 0.98
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9


@pytest.mark.parametrize("system", ["snn", "bsnn"])
def test_binary_spikes_are_those_of_real_numbers(system: str) -> None:
    """Units per channel: no gain is rounded, so not one spike of a deep network with shortcuts is another."""
    bits = 8 if system == "snn" else None
    options = Options(system=system, width=0.5, timesteps=2, v_th=0.5, weight_bits=bits)
    spec = describe("resnet20-classic", DatasetSpec("random", ONE_DEVIATION, tuple("abcde")), options)
    checkpoint = _checkpoint(randomise(Network(spec), 2))
    graph = import_checkpoint(checkpoint)
    pixels = _pixels(2, ONE_DEVIATION, 8)
    wanted: dict[str, list[np.ndarray]] = {}
    evaluate_folded(fold(graph), pixels, lambda name, fired: wanted.setdefault(name, []).append(fired))
    network = compile_network(checkpoint, ROOMY).network
    found = reference.evaluate(network, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)[:, None]))
    for layer, fired in zip(network.layers[:-1], found.codes[:-1], strict=True):
        want = np.stack(wanted[layer.name], axis=1).transpose(0, 1, 3, 4, 2)
        assert 0.01 < want.mean() < 0.99, layer.name
        np.testing.assert_array_equal(fired, want, layer.name)


def test_binary_spikes_have_the_bits_that_the_memories_allow() -> None:
    options = Options(system="bsnn", width=0.5, timesteps=2, v_th=0.5)
    compiled = compile_network(_checkpoint(_residual("resnet20-classic", options, 2)), ROOMY)
    for layer in compiled.network.layers[:-1]:
        assert layer.threshold.min() >= 2048, layer.name
        own = layer.maps[-1]
        assert not (own.gain % (1 << own.r_shift)).any(), layer.name
    notes = [note for note in compiled.report.notes if "saturate" in note]
    assert not notes, notes


def test_equal_factors_leave_time_redundant() -> None:
    """V_th = 0, a static image, T = 3: gates change from step to step unless their factors are the same."""
    spec = describe("resnet20-classic", DatasetSpec("random", SMALL, tuple("abcde")), Options(width=0.5, timesteps=3))
    layers = [
        dataclasses.replace(layer, gate=GateSpec("channel")) if layer.neuron is not None else layer
        for layer in spec.layers
    ]
    network = randomise(Network(dataclasses.replace(spec, layers=tuple(layers))), 8)
    assert prove_invariance(import_checkpoint(_checkpoint(network))).emitted == 3
    with torch.no_grad():
        for layer in network.stages():
            if layer.gate is not None:
                layer.gate[:] = 0.7
    assert prove_invariance(import_checkpoint(_checkpoint(network))).emitted == 1


def test_gates_that_cannot_be_computed_are_refused_by_name() -> None:
    options = Options(system="agmm-bsnn", width=0.5, timesteps=2, v_th=0.25, gate_mean="layer")
    spec = describe("resnet20-classic", DatasetSpec("random", SMALL, tuple("abcde")), options)
    with pytest.raises(InputError, match=r"layer b11a: a gate whose mean runs over the whole layer is not supported"):
        import_checkpoint(_checkpoint(randomise(Network(spec), 1)))


def test_tensors_that_never_change_are_stored_once() -> None:
    """V_th = 0 in the first two layers, T = 3: their tensors hold one step, the rest three."""
    spec = describe("resnet20-classic", DatasetSpec("random", SMALL, tuple("abcde")), Options(width=0.5, timesteps=3))
    layers = [
        layer if index < 2 or layer.neuron is None else dataclasses.replace(layer, neuron=NeuronSpec(0.25, 0.25))
        for index, layer in enumerate(spec.layers)
    ]
    network = randomise(Network(dataclasses.replace(spec, layers=tuple(layers))), 8).double()
    config = dataclasses.replace(preset("ulx3s-85f"), name="roomy", descriptors=256, count_words=8192, skip_words=2048)
    compiled = compile_network(_checkpoint(network), config)
    steps = [info.timesteps for info in compiled.program.layers]
    assert steps[:2] == [1, 1]
    assert set(steps[2:]) == {3}


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
    with pytest.raises(InputError, match=r"layer conv1: real weights are not supported; supported: binary, ternary"):
        compile_network(_checkpoint(network), preset("ulx3s-85f"))


def test_too_large_a_network_says_by_how_much() -> None:
    network = _network(Options(width=16, act_bits=8), 1, GREY)
    with pytest.raises(
        InputError,
        match=r"network too large for ulx3s-12f: layer conv1 needs 512 channels, there are 256 \(256 too many\)",
    ):
        compile_network(_checkpoint(network), preset("ulx3s-12f"))
