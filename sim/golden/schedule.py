"""Descriptors, decoded and checked: what the golden model executes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program, section_capacity, sections_crc32
from reverb_fpga.compiler.row_mode import check_row
from reverb_fpga.compiler.slot_checks import check_repeats
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import DESCRIPTOR_WORDS, Gate, Opcode, Region
from reverb_fpga.hw.errors import InputError

from .weights import LayerWeights, WeightStore

__all__ = ["NOTHING", "PAD", "Load", "Records", "Schedule", "Strip", "decode"]

NOTHING, PAD = -1, -2
"""Source records that are no record of the tensor: outside the image, and standing for outside."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Where consecutive records lie: record r has ``slots`` words from ``act_base + r * slots`` in every bank.

    ``slots`` is 0 for the output layer and for legs that go to the skip memory: they store no record.

    Parameters
    ----------
    act_base, cnt_base, slots, number : int
    """

    act_base: int
    cnt_base: int
    slots: int
    number: int

    def check(self, config: Config, where: str) -> None:
        """Raise InputError unless all of it lies inside the memories."""
        if not self.number:
            raise InputError(f"{where}: a ring of no records")
        if self.act_base + self.number * self.slots > config.act_words:
            last = self.act_base + self.number * self.slots - 1
            raise InputError(f"{where}: activation words {self.act_base}..{last} of {config.act_words}")
        if self.cnt_base + self.number > config.count_words:
            last = self.cnt_base + self.number - 1
            raise InputError(f"{where}: count words {self.cnt_base}..{last} of {config.count_words}")


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
    """One LAYER descriptor.

    Parameters
    ----------
    index : int
        Of the descriptor.
    where : str
        For messages: descriptor and layer.
    fields : dict
        Of the contract.
    source, target : Records
        The rings read and written.
    pad : uint8 array (channels,) or None
        Codes of the pad record.
    sources : int array (positions, pooled, taps)
        Source record of step 0, :data:`NOTHING` or :data:`PAD`. Positions are row by row.
    outputs : int array (positions, T)
        Target records.
    skip : int array (positions, T, groups)
        Its words of the skip memory; none if it uses none.
    gates : int array (T, groups)
        The words of its gates, or of their sums; none if it has none.
    weights : LayerWeights
    gain, bias, threshold : int64 arrays (groups * neuron_lanes,)
        (T, 1, groups * neuron_lanes) of a leg that makes gates: the parameters are those of its steps.
    """

    index: int
    where: str
    fields: dict[str, int]
    source: Records
    target: Records
    pad: NDArray[np.uint8] | None
    sources: NDArray[np.int64]
    outputs: NDArray[np.int64]
    skip: NDArray[np.int64]
    gates: NDArray[np.int64]
    weights: LayerWeights
    gain: NDArray[np.int64]
    bias: NDArray[np.int64]
    threshold: NDArray[np.int64]

    @property
    def steps_in(self) -> int:
        """Steps that are gathered: 1 if the input is static."""
        return 1 if self.fields["static_input"] else self.fields["timesteps"]

    @property
    def gate(self) -> Gate:
        """Which kind of leg it is."""
        return Gate(self.fields["gate"])

    def groups(self, config: Config) -> int:
        """Groups of neuron lanes."""
        return self.weights.matrix.shape[1] // config.neuron_lanes

    @property
    def max_code(self) -> int:
        """Largest code it can write."""
        return self.fields["code_max"] if self.fields["spiking"] else 0


@dataclasses.dataclass(frozen=True)
class Load:
    """Records of the input that PROGRAM or an INPUT descriptor stores.

    Parameters
    ----------
    index : int
        Of the descriptor.
    place : Records
    first : int
        The image's record that is the first of them.
    """

    index: int
    place: Records
    first: int


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """A whole program: where the input goes, strips, number of logits."""

    loads: tuple[Load, ...]
    input_channels: int
    strips: tuple[Strip, ...]
    n_outputs: int

    @property
    def input_records(self) -> int:
        """Records of an image."""
        return sum(load.place.number for load in self.loads)

    @property
    def steps(self) -> tuple[Load | Strip, ...]:
        """Everything in the order in which it runs."""
        return tuple(sorted((*self.loads, *self.strips), key=lambda step: step.index))


def decode(program: Program, config: Config) -> Schedule:
    """Decode and check a program for one configuration.

    Raises
    ------
    InputError
        If it is for another configuration, its hash does not match, or a descriptor makes no sense; says which.
    """
    header = _header(program, config)
    loads = [_load(0, 0, header, config)]
    decoder = _StripDecoder(program, config)
    strips = []
    for index in range(1, program.n_descriptors):
        opcode, fields = program.descriptor(index)
        if opcode is Opcode.END:
            break
        if opcode is Opcode.INPUT:
            if fields["in_channels"] != header["in_channels"]:
                raise InputError(
                    f"descriptor {index}: {fields['in_channels']} input channels, those before are "
                    f"{header['in_channels']}"
                )
            loads.append(_load(index, loads[-1].first + loads[-1].place.number, fields, config))
            continue
        if opcode is not Opcode.LAYER:
            raise InputError(f"descriptor {index}: {opcode.name} inside the schedule")
        strips.append(decoder.strip(index, fields))
    else:
        raise InputError(f"the schedule of {program.n_descriptors} descriptors has no END")
    if not strips:
        raise InputError("the schedule has no layer")
    channels = strips[-1].groups(config) * config.neuron_lanes
    if header["n_outputs"] > channels or not header["n_outputs"]:
        raise InputError(f"{header['n_outputs']} logits from an output layer of {channels} channels")
    return Schedule(tuple(loads), header["in_channels"], tuple(strips), header["n_outputs"])


def _load(index: int, first: int, fields: dict[str, int], config: Config) -> Load:
    where = "the input" if index == 0 else f"descriptor {index}, the input"
    if not fields["in_slots"]:
        raise InputError(f"{where}: its records have no words")
    place = Records(fields["in_act_base"], fields["in_cnt_base"], fields["in_slots"], fields["in_records"])
    place.check(config, where)
    if not 1 <= fields["in_channels"] <= place.slots * config.banks:
        raise InputError(
            f"{where}: {fields['in_channels']} input channels do not fit {place.slots} words in {config.banks} banks"
        )
    return Load(index, place, first)


def _header(program: Program, config: Config) -> dict[str, int]:
    """Fields of descriptor 0, after the checks that the gateware makes."""
    if program.n_descriptors < 1 or len(program.desc) % DESCRIPTOR_WORDS:
        raise InputError(f"the schedule has {len(program.desc)} words, which is no number of descriptors")
    opcode, header = program.descriptor(0)
    if opcode is not Opcode.PROGRAM:
        raise InputError(f"descriptor 0 is {opcode.name} instead of PROGRAM")
    digest = header["config_high"] << 32 | header["config_low"]
    if header["version"] != contract.CONTRACT_VERSION:
        raise InputError(
            f"program format {header['version']}, this is version {contract.CONTRACT_VERSION}: compile it again"
        )
    if digest != config.digest:
        raise InputError(
            f"the program is compiled for configuration {program.config_name} ({digest:016x}), "
            f"not for {config.name} ({config.digest:016x})"
        )
    _check_sections(program, config, header)
    crc = sections_crc32(program.sections())
    if crc != header["crc32"]:
        raise InputError(f"the program is damaged: its hash is {crc:08x}, it should be {header['crc32']:08x}")
    return header


def _check_sections(program: Program, config: Config, header: dict[str, int]) -> None:
    expected = {
        Region.DESC: (header["n_descriptors"] * DESCRIPTOR_WORDS, 1),
        Region.SLOT: (header["n_slot_entries"], 1),
        Region.PARAM: (header["n_param_words"], config.neuron_lanes * contract.PARAM_WORDS),
        Region.WEIGHT: (header["n_weight_words"], config.banks * config.weight_words),
        Region.ACT: (header["n_act_words"], config.banks),
        Region.COUNT: (header["n_count_words"], config.banks),
    }
    capacities = section_capacity(config)
    for region, words in program.sections():
        (length, unit), capacity = expected[region], capacities[region.name.lower()]
        if len(words) != length:
            raise InputError(f"section {region.name} has {len(words)} words, descriptor 0 says {length}")
        if length > capacity:
            raise InputError(f"section {region.name} has {length} words, configuration {config.name} holds {capacity}")
        if length % unit:
            raise InputError(f"section {region.name} has {length} words, not a multiple of {unit}")


class _StripDecoder:
    """Turns the fields of LAYER descriptors into strips."""

    def __init__(self, program: Program, config: Config) -> None:
        self._program = program
        self._config = config
        self._weights = WeightStore(program, config)
        groups = program.param.reshape(-1, contract.PARAM_WORDS, config.neuron_lanes).astype(np.int64)
        self._gain = groups[:, 0] & 0xFFFF
        self._bias = _signed24(groups[:, 0] >> 16 | (groups[:, 1] & 0xFF) << 16)
        self._threshold = _signed24(groups[:, 1] >> 8)

    def strip(self, index: int, fields: dict[str, int]) -> Strip:
        where = f"descriptor {index}, layer {self._layer_name(fields['layer'])}"
        _check_loops(fields, self._config, where)
        source = Records(fields["src_act_base"], fields["src_cnt_base"], fields["src_slots"], fields["src_ring"])
        slots = fields["dst_slots"] if fields["spiking"] else 0
        target = Records(fields["dst_act_base"], fields["dst_cnt_base"], slots, fields["dst_ring"])
        if fields["store_skip"]:  # no record: its target has no meaning
            target, outputs = Records(0, 0, 0, 1), np.zeros((fields["rows"] * fields["cols"], 1), dtype=np.int64)
        else:
            outputs = _outputs(fields, where)
        source.check(self._config, f"{where}, source")
        target.check(self._config, f"{where}, target")
        weights = self._weights.layer(fields, where)
        groups = weights.matrix.shape[1] // self._config.neuron_lanes
        first = min(entry.index for entry in weights.entries if entry.final)
        check_repeats(fields, groups, first, self._config, where)
        gain, bias, threshold = self._parameters(fields, groups, where)
        skip, gates = _skip_words(fields, self._config, where)
        return Strip(
            index=index, where=where, fields=fields, source=source, target=target,
            pad=self._pad_codes(fields, where) if fields["pad_record"] else None,
            sources=_sources(fields, where), outputs=outputs, weights=weights,
            skip=skip, gates=gates, gain=gain, bias=bias, threshold=threshold,
        )  # fmt: skip

    def _parameters(self, fields: dict[str, int], groups: int, where: str) -> list[NDArray[np.int64]]:
        """Gain, bias and threshold."""
        by_step = fields["gate"] == Gate.SIGMOID
        start, number = fields["param_base"], fields["timesteps"] if by_step else groups
        if start + number > len(self._gain):
            raise InputError(f"{where}: parameter groups {start}..{start + number - 1} of {len(self._gain)}")
        found = [values[start : start + number] for values in (self._gain, self._bias, self._threshold)]
        return [np.tile(values, groups)[:, None] if by_step else values.ravel() for values in found]

    def _layer_name(self, number: int) -> str:
        layers = self._program.layers
        return layers[number].name if number < len(layers) else str(number)

    def _pad_codes(self, fields: dict[str, int], where: str) -> NDArray[np.uint8]:
        """Codes of the pad record, from the events in the program. Raises InputError if they are no valid record."""
        banks, slots = self._config.banks, fields["src_slots"]
        act = self._program.act.reshape(-1, banks)
        count = self._program.count.reshape(-1, banks)
        if fields["pad_cnt_base"] >= len(count) or fields["pad_act_base"] + slots > len(act):
            raise InputError(f"{where}: the pad record is not in the program")
        codes = np.zeros((slots, banks), dtype=np.uint8)
        for bank in range(banks):
            number = int(count[fields["pad_cnt_base"], bank])
            if number > slots:
                raise InputError(f"{where}: the pad record has {number} events in {slots} words")
            previous = -1
            for word in act[fields["pad_act_base"] : fields["pad_act_base"] + number, bank]:
                event = contract.unpack(contract.EVENT_FIELDS, [int(word)])
                if not previous < event["index"] < slots or not event["value"]:
                    raise InputError(f"{where}: the pad record has a misplaced event in bank {bank}")
                previous = event["index"]
                codes[previous, bank] = event["value"]
        return codes.ravel()


def _signed24(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return (values ^ 0x800000) - 0x800000


_LOOPS = ("rows", "cols", "timesteps", "n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x", "n_passes", "src_slots")


def _check_loops(fields: dict[str, int], config: Config, where: str) -> None:
    for name in _LOOPS:
        if not fields[name]:
            raise InputError(f"{where}: {name} is zero")
    if fields["timesteps"] > config.max_timesteps:
        raise InputError(f"{where}: {fields['timesteps']} time steps, at most {config.max_timesteps}")
    if fields["t_src"] != (1 if fields["static_input"] else fields["timesteps"]):
        raise InputError(f"{where}: reads {fields['t_src']} steps of its source for {fields['timesteps']} of its own")
    for name in ("src_row0", "src_row_step", "src_row_pool", "src_row_tap"):
        if fields[name] >= fields["src_ring"]:  # the walker subtracts the ring at most once
            raise InputError(f"{where}: {name} = {fields[name]} is not within the ring of {fields['src_ring']} records")
    entries = fields["n_pool_y"] * fields["n_pool_x"] * fields["n_tap_y"] * fields["n_tap_x"]
    if entries > config.table_entries:
        raise InputError(f"{where}: gathers {entries} records per position, the table holds {config.table_entries}")
    check_row(fields, config, where)
    if fields["tau_q"] > contract.TAU_ONE:
        raise InputError(f"{where}: tau_q = {fields['tau_q']} is more than {contract.TAU_ONE}")
    if fields["reset"] >> (config.membrane_width - 1):
        raise InputError(f"{where}: reset = {fields['reset']} is more than a membrane holds")


def _axis(fields: dict[str, int], names: tuple[str, str, str, str], counts: tuple[str, str, str]) -> NDArray[np.int64]:
    """``base + o*step + p*pool + k*tap`` for all (o, p, k)."""
    base, step, pool, tap = (fields[name] for name in names)
    n_out, n_pool, n_tap = (np.arange(fields[name]) for name in counts)
    return base + n_out[:, None, None] * step + n_pool[:, None] * pool + n_tap * tap


def _sources(fields: dict[str, int], where: str) -> NDArray[np.int64]:
    rows, cols = ("rows", "n_pool_y", "n_tap_y"), ("cols", "n_pool_x", "n_tap_x")
    y = _axis(fields, ("iy0", "y_step", "y_pool", "y_tap"), rows)
    x = _axis(fields, ("ix0", "x_step", "x_pool", "x_tap"), cols)
    row = _axis(fields, ("src_row0", "src_row_step", "src_row_pool", "src_row_tap"), rows) % fields["src_ring"]
    col = _axis(fields, ("src_col0", "src_col_step", "src_col_pool", "src_col_tap"), cols)
    inside_y = (y >= 0) & (y < fields["in_height"])
    inside_x = (x >= 0) & (x < fields["in_width"])

    # (oy, ox, py, px, ky, kx)
    of_y, of_x = np.s_[:, None, :, None, :, None], np.s_[None, :, None, :, None, :]
    inside = inside_y[of_y] & inside_x[of_x]
    number = row[of_y] + col[of_x]
    wrong = inside & ((number < 0) | (number + fields["t_src"] > fields["src_ring"]))
    if wrong.any():
        raise InputError(f"{where}: reads record {int(number[wrong][0])} of a ring of {fields['src_ring']}")
    records = np.where(inside, number, PAD if fields["pad_record"] else NOTHING)
    positions = fields["rows"] * fields["cols"]
    return records.reshape(positions, fields["n_pool_y"] * fields["n_pool_x"], -1)


def _skip_words(fields: dict[str, int], config: Config, where: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Words (positions, T, groups) of the skip memory, and words (T, groups) of gates; each of no words without."""
    gate, steps, groups = fields["gate"], fields["timesteps"], fields["skip_groups"]
    uses = fields["add_skip"] or (fields["store_skip"] and gate in (Gate.NONE, Gate.APPLY))
    skip = (fields["rows"] * fields["cols"], steps, groups) if uses else (0, 0, 0)
    gates = (steps, groups) if gate else (0, 0)
    words = math.prod(skip)
    if max(words, fields["gate_base"] + math.prod(gates) if gate else 0) > config.skip_words:
        raise InputError(f"{where}: needs {words} words of skip memory and its gates, there are {config.skip_words}")
    return np.arange(words).reshape(skip), fields["gate_base"] + np.arange(math.prod(gates)).reshape(gates)


def _outputs(fields: dict[str, int], where: str) -> NDArray[np.int64]:
    steps = fields["timesteps"]
    if fields["rows"] * fields["cols"] * steps > fields["dst_ring"]:
        raise InputError(f"{where}: writes more records than its target's ring of {fields['dst_ring']}")
    rows = (fields["dst_row0"] + np.arange(fields["rows"]) * fields["dst_row_stride"]) % fields["dst_ring"]
    records = rows[:, None, None] + np.arange(fields["cols"])[:, None] * steps + np.arange(steps)
    records = records.reshape(-1, steps)
    if records.max() >= fields["dst_ring"]:
        raise InputError(f"{where}: writes record {int(records.max())} of a ring of {fields['dst_ring']}")
    if len(np.unique(records)) != records.size:
        raise InputError(f"{where}: writes a record twice")
    return records
