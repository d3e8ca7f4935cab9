"""The verifier of compiled programs: what the back end emits and what a file claims is checked alike.

It executes no arithmetic. Whatever passes is computed by the gateware exactly as ``docs/numerics.md`` says: every
record that a strip reads is proven to be the one it means (:mod:`.program_memory`), no sum overflows
(:mod:`.program_widths`), every group of z keeps its cell (:mod:`.slot_checks`), and no number leaves the bits that the
gateware has for it, and no descriptor outruns the device's watchdog (:mod:`.program_time`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from reverb_fpga.compiler.leg_checks import LegChecks
from reverb_fpga.compiler.program import LayerInfo, Program, sections_crc32
from reverb_fpga.compiler.program_memory import INPUT, ActivationMemory, Place, SourceRows, source_rows, tags_of
from reverb_fpga.compiler.program_sections import check_params, check_sections, constant_record
from reverb_fpga.compiler.program_time import check_time
from reverb_fpga.compiler.program_widths import WeightProofs
from reverb_fpga.compiler.row_mode import all_slots, check_row, slots_of
from reverb_fpga.compiler.slot_checks import SlotEntry, check_repeats, check_slots
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    CONTRACT_VERSION,
    DESCRIPTOR_WORDS,
    EVENT_INDEX_BITS,
    EVENT_VALUE_BITS,
    POSITION_BITS,
    TAU_ONE,
    Gate,
    Opcode,
)
from reverb_fpga.hw.errors import InputError

__all__ = ["check_program"]

_NOTHING = -2  # no tensor
_CODE_MAX = (1 << EVENT_VALUE_BITS) - 1


def check_program(program: Program, config: Config) -> None:
    """Check a program against the contract and the configuration that it names.

    Memory and time are bounded by the configuration, whatever the program says.

    Raises
    ------
    InputError
        One line: the descriptor, layer or section, and what is wrong with it.
    """
    if program.config_digest != config.digest:
        raise InputError(
            f"program {program.name}: compiled for configuration {program.config_name} "
            f"({program.config_digest:016x}), this one is {config.name} ({config.digest:016x}); compile it again"
        )
    whole = f"program {program.name}"
    head = _check_head(program, config)
    verifier = _Verifier(program, config, head)
    for index in range(1, program.n_descriptors - 1):
        opcode, fields = program.descriptor(index)
        where = f"{whole}: descriptor {index}"
        if opcode is Opcode.INPUT:
            verifier.load(fields, where)
            continue
        _require(opcode is Opcode.LAYER, where, f"{opcode.name} in the middle of the schedule")
        _require(fields["layer"] < len(program.layers), where, f"layer {fields['layer']} does not exist")
        verifier.strip(index, fields, where)
    verifier.end(whole)
    opcode, _ = program.descriptor(program.n_descriptors - 1)
    _require(opcode is Opcode.END, whole, "does not end with END")


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise InputError(f"{where}: {what}")


def _check_head(program: Program, config: Config) -> Mapping[str, int]:
    where = f"program {program.name}"
    _require(
        len(program.desc) % DESCRIPTOR_WORDS == 0 and program.n_descriptors >= 3, where, "section desc is incomplete"
    )
    opcode, head = program.descriptor(0)
    _require(opcode is Opcode.PROGRAM, where, "does not start with PROGRAM")
    _require(head["version"] == CONTRACT_VERSION, where, f"contract version {head['version']}, not {CONTRACT_VERSION}")
    check_sections(program, config, head, where)
    _require(head["crc32"] == sections_crc32(program.sections()), where, "its sections do not match their checksum")
    _require(head["config_low"] | head["config_high"] << 32 == config.digest, where, "configuration digest differs")
    transform = program.input
    records = program.input_records
    steps = records // max(1, transform.height * transform.width)
    ok = steps in (1, program.timesteps) and records == steps * transform.height * transform.width
    _require(ok, where, "its input records are not those of its input")
    room = config.banks << EVENT_INDEX_BITS
    _require(transform.channels <= room, where, f"{transform.channels} input channels, at most {room}")
    _require(len(program.layers) > 0, where, "has no layers")
    _require(
        head["n_outputs"] == program.layers[-1].shape[0] == len(program.labels), where, "outputs and labels differ"
    )
    _require(program.layers[-1].shape[1:] == (1, 1), where, "its output has more than one position")
    _require(1 <= program.timesteps <= config.max_timesteps, where, f"{program.timesteps} time steps")
    return head


@dataclasses.dataclass(frozen=True)
class _Source:
    """A tensor that a descriptor reads: its number, its channels and the time steps of its records."""

    number: int
    channels: int
    timesteps: int


class _Verifier:
    """Follows the schedule, descriptor by descriptor."""

    def __init__(self, program: Program, config: Config, head: Mapping[str, int]) -> None:
        self._program = program
        self._config = config
        self._constant = constant_record(program, config, f"program {program.name}")
        self._memory = ActivationMemory(config, self._constant.words, self._constant.records)
        self._weights = WeightProofs(program, config)
        self._legs = LegChecks(config)
        self._strips: list[list[tuple[int, int, int]]] = [[] for _ in program.layers]
        self._next = [0] * len(program.layers)  # the map of each layer whose turn it is
        self._rows = 0  # of the input, that have been stored
        self.load(head, "the input")

    def load(self, f: Mapping[str, int], where: str) -> None:
        """The first rows of the input, or the next: each is stored once, in order."""
        transform, number = self._program.input, f["in_records"]
        _require(f["in_channels"] == transform.channels, where, "its channels are not those of the image")
        slots = -(-transform.channels // self._config.banks)
        _require(f["in_slots"] == slots, where, "in_slots does not fit its channels")
        length = self._program.input_records // transform.height
        _require(number > 0 and number % length == 0, where, "takes no whole rows of the image")
        place = Place(f["in_act_base"], f["in_cnt_base"], f["in_slots"])
        self._memory.check_inside(place, number, where)
        rows = self._rows + np.arange(number // length)  # no more than there are: their sum is what was counted
        self._memory.write(place, np.arange(number), tags_of(INPUT, rows, length), _CODE_MAX, where)
        self._rows += len(rows)

    def strip(self, index: int, f: Mapping[str, int], where: str) -> None:
        """One LAYER descriptor."""
        program, config = self._program, self._config
        info = program.layers[f["layer"]]
        done = self._strips[f["layer"]]
        first = done[-1][1] + done[-1][2] if done else 0
        if not f["store_skip"]:
            done.append((index, first, f["rows"]))
        _check_fields(program, config, f, info, where)
        groups = -(-info.shape[0] // config.neuron_lanes)
        self._legs.take(f, groups, where)
        if not f["store_skip"]:  # a leg stores no record
            _check_target(config, f, info, where)
            self._memory.check_inside(_target(f), f["dst_ring"], where)
        rows = source_rows(f)
        source = self._source(f, rows, where)
        _check_source(config, f, source, where)
        self._check_map(f, source, where)
        self._check_pad(f, source, where)
        largest = self._move(f, rows, source, first, where)
        self._weights.prove(f, self._passes(f, groups, where), source.channels, largest, where)
        check_time(f, groups, config, where)
        if f["gate"] == Gate.SIGMOID:  # parameters are those of the steps
            check_params(program, config, f["param_base"], f["timesteps"] * config.neuron_lanes, where)
        else:
            fires = bool(f["spiking"])
            check_params(program, config, f["param_base"], info.shape[0], where, fires=fires)

    def end(self, where: str) -> None:
        """All layers are complete, as the layer table says, and the output layer is the last to run."""
        program = self._program
        self._legs.end(where)
        for info, strips in zip(program.layers, self._strips, strict=True):
            rows = sum(strip[2] for strip in strips)
            _require(rows == info.shape[1], where, f"layer {info.name} is not complete")
            _require(info.strips == tuple(strips), where, f"strips of layer {info.name} differ from the layer table")
        opcode, last = program.descriptor(program.n_descriptors - 2)
        ok = opcode is Opcode.LAYER and last["layer"] == len(program.layers) - 1
        _require(ok, where, "its output layer is not the last to run")

    def _source(self, f: Mapping[str, int], rows: SourceRows, where: str) -> _Source:
        """The tensor that it reads, found by what lies there; the image, if it reads nothing but pad records."""
        number = INPUT
        if not len(rows.rows) and not f["pad_record"]:  # a leg that makes gates of sums gathers nothing
            return _Source(_NOTHING, f["src_slots"] * self._config.banks, f["t_src"])
        if len(rows.rows):
            found = self._memory.tensor_at(f["src_cnt_base"] + int(rows.offsets[0]))
            if found is None:
                raise InputError(f"{where}: row {int(rows.rows[0])} of its source was never stored where it is read")
            number = found
        if number != INPUT:
            info = self._program.layers[number]
            return _Source(number, info.shape[0], info.timesteps)
        transform = self._program.input
        steps = self._program.input_records // (transform.height * transform.width)
        return _Source(number, transform.channels, steps)

    def _check_map(self, f: Mapping[str, int], source: _Source, where: str) -> None:
        """It is the leg whose turn it is by the layer table; the last one stores no current."""
        layer, maps = f["layer"], self._program.layers[f["layer"]].maps
        turn = self._next[layer]
        _require(turn < len(maps), where, "its layer has no legs in the layer table")
        leg, last = maps[turn], turn == len(maps) - 1
        _require(f["gate"] == leg.gate, where, "its kind of leg is not that of the layer table")
        _require(last == (not f["store_skip"]), where, "its layer has another number of legs in the layer table")
        same = source.number in (leg.source, _NOTHING)
        _require(same, where, f"reads tensor {source.number}, by the layer table it is {leg.source}")
        # what concerns the whole map comes before the first strip, and not again
        self._next[layer] = sum(other.once for other in maps) if last else turn + 1

    def _check_pad(self, f: Mapping[str, int], source: _Source, where: str) -> None:
        if not f["pad_record"]:
            return
        _require(source.number == INPUT, where, "a pad record beside a tensor that is not the image")
        there = f["pad_act_base"] == f["pad_cnt_base"] == 0
        ok = there and self._constant.records > 0 and self._constant.words == f["src_slots"]
        _require(ok, where, "its pad record is not there")

    def _move(self, f: Mapping[str, int], rows: SourceRows, source: _Source, first: int, where: str) -> int:
        """Read the source, store the result; the largest code that was read.

        The result may lie nowhere in what is read: outputs are stored while later ones are gathered.
        """
        length = f["in_width"] * f["t_src"]
        # each row once and within its ring: that bounds what follows
        _require(len(np.unique(rows.rows)) == len(rows.rows), where, "reads a row of its source from two places")
        _require(len(rows.rows) * length <= f["src_ring"], where, "reads more records than its source's ring holds")
        _require(int(rows.offsets.max(initial=0)) + length <= f["src_ring"], where, "reads beyond its source's ring")
        place = Place(f["src_act_base"], f["src_cnt_base"], f["src_slots"])
        records = (rows.offsets[:, None] + np.arange(length)).ravel()
        tags = tags_of(source.number, rows.rows, length)
        self._memory.check_inside(place, f["src_ring"], where)
        largest = self._memory.read(place, records, tags)
        if largest is None:
            raise self._misplaced(place, rows, (source.number, length), first, where)
        if f["spiking"]:
            out = np.arange(f["rows"])
            targets = (f["dst_row0"] + out * f["dst_row_stride"]) % f["dst_ring"]
            stored = (targets[:, None] + np.arange(f["dst_row_stride"])).ravel()
            tags_out = tags_of(f["layer"], first + out, f["dst_row_stride"])
            self._memory.write(_target(f), stored, tags_out, f["code_max"], where)
            intact = self._memory.read(place, records, tags) is not None
            _require(intact, where, "stores its result over what it reads")
        return largest

    def _misplaced(self, place: Place, rows: SourceRows, row_of: tuple[int, int], first: int, where: str) -> InputError:
        """Which row is not where it is read."""
        for row, offset in zip(rows.rows, rows.offsets, strict=True):
            number, length = row_of
            tags = tags_of(number, np.array([row]), length)
            if self._memory.read(place, offset + np.arange(length), tags) is None:
                return InputError(
                    f"{where}: row {int(row)} of its source is not where its rows from {first} on read it"
                )
        return InputError(f"{where}: its source is not where it reads it")

    def _passes(self, f: Mapping[str, int], groups: int, where: str) -> tuple[tuple[SlotEntry, ...], ...]:
        """The slot program, which must compute exactly the groups that the layer has."""
        slots = slots_of(f, self._config)
        count = f["n_passes"] * slots
        words = self._program.slot[f["slot_base"] : f["slot_base"] + count]
        _require(len(words) == count, where, "its slot entries do not exist")
        passes = check_slots(words, slots, self._config, where, f["row_passes"])
        finishing = [index for index, entries in enumerate(passes) for entry in entries if entry["final"]]
        check_repeats(f, groups, finishing[0], self._config, where)
        finished = len(finishing)
        _require(finished == groups, where, f"its slot program computes {finished} groups, it has {groups}")
        return passes


def _target(f: Mapping[str, int]) -> Place:
    return Place(f["dst_act_base"], f["dst_cnt_base"], f["dst_slots"] if f["spiking"] else 0)


_LOOPS = ("rows", "cols", "timesteps", "t_src", "in_height", "in_width", "n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x")
_POSITIVE = (*_LOOPS, "src_ring", "src_slots", "n_passes", "code_max")


def _check_fields(program: Program, config: Config, f: Mapping[str, int], info: LayerInfo, where: str) -> None:
    """What a descriptor says by itself."""
    for name in _POSITIVE:
        _require(f[name] > 0, where, f"{name} is 0")
    _require(f["timesteps"] == info.timesteps, where, "its time steps are not those of the layer table")
    _require(info.timesteps in (1, program.timesteps), where, "its time steps are neither 1 nor the program's")
    cols = 1 if f["gate"] == Gate.SIGMOID else info.shape[2]
    _require(f["cols"] == cols, where, "its columns are not those of the layer table")
    last = f["layer"] == len(program.layers) - 1
    firing = f["spiking"] == (info.spiking and not f["store_skip"]) and info.spiking == (not last)
    _require(firing, where, "only the last layer may be without firing")
    _require(f["tau_q"] <= TAU_ONE, where, f"tau_q is {f['tau_q']}")
    _require(f["reset"] < 1 << (config.membrane_width - 1), where, f"reset is {f['reset']}")
    whole = f["rows"] == info.shape[1] and f["cols"] == info.shape[2]
    _require(f["gate"] != Gate.SUM or whole, where, "sums over a part of its map")
    window = f["n_pool_y"] * f["n_pool_x"] * f["n_tap_y"] * f["n_tap_x"]
    _require(window <= config.table_entries, where, f"its window has {window} records, at most {config.table_entries}")
    slots = all_slots(f, config)
    _require(f["pass_slots"] <= slots, where, f"drains {f['pass_slots']} slots of a pass, which has {slots}")
    _check_walk(f, where)
    check_row(f, config, where)


def _check_target(config: Config, f: Mapping[str, int], info: LayerInfo, where: str) -> None:
    """Whole rows of its layer's records."""
    for name in ("dst_ring", "dst_slots", "dst_row_stride"):
        _require(f[name] > 0, where, f"{name} is 0")
    _require(f["dst_slots"] == -(-info.shape[0] // config.banks), where, "dst_slots does not fit its channels")
    _require(
        f["dst_row0"] < f["dst_ring"]
        and f["dst_ring"] % f["dst_row_stride"] == f["dst_row0"] % f["dst_row_stride"] == 0,
        where,
        "its ring is not of whole rows",
    )
    _require(f["rows"] * f["dst_row_stride"] <= f["dst_ring"], where, "it writes more rows than its ring holds")
    _require(f["dst_row_stride"] == f["cols"] * f["timesteps"], where, "dst_row_stride is not cols * timesteps")


def _check_source(config: Config, f: Mapping[str, int], source: _Source, where: str) -> None:
    """Its time steps and the words of its records."""
    _require(source.timesteps in (1, f["timesteps"]), where, "its source has more time steps than it has")
    static = source.timesteps < f["timesteps"]
    _require(f["static_input"] == static, where, "static_input does not fit its time steps")
    _require(f["t_src"] == source.timesteps, where, f"t_src is {f['t_src']}")
    slots = -(-source.channels // config.banks)
    _require(f["src_slots"] == slots, where, "src_slots does not fit the source's channels")


def _check_walk(f: Mapping[str, int], where: str) -> None:
    """Coordinates stay in the walker's bits, columns follow them, and steps in the ring are reduced."""
    limit = 1 << (POSITION_BITS - 1)
    for axis, out in (("y", "rows"), ("x", "cols")):
        farthest = f[f"i{axis}0"]
        for level, count in (("step", out), ("pool", f"n_pool_{axis}"), ("tap", f"n_tap_{axis}")):
            farthest += (f[count] - 1) * f[f"{axis}_{level}"]
        _require(farthest < limit, where, f"{axis} reaches {farthest}, at most {limit - 1}")
    for name, factor in (
        ("src_col0", "ix0"),
        ("src_col_step", "x_step"),
        ("src_col_pool", "x_pool"),
        ("src_col_tap", "x_tap"),
    ):
        _require(f[name] == f[factor] * f["t_src"], where, f"{name} is {f[name]}, not {factor} * t_src")
    for name in ("src_row0", "src_row_step", "src_row_pool", "src_row_tap"):
        _require(f[name] < f["src_ring"], where, f"{name} is not reduced modulo its ring")
