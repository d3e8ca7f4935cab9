"""The verifier of compiled programs: what the back end emits and what a file claims is checked alike.

It executes no arithmetic. It walks the schedule with a tag per memory word (which row of which tensor lies there), and
so proves that every strip reads what it must read, independently of how the schedule and the allocation came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.leg_checks import LegChecks
from reverb_fpga.compiler.program import LayerInfo, Program, section_capacity, sections_crc32
from reverb_fpga.compiler.slot_checks import check_slots
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    CONTRACT_VERSION,
    COUNT_BITS,
    DESCRIPTOR_WORDS,
    PARAM_FIELDS,
    PARAM_WORDS,
    TAU_ONE,
    Gate,
    Opcode,
    unpack,
)
from reverb_fpga.hw.errors import InputError

__all__ = ["check_program"]

_PAD_TAG = -2
_EMPTY = -1


def check_program(program: Program, config: Config) -> None:
    """Check a program against the contract and the configuration that it names.

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
    head = _check_head(program, config)
    memory = _Memory(config)
    memory.place_pad(program, config)
    memory.write("the input", head["in_act_base"], head["in_cnt_base"], head["in_records"], head["in_slots"], 0)
    _tag_input_rows(program, head, memory)
    previous: dict[int, int] = {}
    legs = LegChecks(config)
    for index in range(1, program.n_descriptors - 1):
        opcode, fields = program.descriptor(index)
        where = f"program {program.name}: descriptor {index}"
        _require(opcode is Opcode.LAYER, where, f"{opcode.name} in the middle of the schedule")
        _require(fields["layer"] < len(program.layers), where, f"layer {fields['layer']} does not exist")
        info = program.layers[fields["layer"]]
        strip = _strip_of(info, index, where)
        _require(fields["rows"] == strip[1], where, "its rows are not those of the layer table")
        _require(previous.get(fields["layer"], 0) == strip[0], where, "its rows do not follow the strip before it")
        previous[fields["layer"]] = strip[0] + strip[1]
        _check_layer(program, config, fields, info, where)
        _check_slots(program, config, fields, info, where)
        legs.take(fields, -(-info.shape[0] // config.neuron_lanes), where)
        _check_gate(program, config, fields, info, where)
        memory.run_strip(fields, strip[0], where)
    for layer, info in enumerate(program.layers):
        _require(previous.get(layer) == info.shape[1], f"program {program.name}", f"layer {info.name} is not complete")
    legs.end(f"program {program.name}")
    opcode, _ = program.descriptor(program.n_descriptors - 1)
    _require(opcode is Opcode.END, f"program {program.name}", "does not end with END")


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise InputError(f"{where}: {what}")


def _strip_of(info: LayerInfo, descriptor: int, where: str) -> tuple[int, int]:
    for index, first, rows in info.strips:
        if index == descriptor:
            return first, rows
    raise InputError(f"{where}: is not in the layer table")


def _check_head(program: Program, config: Config) -> Mapping[str, int]:
    where = f"program {program.name}"
    for name, limit in section_capacity(config).items():
        _require(
            len(getattr(program, name)) <= limit, where, f"section {name} is larger than the memory of {config.name}"
        )
    _require(
        len(program.desc) % DESCRIPTOR_WORDS == 0 and program.n_descriptors >= 3, where, "section desc is incomplete"
    )
    opcode, head = program.descriptor(0)
    _require(opcode is Opcode.PROGRAM, where, "does not start with PROGRAM")
    _require(head["version"] == CONTRACT_VERSION, where, f"contract version {head['version']}, not {CONTRACT_VERSION}")
    lengths = {
        "n_descriptors": program.n_descriptors,
        "n_slot_entries": len(program.slot),
        "n_param_words": len(program.param),
        "n_weight_words": len(program.weight),
        "n_act_words": len(program.act),
        "n_count_words": len(program.count),
    }
    for name, length in lengths.items():
        _require(head[name] == length, where, f"{name} is {head[name]}, its section says {length}")
    _require(head["crc32"] == sections_crc32(program.sections()), where, "its sections do not match their checksum")
    _require(head["config_low"] | head["config_high"] << 32 == config.digest, where, "configuration digest differs")
    transform = program.input
    steps = head["in_records"] // max(1, transform.height * transform.width)
    ok = steps in (1, program.timesteps) and head["in_records"] == steps * transform.height * transform.width
    _require(ok, where, "its input records are not those of its input")
    _require(head["in_channels"] == transform.channels, where, "its input channels are not those of its input")
    _require(head["in_slots"] == -(-transform.channels // config.banks), where, "in_slots does not fit its channels")
    _require(len(program.layers) > 0, where, "has no layers")
    _require(
        head["n_outputs"] == program.layers[-1].shape[0] == len(program.labels), where, "outputs and labels differ"
    )
    _require(program.layers[-1].shape[1:] == (1, 1), where, "its output has more than one position")
    _require(1 <= program.timesteps <= config.max_timesteps, where, f"{program.timesteps} time steps")
    return head


def _tag_input_rows(program: Program, head: Mapping[str, int], memory: _Memory) -> None:
    per_row = head["in_records"] // program.input.height
    for row in range(program.input.height):
        base = head["in_cnt_base"] + row * per_row
        act = head["in_act_base"] + row * per_row * head["in_slots"]
        memory.write("the input", act, base, per_row, head["in_slots"], _tag(-1, row))


def _tag(layer: int, row: int) -> int:
    return (layer + 1) << 16 | row


_LOOPS = ("rows", "cols", "timesteps", "t_src", "in_height", "in_width", "n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x")
_POSITIVE = (*_LOOPS, "src_ring", "src_slots", "dst_ring", "dst_slots", "dst_row_stride", "n_passes", "code_max")


def _check_layer(program: Program, config: Config, f: Mapping[str, int], info: LayerInfo, where: str) -> None:
    for name in _POSITIVE:
        _require(f[name] > 0, where, f"{name} is 0")
    _require(f["timesteps"] == program.timesteps == info.timesteps, where, "its time steps are not the program's")
    static = f["layer"] == 0 and f["t_src"] == 1 and f["timesteps"] > 1
    _require(f["static_input"] == static, where, "static_input does not fit its time steps")
    _require(f["t_src"] == (1 if static else f["timesteps"]), where, f"t_src is {f['t_src']}")
    _require(f["pad_record"] == 0 or f["layer"] == 0, where, "a pad record beyond the first layer")
    _require(f["cols"] == info.shape[2], where, "its columns are not those of the layer table")
    last = f["layer"] == len(program.layers) - 1
    _require(f["spiking"] == info.spiking == (not last), where, "only the last layer may be without firing")
    _require(f["tau_q"] <= TAU_ONE, where, f"tau_q is {f['tau_q']}")
    source = program.layers[f["layer"] - 1].shape if f["layer"] else (program.input.channels, 0, 0)
    _require(f["src_slots"] == -(-source[0] // config.banks), where, "src_slots does not fit the source's channels")
    _require(f["dst_slots"] == -(-info.shape[0] // config.banks), where, "dst_slots does not fit its channels")
    window = f["n_pool_y"] * f["n_pool_x"] * f["n_tap_y"] * f["n_tap_x"]
    _require(window <= config.table_entries, where, f"its window has {window} records, at most {config.table_entries}")
    rows = f["n_tap_y"] * f["n_tap_x"] * f["src_slots"]
    top = f["w_base"] + (f["n_passes"] - 1) * f["w_pass_stride"] + rows
    _require(top * config.banks * config.weight_words <= len(program.weight), where, "its weight rows do not exist")
    for name, factor in (
        ("src_col0", "ix0"),
        ("src_col_step", "x_step"),
        ("src_col_pool", "x_pool"),
        ("src_col_tap", "x_tap"),
    ):
        _require(f[name] == f[factor] * f["t_src"], where, f"{name} is {f[name]}, not {factor} * t_src")
    for name in ("src_row0", "src_row_step", "src_row_pool", "src_row_tap"):
        _require(f[name] < f["src_ring"], where, f"{name} is not reduced modulo its ring")
    _require(
        f["dst_row0"] < f["dst_ring"] and f["dst_ring"] % f["dst_row_stride"] == 0,
        where,
        "its ring is not of whole rows",
    )
    _require(f["rows"] * f["dst_row_stride"] <= f["dst_ring"], where, "it writes more rows than its ring holds")
    _require(f["dst_row_stride"] == f["cols"] * f["timesteps"], where, "dst_row_stride is not cols * timesteps")


def _check_gate(program: Program, config: Config, f: Mapping[str, int], info: LayerInfo, where: str) -> None:
    """A mean is over the whole map; factors of the steps exist."""
    whole = f["rows"] == info.shape[1] and f["cols"] == info.shape[2]
    _require(f["gate"] != Gate.SUM or whole, where, "sums over a part of its map")
    if f["gate"] == Gate.SIGMOID:
        end = (f["param_base"] + f["timesteps"]) * PARAM_WORDS * config.neuron_lanes
        _require(end <= len(program.param), where, "the factors of its steps do not exist")


def _check_slots(program: Program, config: Config, f: Mapping[str, int], info: LayerInfo, where: str) -> None:
    """The slot program computes exactly the groups that the layer has."""
    count = f["n_passes"] * config.slots
    words = program.slot[f["slot_base"] : f["slot_base"] + count]
    _require(len(words) == count, where, "its slot entries do not exist")
    passes = check_slots(words, config, where)
    groups = -(-info.shape[0] // config.neuron_lanes)
    finished = sum(entry["final"] for entries in passes for entry in entries)
    _require(finished == groups, where, f"its slot program computes {finished} groups, it has {groups}")
    _check_params(program, config, f["param_base"], groups, info, where)


def _check_params(program: Program, config: Config, base: int, groups: int, info: LayerInfo, where: str) -> None:
    lanes = config.neuron_lanes
    words = program.param[base * PARAM_WORDS * lanes : (base + groups) * PARAM_WORDS * lanes]
    _require(len(words) == groups * PARAM_WORDS * lanes, where, "its parameters do not exist")
    last = words.reshape(groups, PARAM_WORDS, lanes)[-1]
    for lane in range(info.shape[0] - (groups - 1) * lanes, lanes):
        values = unpack(PARAM_FIELDS, [int(word) for word in last[:, lane]])
        silent = values["gain"] == 0 and values["bias_low"] == values["bias_high"] == 0 and values["threshold"] > 0
        _require(silent, where, f"a channel beyond {info.shape[0]} could fire")


class _Memory:
    """Tags of what lies in the activation and count memory."""

    def __init__(self, config: Config) -> None:
        self.words: NDArray[np.int64] = np.full(config.act_words, _EMPTY, dtype=np.int64)
        self.records: NDArray[np.int64] = np.full(config.count_words, _EMPTY, dtype=np.int64)

    def place_pad(self, program: Program, config: Config) -> None:
        """Constant records, loaded with the program."""
        _require(
            len(program.count) in (0, config.banks) and len(program.act) % config.banks == 0,
            f"program {program.name}",
            "its constant record is incomplete",
        )
        slots = len(program.act) // config.banks
        _require(
            bool(np.all(program.count <= min(slots, (1 << COUNT_BITS) - 1))),
            f"program {program.name}",
            "its constant record holds more events than words",
        )
        self.words[:slots] = _PAD_TAG
        self.records[: len(program.count) // config.banks] = _PAD_TAG

    def write(self, where: str, act: int, record: int, records: int, slots: int, tag: int) -> None:
        """Tag records."""
        _require(
            act + records * slots <= len(self.words) and record + records <= len(self.records),
            where,
            "lies outside the activation memory",
        )
        self.words[act : act + records * slots] = tag
        self.records[record : record + records] = tag

    def holds(self, act: int, record: int, records: int, slots: int, tag: int) -> bool:
        """Whether all of these records carry the tag."""
        words, counts = self.words[act : act + records * slots], self.records[record : record + records]
        complete = len(words) == records * slots and len(counts) == records
        return complete and bool(np.all(words == tag)) and bool(np.all(counts == tag))

    def run_strip(self, f: Mapping[str, int], first: int, where: str) -> None:
        """Check what a strip reads, row by row, and tag what it writes."""
        if f["pad_record"]:
            ok = self.holds(f["pad_act_base"], f["pad_cnt_base"], 1, f["src_slots"], _PAD_TAG)
            _require(ok, where, "its pad record is not there")
        slots = f["dst_slots"] if f["spiking"] else 0
        for out in range(f["rows"]):
            for y, offset in _source_rows(f, out):
                ok = self.holds(
                    f["src_act_base"] + offset * f["src_slots"],
                    f["src_cnt_base"] + offset,
                    f["in_width"] * f["t_src"],
                    f["src_slots"],
                    _tag(f["layer"] - 1, y),
                )
                _require(ok, where, f"row {y} of its source is not where output row {first + out} reads it")
            target = (f["dst_row0"] + out * f["dst_row_stride"]) % f["dst_ring"]
            self.write(
                where,
                f["dst_act_base"] + target * slots,
                f["dst_cnt_base"] + target,
                f["dst_row_stride"],
                slots,
                _tag(f["layer"], first + out),
            )


def _source_rows(f: Mapping[str, int], out: int) -> Sequence[tuple[int, int]]:
    """(row, record offset in the ring) of every source row inside the image that an output row reads."""
    rows: dict[tuple[int, int], None] = {}
    for pool in range(f["n_pool_y"]):
        for tap in range(f["n_tap_y"]):
            y = out * f["y_step"] + pool * f["y_pool"] + tap * f["y_tap"] + f["iy0"]
            offset = f["src_row0"] + out * f["src_row_step"] + pool * f["src_row_pool"] + tap * f["src_row_tap"]
            if 0 <= y < f["in_height"]:
                rows[y, offset % f["src_ring"]] = None
    return tuple(rows)
