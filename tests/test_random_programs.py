"""Random programs: direct evaluation, golden model, gateware and cycle model agree; and what they cover."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from strategies import compiled, examples, specs

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.intnet import INPUT, IntLayer, WeightKind
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.random_networks import Case, NetworkSpec, Profile, build
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import SLOT_FIELDS, Counter, Opcode
from reverb_fpga.sim.cycles import CycleModel, StripCycles
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore
from reverb_fpga.sim.verify import Verifier

TINY, ROWS = preset("tiny"), preset("tiny-row")
# Four slots of eight lanes in two banks: the only small shape whose neuron lanes outrun the emitter.
BURSTY = dataclasses.replace(TINY, name="bursty", lanes_per_cluster=16, neuron_lanes=8, layer_groups=16)
# Examples of each profile: more than 200 programs, at least 50 of them with everything at once.
EXAMPLES = {
    Profile.ANY: 120,
    Profile.DYNAMIC: 25,
    Profile.TILED: 25,
    Profile.SIGNED: 25,
    Profile.MULTIBIT: 25,
    Profile.EVERYTHING: 120,
}
BOARD_EXAMPLES = dict.fromkeys(EXAMPLES, 10) | {Profile.GRAPH: 40}
_BOARD_QUOTA = 50
BURSTS = 24
GRAPHS = 500
_GRAPH_QUOTA = 20  # graph programs that must have each of the features of graphs
_QUOTA = 10  # programs that must hit each mode
_LARGE_QUOTA = 50  # programs that must have each of the features of Profile.EVERYTHING


@dataclasses.dataclass
class Coverage:
    """In how many programs each thing occurred."""

    programs: int = 0
    hits: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, features: set[str]) -> None:
        self.programs += 1
        self.hits.update(features)

    def table(self) -> str:
        lines = [f"{self.programs} programs"]
        return "\n".join(lines + [f"  {name:<44}{number:>5}" for name, number in sorted(self.hits.items())])


def require(name: str, condition: bool | np.bool_, features: set[str]) -> None:
    if condition:
        features.add(name)


def schedule_features(program: Program) -> set[str]:
    """Opcodes, modes and flags of the descriptors and of the slot program."""
    found: set[str] = set()
    for index in range(program.n_descriptors):
        opcode, fields = program.descriptor(index)
        found.add(f"opcode {opcode.name}")
        if opcode is not Opcode.LAYER:
            continue
        for flag in ("spiking", "static_input", "pad_record", "store_skip", "add_skip"):
            found.add(f"{flag} = {fields[flag]}")
        window = fields["n_pool_y"] * fields["n_tap_y"] + fields["rows"]
        wraps = fields["src_row0"] + window * max(1, fields["src_row_tap"]) >= fields["src_ring"]
        require("source ring wraps", bool(wraps and fields["src_row0"]), found)
        require("target ring wraps", fields["dst_row0"] > 0 or fields["rows"] > 1, found)
        require("pooled gather", fields["n_pool_y"] > 1, found)
        require("pooled input", fields["n_pool_y"] > 1 and fields["y_tap"] > 1, found)
        require("pooled current", fields["n_pool_y"] > 1 and fields["y_tap"] == 1, found)
        require("stride", fields["y_step"] > 1 and fields["n_pool_y"] == 1, found)
        require("several passes", fields["n_passes"] > 1, found)
        if fields["row_passes"]:
            found |= row_features(fields)
        require("static input in several passes", bool(fields["static_input"] and fields["n_passes"] > 1), found)
        require("rounding shift 0", fields["r_shift"] == 0, found)
        require("no leak", bool(fields["spiking"] and fields["tau_q"] == 256), found)
        require("soft reset", bool(fields["soft_reset"]), found)
        require("leaks everything", fields["tau_q"] == 0, found)
        require("leaks in part", 0 < fields["tau_q"] < 256, found)
    for word in program.slot:
        entry = contract.unpack(SLOT_FIELDS, [int(word)])
        if not entry["valid"]:
            found.add("slot unused")
            continue
        for flag in ("negate", "subtract_s", "first", "final"):
            found.add(f"slot {flag} = {entry[flag]}")
        require("slot shift 0", entry["shift"] == 0, found)
        require("slot shift >= 4", entry["shift"] >= 4, found)
        require("slot group > 0", entry["group"] > 0, found)
    return found


def row_features(fields: dict[str, int]) -> set[str]:
    """What is special about a layer in row mode."""
    found = {"row mode"}
    require("row mode, several passes", fields["row_passes"] > 1, found)
    require("row mode, pooled current", fields["n_pool_x"] > 1, found)
    require("row mode, padded", fields["ix0"] < 0, found)
    require("row mode, pad record", bool(fields["pad_record"]), found)
    require("row mode, several steps", fields["timesteps"] > 1 and not fields["static_input"], found)
    require("row mode, static input", bool(fields["static_input"]), found)
    require("row mode, leg", bool(fields["store_skip"] or fields["add_skip"]), found)
    require("row mode, gate", bool(fields["gate"]), found)
    require(
        "row mode, pooled current, several steps",
        {"row mode, pooled current", "row mode, several steps"} <= found,
        found,
    )
    return found


def network_features(case: Case, program: Program) -> set[str]:
    """What the network, its parameters and its input are like."""
    network, found = case.network, set()
    hidden = network.layers[:-1]
    expected = reference.evaluate(network, case.codes)
    currents = [z for z, layer in zip(expected.currents, hidden, strict=False) if layer.threshold.max() > 0]
    maps = [leg for layer in network.layers for leg in layer.maps]
    changing = any((z[:, 1:] != z[:, :-1]).any() for z in currents)
    require("T >= 2, threshold > 0, changing currents", network.timesteps >= 2 and changing, found)
    require("several strips", any(len(info.strips) > 1 for info in program.layers), found)
    passes = [fields["n_passes"] for _, fields in layer_descriptors(program)]
    strips = {info.name for info in program.layers if len(info.strips) > 1}
    require("several tiles and strips", max(passes) > 1 and bool(strips), found)
    padded = any(leg.source == INPUT and any(leg.geometry.padding) for leg in maps)
    require("signed padded input", padded and bool(network.input.pad_codes.any()), found)
    require("multi-bit weights", any(leg.kind is WeightKind.MULTIBIT for leg in maps), found)
    for leg in maps:
        found.add(f"weights {leg.kind.value}")
    require("all-zero input", not case.codes.any(), found)
    require("all-maximum input", case.codes.min() == 255, found)
    for layer, z, codes in zip(hidden, expected.currents, expected.codes, strict=False):
        found |= layer_features(layer, z, codes)
    return found


def layer_features(layer: IntLayer, z: np.ndarray, codes: np.ndarray) -> set[str]:
    found: set[str] = set()
    limit = 1 << 23
    own = layer.maps[-1]
    half = (1 << own.r_shift) >> 1
    q = (z * own.gain + half) >> own.r_shift
    require("current saturates", (np.abs(q) > limit).any(), found)
    require("bias saturates", (np.abs(np.clip(q, -limit, limit - 1) + own.bias) > limit).any(), found)
    require("zero gain", (own.gain == 0).any(), found)
    require("negative threshold", (layer.threshold < 0).any(), found)
    require("extreme weights", np.isin(own.weight, [own.weight.min(), own.weight.max()]).all(), found)
    require("code saturates", (codes == layer.code_max).any(), found)
    require("layer silent", not codes.any(), found)
    require("every neuron fires", codes.all(), found)
    return found


def graph_features(case: Case, program: Program) -> set[str]:
    """What makes the network more than a chain, and what its maps, spikes and steps are like."""
    network, found = case.network, set[str]()
    if any(len(layer.maps) > 1 for layer in network.layers):
        moved = any(fields["iy0"] == 0 and fields["src_row0"] for _, fields in layer_descriptors(program))
        require("a tensor in another's place", moved, found)
        loads = sum(program.descriptor(index)[0] is Opcode.INPUT for index in range(program.n_descriptors))
        require("image by rows, with shortcuts", loads > 0, found)
    readers = collections.Counter(name for layer in network.layers for name in set(layer.sources))
    require("several readers", any(number > 1 for name, number in readers.items() if name != INPUT), found)
    for layer in network.layers:
        shortcuts = layer.maps[:-1]
        require("double shortcut", len(shortcuts) > 1 and layer.spiking, found)
        for leg in shortcuts:
            require("identity shortcut", leg.kind is WeightKind.UNIT, found)
            require("downsample shortcut", leg.kind is not WeightKind.UNIT and layer.spiking, found)
            require("pooled shortcut", leg.geometry.in_pool.size > 1, found)
        for leg in layer.maps:
            require("dilation", leg.geometry.dilation != (1, 1) and max(leg.kernel) > 1, found)
            require("non-square kernel", leg.kernel[0] != leg.kernel[1] and layer.spiking, found)
            overlap = any(
                pool.window[axis] > pool.stride[axis]
                for pool in (leg.geometry.in_pool, leg.geometry.out_pool)
                for axis in range(2)
            )
            require("overlapping pooling windows", overlap, found)
            require(f"weights {leg.kind.value}", True, found)
        require("gate", layer.gate is not None, found)
        require("gate without a shortcut", layer.gate is not None and len(layer.maps) == 1, found)
        if layer.spiking:
            found.add("binary spikes" if layer.code_max == 1 else "real spikes")
    require("T = 1", network.timesteps == 1, found)
    require("1 < T < maximum", 1 < network.timesteps < TINY.max_timesteps, found)
    require("T = maximum", network.timesteps == TINY.max_timesteps, found)
    require("distinct input frames", network.timesteps > 1 and not network.static_input, found)
    once = [layer for layer in network.layers if layer.timesteps < network.timesteps]
    require("tensor stored once, T > 1", bool(once), found)
    require("static image, T > 1", network.timesteps > 1 and network.static_input, found)
    return found


def layer_descriptors(program: Program) -> Iterator[tuple[int, dict[str, int]]]:
    for index in range(1, program.n_descriptors - 1):
        opcode, fields = program.descriptor(index)
        if opcode is Opcode.LAYER:
            yield index, fields


def compare_cycles(core: RtlCore, predicted: list[StripCycles]) -> set[str]:
    """The cycle model against the counters of the image that ran last; the stall causes that occurred."""
    found: set[str] = set()
    for strip in predicted:
        counters = core.counters(strip.index)
        assert strip.events == counters[Counter.EVENTS]
        assert strip.passes == counters[Counter.PASSES]
        assert strip.cycles == pytest.approx(counters[Counter.CYCLES], rel=0.02, abs=4)
        assert strip.beats == pytest.approx(counters[Counter.BEATS], rel=0.02, abs=4)
        for cause in (Counter.STALL_TABLE, Counter.STALL_DRAIN, Counter.STALL_STEAL, Counter.STALL_EMIT):
            require(f"stall {cause.name}", counters[cause] > 0, found)
    return found


def check_on_gateware(spec: NetworkSpec, core: RtlCore, coverage: Coverage) -> None:
    case = build(spec)
    program = compiled(case, core.config)
    expected = reference.evaluate(case.network, case.codes)
    verifier = Verifier(program, core.config, core)
    np.testing.assert_array_equal(verifier.model.run(case.codes), expected.logits)
    result = verifier.run(case.codes)
    assert result.difference is None, str(result.difference)
    predicted = CycleModel(program, core.config).strips(case.codes[-1:])[0]
    stalls = compare_cycles(core, predicted)
    coverage.add(schedule_features(program) | network_features(case, program) | graph_features(case, program) | stalls)


def sweep(core: RtlCore, plan: dict[Profile, int]) -> Coverage:
    coverage = Coverage()
    for profile, number in plan.items():

        @examples(number)
        @given(specs(profile))
        def check(spec: NetworkSpec) -> None:
            check_on_gateware(spec, core, coverage)

        check()
    return coverage


@pytest.fixture(scope="module")
def tiny_core() -> Iterator[RtlCore]:
    with RtlCore(TINY) as core:
        yield core


def test_some_programs_on_the_gateware(tiny_core: RtlCore) -> None:
    """A few of each kind, in seconds."""
    coverage = sweep(tiny_core, dict.fromkeys(EXAMPLES, 2) | {Profile.GRAPH: 8})
    assert coverage.programs >= 2 * len(EXAMPLES) + 8
    assert coverage.hits["add_skip = 1"]


@pytest.fixture(scope="module")
def row_core() -> Iterator[RtlCore]:
    with RtlCore(ROWS) as core:
        yield core


ROW_FEATURES = (
    "row mode", "row mode, several passes", "row mode, pooled current", "row mode, padded", "row mode, pad record",
    "row mode, several steps", "row mode, static input", "row mode, leg", "row mode, gate",
    "row mode, pooled current, several steps",
)  # fmt: skip


def test_some_programs_in_row_mode_on_the_gateware(row_core: RtlCore) -> None:
    coverage = sweep(row_core, {Profile.ANY: 6, Profile.SIGNED: 4, Profile.EVERYTHING: 6, Profile.GRAPH: 8})
    assert coverage.hits["row mode"] >= 6


@pytest.mark.slow
def test_200_programs_in_row_mode_on_the_gateware(row_core: RtlCore) -> None:
    coverage = sweep(row_core, EXAMPLES | {Profile.GRAPH: 200})
    print(coverage.table())
    missed = {name: coverage.hits[name] for name in ROW_FEATURES if coverage.hits[name] < _QUOTA}
    assert not missed, f"hit fewer than {_QUOTA} times: {missed}"


GRAPH_FEATURES = (
    "gate", "gate without a shortcut",
    "identity shortcut", "downsample shortcut", "double shortcut", "pooled shortcut", "several readers",
    "binary spikes", "real spikes", "weights ternary", "weights multibit", "T = 1", "1 < T < maximum", "T = maximum",
    "distinct input frames", "static image, T > 1",
    "image by rows, with shortcuts", "a tensor in another's place",
    "tensor stored once, T > 1", "dilation", "non-square kernel", "overlapping pooling windows",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_500_graph_programs_on_the_gateware(tiny_core: RtlCore) -> None:
    coverage = sweep(tiny_core, {Profile.GRAPH: GRAPHS})
    print(coverage.table())
    assert coverage.programs >= GRAPHS
    quota = dict.fromkeys(GRAPH_FEATURES, _GRAPH_QUOTA) | {"a tensor in another's place": _GRAPH_QUOTA // 2}  # rare
    missed = {name: coverage.hits[name] for name in quota if coverage.hits[name] < quota[name]}
    assert not missed, f"hit too rarely: {missed}"


@pytest.mark.slow
def test_200_programs_on_the_gateware(tiny_core: RtlCore) -> None:
    coverage = sweep(tiny_core, EXAMPLES)
    with RtlCore(BURSTY) as core:
        bursts = sweep(core, {Profile.BURST: BURSTS})
    coverage.hits.update(bursts.hits)
    coverage.programs += bursts.programs
    print(coverage.table())
    assert coverage.programs >= 200
    for name in Profile.DYNAMIC, Profile.TILED, Profile.SIGNED, Profile.MULTIBIT:
        key = {Profile.TILED: "several tiles and strips"}.get(name, name.value)
        assert coverage.hits[key] >= _LARGE_QUOTA, key
    expected = {
        *(f"opcode {opcode.name}" for opcode in Opcode),
        *(f"{flag} = {value}" for flag in ("spiking", "static_input", "pad_record") for value in (0, 1)),
        *(f"slot {flag} = {value}" for flag in ("negate", "subtract_s", "first", "final") for value in (0, 1)),
        *(f"stall {cause}" for cause in ("STALL_TABLE", "STALL_DRAIN", "STALL_STEAL", "STALL_EMIT")),
        *(f"weights {kind.value}" for kind in WeightKind),
    }
    missed = {name: coverage.hits[name] for name in expected | set(coverage.hits) if coverage.hits[name] < _QUOTA}
    assert not missed, f"hit fewer than {_QUOTA} times: {missed}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["ulx3s-12f", "ulx3s-25f", "ulx3s-85f", "ulx3s-85f-row"])
def test_programs_on_the_gateware_of_a_board(name: str) -> None:
    """Of programs that fit the board's memories."""
    with RtlCore(preset(name)) as core:
        coverage = sweep(core, BOARD_EXAMPLES)
    print(coverage.table())
    assert coverage.programs >= _BOARD_QUOTA


@pytest.mark.slow
@pytest.mark.parametrize("profile", EXAMPLES)
def test_500_programs_of_each_kind_equal_reference(profile: Profile) -> None:
    @examples(500)
    @given(specs(profile))
    def check(spec: NetworkSpec) -> None:
        case = build(spec)
        program = compiled(case, TINY)
        expected = reference.evaluate(case.network, case.codes)
        layers, logits = GoldenModel(program, TINY).run_layers(case.codes)
        for info, codes, found in zip(program.layers, expected.codes, layers, strict=True):
            np.testing.assert_array_equal(found, codes, err_msg=info.name)
        np.testing.assert_array_equal(logits, expected.logits)

    check()
