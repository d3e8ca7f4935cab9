"""Configuration of the overlay: one frozen dataclass and a preset per board.

Needs neither amaranth nor numpy, so that the host and the compiler can read it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

from . import contract
from .errors import InputError

__all__ = ["PRESETS", "Config", "named", "preset"]


_POWERS_OF_TWO = ("banks", "neuron_lanes", "table_entries", "lanes_per_cluster", "z_depth", "neuron_ways")
_GATE_WIDTH = 10  # a gate has 9 bits and a sign
_RAM_DEPTH = 16  # of one cell of distributed RAM
_FEW_SLOTS = 6  # of which as many hide the way through the neuron unit and back


def _addresses(field: str) -> tuple[int, int]:
    """Range of the depth of a memory whose addresses are a field of LAYER."""
    return 1, 1 << contract.field_of(contract.LAYER_FIELDS, field).width


def _limits() -> dict[str, tuple[int, int]]:
    """Smallest and largest value of every field: what the contract has bits for, and the gateware is built for."""
    groups = contract.field_of(contract.SLOT_FIELDS, "group").width
    return {
        "clusters": (1, 1024),
        "lanes_per_cluster": (1, 1024),
        "taps": (1, contract.ROW_TAPS),
        "banks": (1, 256),
        "ports_per_bank": (2, 2),
        "neuron_lanes": (min(contract.NEURON_WAYS), 1024),
        "neuron_ways": (min(contract.NEURON_WAYS), max(contract.NEURON_WAYS)),
        "weight_strip": (0, 1),
        "act_words": _addresses("src_act_base"),
        "count_words": _addresses("src_cnt_base"),
        "weight_rows": _addresses("w_base"),
        "param_groups": _addresses("param_base"),
        "layer_groups": (1, 1 << groups),
        "slot_entries": _addresses("slot_base"),
        "descriptors": (3, contract.field_range(contract.field_of(contract.PROGRAM_FIELDS, "n_descriptors"))[1]),
        "table_entries": (2, contract.TABLE_LIMIT),
        "max_timesteps": (1, contract.field_range(contract.field_of(contract.LAYER_FIELDS, "timesteps"))[1]),
        "acc_width": (1, 32),
        "z_width": (2, contract.MULTIPLICAND_BITS),
        "membrane_width": (_GATE_WIDTH, contract.MEMBRANE_BITS),
        "gain_width": (1, contract.field_of(contract.PARAM_FIELDS, "gain").width),
        "fraction_bits": (1, contract.MEMBRANE_BITS),
        "skip_words": (0, 1 << contract.field_of(contract.LAYER_FIELDS, "gate_base").width),
        "skip_width": (_GATE_WIDTH, contract.MEMBRANE_BITS),
        "z_depth": (1, 1 << groups),
    }


_LIMITS = _limits()


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of one overlay. Every program is compiled for exactly one of these (see :attr:`digest`).

    Parameters
    ----------
    name : str
        Preset name; not part of the digest.
    clusters : int
        Groups of lanes, each a module of its own with its own copy of the beat registers (fan-out).
    lanes_per_cluster : int
        Output channels per cluster, in row mode; ``taps`` times as many in gather mode.
    banks : int
        Activation and weight banks. Channel ``c`` lives in bank ``c % banks``. Power of two.
    ports_per_bank : int
        Event ports that share one bank's queue (2: both ports of a true-dual-port memory).
    neuron_lanes : int
        Neurons updated side by side by the neuron unit. A multiple of ``banks``, divides ``lanes``. Power of two.
    neuron_ways : int
        Neuron lanes that take turns on one datapath: cycles of an update of all lanes. 2 or 4;
        4 only counts in the digest.
    act_words, count_words, weight_rows : int
        Depth of each bank of the activation, count and weight memory.
    param_groups : int
        Groups of ``neuron_lanes`` channels whose parameters fit on chip.
    layer_groups : int
        Groups one layer may have: depth of the membrane memory.
    slot_entries, descriptors : int
        Capacity of the slot program and of the schedule.
    table_entries : int
        Source records one output position may gather (taps times pooled positions). Power of two.
    max_timesteps : int
        Largest T.
    acc_width, z_width, membrane_width, gain_width : int
        Bits of P (unsigned), z (signed), membrane/bias/threshold (signed) and current gain m (unsigned).
    fraction_bits : int
        F: membrane fraction bits below one activation code.
    skip_words : int
        Depth of the skip memory: (position, step, group) of one strip of a layer with a shortcut. 0: there is none.
    skip_width : int
        S: bits of a lane of the skip memory (signed, membrane units). Not more than ``membrane_width``.
    z_depth : int
        Cells of the memory of z, addressed by ``group % z_depth``. A group holds its cell from its first slot to the
        end of the pass of its last one. At least :attr:`slots`. Power of two.
    taps : int
        1: gather mode only. 3: row mode as well, in which an event adds to three output columns at once. 3 only counts
        in the digest.
    weight_strip : int
        1: behind the weight rows there are as many again that have the first :attr:`strip_lanes` lanes only. 0 does not
        count in the digest.
    """

    name: str
    clusters: int
    lanes_per_cluster: int
    banks: int
    ports_per_bank: int = 2
    neuron_lanes: int
    act_words: int
    count_words: int
    weight_rows: int
    param_groups: int
    layer_groups: int
    slot_entries: int
    descriptors: int
    table_entries: int = 64
    max_timesteps: int = 16
    acc_width: int = 22
    z_width: int = 28
    membrane_width: int = 24
    gain_width: int = 16
    fraction_bits: int = 8
    skip_words: int = 0
    skip_width: int = 18
    z_depth: int = 16
    taps: int = 1
    neuron_ways: int = 2
    weight_strip: int = 0

    def __post_init__(self) -> None:
        for field, (low, high) in _LIMITS.items():
            value = getattr(self, field)
            self._require(type(value) is int and low <= value <= high, f"{field} = {value!r} is not in {low}..{high}")
        for field in _POWERS_OF_TWO:
            value = getattr(self, field)
            self._require(_is_power_of_two(value), f"{field} = {value} is not a power of two")
        self._require(
            self.neuron_lanes % self.banks == 0 and self.lanes % self.neuron_lanes == 0,
            f"neuron_lanes = {self.neuron_lanes} must be a multiple of banks = {self.banks} and divide "
            f"lanes = {self.lanes}",
        )
        self._require(
            _is_power_of_two(self.weight_words),
            f"{self.lanes} lanes are {self.weight_words} words of weights a row, which is not a power of two",
        )
        self._require(
            self.neuron_lanes % self.neuron_ways == 0,
            f"neuron_lanes = {self.neuron_lanes} is not a multiple of neuron_ways = {self.neuron_ways}",
        )
        strip = _is_power_of_two(self.weight_rows) and 2 * self.weight_rows <= _LIMITS["weight_rows"][1]
        self._require(
            not self.weight_strip or (strip and self.strip_lanes % self.neuron_lanes == 0),
            f"a strip of {self.weight_rows} weight rows and {self.strip_lanes} lanes: rows must be a power of two, "
            f"lanes groups of neuron_lanes = {self.neuron_lanes}",
        )
        self._require(self.taps in (1, contract.ROW_TAPS), f"taps = {self.taps} is neither 1 nor {contract.ROW_TAPS}")
        self._require(
            self.slots <= self.z_depth,
            f"a pass drains {self.slots} groups, z has only z_depth = {self.z_depth} cells",
        )
        channels = self.layer_groups * self.neuron_lanes // self.banks
        self._require(
            channels <= 1 << contract.EVENT_INDEX_BITS,
            f"layer_groups = {self.layer_groups} are {channels} channels in a bank, the index of an event has "
            f"{contract.EVENT_INDEX_BITS} bits",
        )
        self._require(
            self.skip_width <= self.membrane_width,
            f"skip_width = {self.skip_width} is not in {_GATE_WIDTH}..{self.membrane_width}",
        )
        self._require(
            self.fraction_bits < self.membrane_width,
            f"fraction_bits = {self.fraction_bits} is not in 1..{self.membrane_width - 1}",
        )
        for field, (words, most) in self._regions().items():
            self._require(
                words <= most, f"{field} = {getattr(self, field)} are {words} words on the host bus of {most}"
            )

    def _regions(self) -> dict[str, tuple[int, int]]:
        """Words that a memory takes on the host bus, and how many there may be, by the field that decides."""
        bus = 1 << contract.OFFSET_BITS
        of_section = {
            name: contract.field_range(contract.field_of(contract.PROGRAM_FIELDS, name))[1]
            for name in ("n_param_words", "n_weight_words")
        }
        return {
            "act_words": (self.act_words * self.banks, bus),
            "count_words": (self.count_words * self.banks, bus),
            "weight_rows": (self.weight_rows * self.banks * self.weight_words, of_section["n_weight_words"]),
            "param_groups": (
                self.param_groups * contract.PARAM_WORDS * self.neuron_lanes,
                of_section["n_param_words"],
            ),
            "layer_groups": (self.layer_groups * self.neuron_lanes, bus),
            "descriptors": (self.descriptors * contract.DESCRIPTOR_WORDS, bus),
        }

    def _require(self, ok: bool, what: str) -> None:
        if not ok:
            raise InputError(f"configuration {self.name}: {what}")

    @property
    def lanes(self) -> int:
        """N: output channels (or planes of them) computed side by side."""
        return self.taps * self.row_lanes

    @property
    def row_lanes(self) -> int:
        """Output channels (or planes of them) computed side by side in row mode, in ``taps`` columns each."""
        return self.clusters * self.lanes_per_cluster

    @property
    def ports(self) -> int:
        """M: events consumed per cycle at most."""
        return self.banks * self.ports_per_bank

    @property
    def additions_per_cycle(self) -> int:
        """M times N."""
        return self.ports * self.lanes

    @property
    def slots(self) -> int:
        """Neuron-lane groups that one pass of the lane array drains."""
        return self.lanes // self.neuron_lanes

    @property
    def row_slots(self) -> int:
        """The same in row mode, where one of ``taps`` columns is finished."""
        return self.row_lanes // self.neuron_lanes

    @property
    def captured_cells(self) -> int:
        """Captured sums of one neuron lane that wait for their slots. Power of two.

        So many that the array need not wait for the way through the neuron unit and back, some 20 cycles.
        """
        enough = _RAM_DEPTH if self.slots <= _FEW_SLOTS else 2 * _RAM_DEPTH
        return max(enough, 1 << (2 * self.slots - 1).bit_length())

    def captured_passes(self, slots: int) -> int:
        """Passes of so many slots that may end before the neuron unit has drained the first of them."""
        return self.captured_cells // slots

    @property
    def channels_per_bank_group(self) -> int:
        """Channels of one group that fall into one bank."""
        return self.neuron_lanes // self.banks

    @property
    def weight_words(self) -> int:
        """32-bit words per weight row on the host bus; with row mode a power of two, the last ones empty.

        Behind the words of a row there is that of the row of the strip.
        """
        words = self.weight_memories + self.weight_strip
        return words if self.taps == 1 and not self.weight_strip else 1 << (words - 1).bit_length()

    @property
    def weight_memories(self) -> int:
        """Memories side by side that hold the weight rows of a bank, one per 32 lanes."""
        return (self.lanes + 31) // 32

    @property
    def strip_lanes(self) -> int:
        """Lanes that the rows of the strip have."""
        return min(32, self.lanes)

    @property
    def all_weight_rows(self) -> int:
        """Rows that a layer can address, those of the strip included."""
        return self.weight_rows << self.weight_strip

    @property
    def strip_slots(self) -> int:
        """Slots of gather mode that they are."""
        return self.strip_lanes // self.neuron_lanes

    @property
    def digest(self) -> int:
        """64-bit hash of everything but the name, and of the contract version."""
        fields = dataclasses.asdict(self)
        del fields["name"]
        for name, usual in (("taps", 1), ("neuron_ways", 2), ("weight_strip", 0)):  # as before there was a choice
            if fields[name] == usual:
                del fields[name]
        text = json.dumps({"contract": contract.CONTRACT_VERSION, **fields}, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


PRESETS: dict[str, Config] = {
    config.name: config
    for config in (
        Config(
            name="tiny", clusters=2, lanes_per_cluster=4, banks=2, neuron_lanes=4,
            act_words=4096, count_words=1024, weight_rows=2048, param_groups=128, layer_groups=32,
            slot_entries=256, descriptors=64, max_timesteps=8, skip_words=256,
        ),
        Config(
            name="tiny-row", clusters=2, lanes_per_cluster=4, taps=3, banks=2, neuron_lanes=4, neuron_ways=4,
            act_words=4096, count_words=1024, weight_rows=2048, weight_strip=1, param_groups=128, layer_groups=32,
            slot_entries=256, descriptors=64, max_timesteps=8, skip_words=256,
        ),
        Config(
            name="ulx3s-12f", clusters=1, lanes_per_cluster=16, banks=2, neuron_lanes=2,
            act_words=10240, count_words=2048, weight_rows=10240, param_groups=512, layer_groups=128,
            slot_entries=512, descriptors=32, skip_words=512,
        ),
        Config(
            name="ulx3s-25f", clusters=2, lanes_per_cluster=16, banks=2, neuron_lanes=2,
            act_words=8192, count_words=2048, weight_rows=6144, param_groups=512, layer_groups=128,
            slot_entries=512, descriptors=32, skip_words=512,
        ),
        Config(
            name="ulx3s-85f", clusters=4, lanes_per_cluster=16, banks=4, neuron_lanes=16,
            act_words=14336, count_words=2048, weight_rows=7168, param_groups=256, layer_groups=64,
            slot_entries=512, descriptors=64, skip_words=512,
        ),
        Config(
            name="ulx3s-85f-row", clusters=4, lanes_per_cluster=16, taps=3, banks=4, neuron_lanes=32, neuron_ways=4,
            act_words=12288, count_words=2048, weight_rows=2048, weight_strip=1, param_groups=128, layer_groups=16,
            slot_entries=512, descriptors=64, skip_words=512, acc_width=21, z_width=24,
        ),
        Config(
            name="large", clusters=2, lanes_per_cluster=16, banks=16, neuron_lanes=16,
            act_words=65536, count_words=65536, weight_rows=65535, param_groups=4096, layer_groups=128,
            slot_entries=4096, descriptors=2048, skip_words=16384, skip_width=24, max_timesteps=16, acc_width=24,
        ),
    )
}  # fmt: skip
"""Preset per board; ``tiny`` is for tests, ``tiny-row`` for those of row mode.

For simulation only: ``large``, which holds the papers' networks.
"""


def preset(name: str) -> Config:
    """Preset by name.

    Raises
    ------
    InputError
        If there is none of that name; lists those there are.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise InputError(f"no configuration {name!r}; there are: {', '.join(PRESETS)}") from None


def named(digest: int) -> str:
    """What a configuration is called, for messages."""
    for config in PRESETS.values():
        if config.digest == digest:
            return f"configuration {config.name}"
    return "a configuration that this version does not have"
