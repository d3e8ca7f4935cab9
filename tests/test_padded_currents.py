"""Average pooling of currents with padding: sums, programs and whole networks are those of zeros beyond the border."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_compiler_pooling import ROOMY, SOURCE, Case  # noqa: E402
from test_random_programs import compare_cycles  # noqa: E402

from reverb_fpga.compiler import reference  # noqa: E402
from reverb_fpga.compiler.backend import lower  # noqa: E402
from reverb_fpga.compiler.backend.geometry import walks_of  # noqa: E402
from reverb_fpga.compiler.geometry import Geometry, Pair, Pool  # noqa: E402
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork, WeightKind  # noqa: E402
from reverb_fpga.compiler.passes.borders import surplus  # noqa: E402
from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance  # noqa: E402
from reverb_fpga.compiler.pipeline import CompileOptions, compile_network  # noqa: E402
from reverb_fpga.compiler.random_networks import Images, LayerSpec, NetworkSpec, Neurons, Profile, build  # noqa: E402
from reverb_fpga.compiler.testing import plain_layer, plain_meta  # noqa: E402
from reverb_fpga.host.leg_report import kind_of  # noqa: E402
from reverb_fpga.hw.config import Config, preset  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import PoolSpec  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.sim.cycles import CycleModel  # noqa: E402
from reverb_fpga.sim.golden import GoldenModel  # noqa: E402
from reverb_fpga.sim.rtl_core import RtlCore  # noqa: E402
from reverb_fpga.sim.verify import Verifier  # noqa: E402

POOLS = [  # window, stride, padding
    PoolSpec("avg", (2, 2), (2, 2), (1, 1)),
    PoolSpec("avg", (2, 3), (1, 2), (1, 0)),
    PoolSpec("avg", (3, 2), (2, 1), (1, 1)),
]


def _geometry(rng: np.random.Generator) -> tuple[Geometry, Pair, Pair]:
    """A convolution with a padded pool of its current, its kernel, and a source that it fits."""

    def pair(low: int, high: int) -> Pair:
        return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))

    window, kernel, dilation, stride = pair(1, 4), pair(1, 3), pair(1, 2), pair(1, 2)
    padding = (int(rng.integers(0, window[0] // 2 + 1)), int(rng.integers(0, window[1] // 2 + 1)))
    before = Pool((2, 2), (2, 2)) if stride == (1, 1) and rng.random() < 0.3 else Pool()
    geometry = Geometry(stride, pair(0, 2), dilation, before, Pool(window, pair(1, 3), padding))
    return geometry, kernel, pair(6, 13)


def _sums(geometry: Geometry, weight: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """z (N, H, W, C) of one map of the image."""
    leg = plain_layer("probe", INPUT, weight, kind=WeightKind.MULTIBIT, bits=8, geometry=geometry, spiking=False)
    _, _, height, width, channels = codes.shape
    source = IntInput(channels, height, width, np.zeros(channels, dtype=np.uint8))
    return reference.evaluate(IntNetwork(source, (leg,), 1, True), codes).currents[-1][:, 0]


def test_what_is_taken_away_leaves_zeros_beyond_the_border() -> None:
    taken = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        geometry, kernel, sides = _geometry(rng)
        if min(geometry.sides(sides[axis], kernel[axis], axis)[2] for axis in range(2)) < 1:
            continue
        codes = rng.integers(0, 256, (2, 1, *sides, 3)).astype(np.uint8)
        weight = rng.integers(-3, 4, (2, 3, *kernel))
        parts = [(1, dataclasses.replace(geometry, continued=True)), *surplus(geometry, sides, kernel)]
        found = sum(sign * _sums(part, weight, codes) for sign, part in parts)
        x = torch.from_numpy(codes[:, 0].transpose(0, 3, 1, 2).astype(np.float64))
        before, after = geometry.in_pool, geometry.out_pool
        x = torch.nn.functional.avg_pool2d(x, before.window, before.stride, divisor_override=1)
        x = torch.nn.functional.conv2d(
            x, torch.from_numpy(weight).double(), None, geometry.stride, geometry.padding, geometry.dilation
        )
        x = torch.nn.functional.avg_pool2d(x, after.window, after.stride, after.padding, divisor_override=1)
        np.testing.assert_array_equal(found, x.permute(0, 2, 3, 1).numpy())
        taken += len(parts) > 1
    assert taken >= 80


def _spec(seed: int) -> NetworkSpec:
    """One or two layers whose currents are pooled with padding."""
    rng = np.random.default_rng(seed)

    def one(*values: object) -> object:
        return values[int(rng.integers(len(values)))]

    def layer() -> LayerSpec:
        out_pool, kernel, in_pool = one((2, 3, 1), (2, 2, 1), (2, 2, 2), (3, 2, 1))  # at most 64 places
        return LayerSpec(
            channels=int(rng.integers(1, 7)), kernel=kernel, kernel_x=one(None, None, 1, 2),
            stride=one(1, 1, 2), padding=one(0, 1, 1, 2), dilation=one(1, 1, 2), in_pool=in_pool,
            out_pool=out_pool, out_padding=one((1, 1), (1, 0), (0, 1)), overlap=one(True, False),
            kind=one(WeightKind.BINARY, WeightKind.TERNARY, WeightKind.MULTIBIT), bits=int(rng.integers(2, 5)),
            neurons=Neurons.USUAL, extreme_weights=False, threshold_positive=one(True, False),
            tau_q=one(0, 64, 200), code_max=one(1, 15, 255),
        )  # fmt: skip

    steps = one(1, 2, 3)
    return NetworkSpec(
        profile=Profile.ANY, channels=one(1, 2, 3), height=int(rng.integers(5, 9)), width=int(rng.integers(5, 9)),
        timesteps=steps, static_input=one(True, False), signed_input=one(True, False), images=Images.MIXED,
        layers=tuple(layer() for _ in range(one(1, 2))), outputs=3, max_strip_rows=one(None, None, 1, 2),
        ring_rows=one(None, None, 3), seed=seed,
    )  # fmt: skip


def _program(seed: int, config: Config) -> tuple[object, object] | None:
    """A random case with maps beyond a border and its program; None if it has none, or is too large."""
    case = build(_spec(seed))
    if not any(any(leg.geometry.beyond) for layer in case.network.layers for leg in layer.maps):
        return None
    hints = dataclasses.replace(case.hints, row_mode=True) if config.taps > 1 else case.hints
    try:
        return case, lower(case.network, config, plain_meta(case.network), hints)
    except InputError as error:
        if "too large" not in str(error):
            raise
        return None


@pytest.mark.parametrize(("name", "number", "least"), [("tiny", 130, 50), ("tiny-row", 40, 12)])
def test_random_programs_are_what_direct_evaluation_says(name: str, number: int, least: int) -> None:
    run = 0
    for seed in range(number):
        if (found := _program(seed, preset(name))) is None:
            continue
        case, program = found
        expected = reference.evaluate(case.network, case.codes)
        layers, logits = GoldenModel(program, preset(name)).run_layers(case.codes)
        np.testing.assert_array_equal(logits, expected.logits)
        for codes, wanted in zip(layers[:-1], expected.codes[:-1], strict=True):
            np.testing.assert_array_equal(codes, wanted)
        run += 1
    assert run >= least


@pytest.fixture(scope="module")
def core() -> Iterator[RtlCore]:
    with RtlCore(preset("tiny")) as core:
        yield core


def test_random_programs_on_the_gateware(core: RtlCore) -> None:
    run = 0
    for seed in range(30):
        if (found := _program(seed, core.config)) is None:
            continue
        case, program = found
        verifier = Verifier(program, core.config, core)
        np.testing.assert_array_equal(
            verifier.model.run(case.codes), reference.evaluate(case.network, case.codes).logits
        )
        result = verifier.run(case.codes)
        assert result.difference is None, str(result.difference)
        compare_cycles(core, CycleModel(program, core.config).strips(case.codes[-1:])[0])
        run += 1
    assert run >= 10


def _checkpoint(network: Network) -> Checkpoint:
    state = network.state_dict()
    return Checkpoint(network.spec, {name: state[name].numpy() for name in network.spec.tensor_shapes()})


def _pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, *SOURCE.shape), dtype=np.uint8)


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_binary_spikes_are_those_of_the_float_network(pool: PoolSpec) -> None:
    """What is taken away has the gain of what it is taken from; sums of several maps are kept in 18 bits."""
    network = Case(pool, "current", system="bsnn", steps=2, v_th=0.5).network()
    pixels = _pixels(3)
    graph = import_checkpoint(_checkpoint(network))
    folded = fold(drop_redundant_time(graph, prove_invariance(graph)))
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(evaluate_folded(folded, pixels), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    spikes: dict[str, list[np.ndarray]] = {}
    evaluate_folded(folded, pixels, lambda name, fired: spikes.setdefault(name, []).append(fired))
    program = compile_network(_checkpoint(network), ROOMY, CompileOptions(images=pixels)).program
    layers, _ = GoldenModel(program, ROOMY).run_layers(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))[:, None])
    for info, codes in zip(program.layers[:-1], layers, strict=False):
        wanted = np.stack(spikes[info.name], axis=1).transpose(0, 1, 3, 4, 2)
        assert (codes != wanted).mean() < 3e-3
        assert 0 < codes.mean() < 1
    kinds = [kind_of(program, program.layers[0], position) for position in range(len(program.layers[0].maps))]
    assert kinds == ["border of its pool"] * (len(kinds) - 1) + ["convolution"]
    assert len(kinds) > 1


def test_with_a_gate_it_is_refused_by_name() -> None:
    network = Case(POOLS[0], "current", system="agmm-bsnn", v_th=0.5, gate=True).network()
    with pytest.raises(InputError, match="layer one: pooling of its current with padding is not supported with a gate"):
        compile_network(_checkpoint(network), ROOMY)


def test_over_a_source_longer_than_a_step_it_is_refused_by_name() -> None:
    geometry = Geometry(padding=(1, 1), out_pool=Pool((2, 2), (2, 2), (1, 1)))
    weight = np.ones((1, 1, 3, 3), dtype=np.int64)
    _, part = next(surplus(geometry, (70, 70), (3, 3)))
    layer = plain_layer("one", INPUT, weight, geometry=part)
    network = IntNetwork(IntInput(1, 70, 70, np.zeros(1, dtype=np.uint8)), (layer,), 1, True)
    with pytest.raises(InputError, match="layer one: pooling of its current with padding is not supported for 36 wind"):
        walks_of(network)
