"""Weight planes and slot program of a layer, brought back to one integer matrix."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.row_mode import WEIGHT_FIELDS, slots_of, weight_rows
from reverb_fpga.compiler.slot_checks import SlotEntry, check_slots
from reverb_fpga.compiler.weight_memory import WeightRows
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["LaneEntry", "LayerWeights", "WeightStore"]


@dataclasses.dataclass(frozen=True, eq=False)
class LaneEntry:
    """One valid slot entry with the weight bits of its lanes.

    Parameters
    ----------
    index, slot : int
        Pass, and slot of the pass.
    group, shift, negate, subtract_s, first, final :
        As in the contract.
    bits : uint8 array (taps * channels, neuron_lanes)
        Channels of a record in ascending order, bank padding included.
    """

    index: int
    slot: int
    group: int
    shift: int
    negate: bool
    subtract_s: bool
    first: bool
    final: bool
    bits: NDArray[np.uint8]

    def coefficients(self) -> NDArray[np.int64]:
        """What one code adds to ``c``: int64 array (taps * channels, neuron_lanes)."""
        shifted = self.bits.astype(np.int64) << self.shift
        return (-shifted if self.negate else shifted) - int(self.subtract_s)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWeights:
    """All passes of a layer together.

    Parameters
    ----------
    matrix : int64 array (taps * channels, groups * neuron_lanes)
        ``z = codes @ matrix``.
    entries : tuple of LaneEntry
        In the order in which they are drained; in row mode those of every column of a pooling window.
    distinct : tuple of LaneEntry
        Those that make the matrix: in row mode of one column.
    z_gain : int
        Bound of every P << shift, c and partial z per unit of the largest (pooled) code.
    column_gains : int64 array (groups * neuron_lanes,)
        Sum of absolute weights of every output.
    """

    matrix: NDArray[np.int64]
    entries: tuple[LaneEntry, ...]
    distinct: tuple[LaneEntry, ...]
    z_gain: int
    column_gains: NDArray[np.int64]
    _cast: dict[Any, NDArray[Any]] = dataclasses.field(default_factory=dict, repr=False)

    def cast(self, dtype: Any) -> NDArray[Any]:
        """The matrix in a floating-point type; strips of a layer share it."""
        if dtype not in self._cast:
            self._cast[dtype] = self.matrix.astype(dtype)
        return self._cast[dtype]


class WeightStore:
    """Reads weight rows and slot entries of a program.

    Parameters
    ----------
    program : Program
    config : Config
    """

    def __init__(self, program: Program, config: Config) -> None:
        self._config = config
        self._slot = program.slot
        self._rows = WeightRows(program.weight, config)
        self._cache: dict[tuple[int, ...], LayerWeights] = {}

    def layer(self, fields: dict[str, int], where: str) -> LayerWeights:
        """Weights of a LAYER descriptor. Raises InputError if they are not all in the program, or make no sense."""
        key = tuple(fields[name] for name in WEIGHT_FIELDS)
        if key not in self._cache:
            self._cache[key] = self._decode(fields, where)
        return self._cache[key]

    def _decode(self, fields: dict[str, int], where: str) -> LayerWeights:
        entries = tuple(self._entries(fields, where))
        number = fields["row_passes"] or fields["n_passes"]
        distinct = tuple(entry for entry in entries if entry.index < number)
        lanes = self._config.neuron_lanes
        groups = max(entry.group for entry in entries) + 1
        rows = entries[0].bits.shape[0]
        matrix = np.zeros((rows, groups * lanes), dtype=np.int64)
        z_gain = 0
        for entry in distinct:
            columns = slice(entry.group * lanes, (entry.group + 1) * lanes)
            matrix[:, columns] += entry.coefficients()
            shifted = entry.bits.astype(np.int64) << entry.shift
            z_gain = max(z_gain, _bound(shifted), _bound(entry.coefficients()), _bound(matrix[:, columns]))
        return LayerWeights(matrix, entries, distinct, z_gain, np.abs(matrix).sum(axis=0))

    def _entries(self, fields: dict[str, int], where: str) -> Iterator[LaneEntry]:
        """Valid entries in drain order, their order checked."""
        config = self._config
        slots = slots_of(fields, config)
        first, count = fields["slot_base"], fields["n_passes"] * slots
        words = self._slot[first : first + count]
        if len(words) != count:
            raise InputError(f"{where}: slot entry {first + count - 1} of {len(self._slot)}")
        for index, entries in enumerate(check_slots(words, slots, config, where, fields["row_passes"])):
            bits = self._pass_bits(fields, index % (fields["row_passes"] or fields["n_passes"]), entries, where)
            for entry in entries:
                lanes = bits[:, entry["slot"] * config.neuron_lanes : (entry["slot"] + 1) * config.neuron_lanes]
                yield LaneEntry(
                    index=index, slot=entry["slot"], group=entry["group"], shift=entry["shift"],
                    negate=bool(entry["negate"]), subtract_s=bool(entry["subtract_s"]), first=bool(entry["first"]),
                    final=bool(entry["final"]), bits=lanes,
                )  # fmt: skip

    def _pass_bits(
        self, fields: dict[str, int], index: int, entries: tuple[SlotEntry, ...], where: str
    ) -> NDArray[np.uint8]:
        """Weight bits of one pass: (taps * channels, lanes)."""
        rows, row_mode = weight_rows(fields), fields["row_passes"] > 0
        start = fields["w_base"] + index * fields["w_pass_stride"]
        self._rows.check(start, rows, [entry["slot"] for entry in entries], row_mode, where)
        # row = tap, channel index; together with the bank that is (tap, channel) in ascending order
        return self._rows.bits(start, rows, fields["n_tap_y"], row_mode)


def _bound(matrix: NDArray[np.int64]) -> int:
    """Largest magnitude of ``x @ matrix`` for 0 <= x <= 1."""
    positive = np.maximum(matrix, 0).sum(axis=0).max()
    negative = np.maximum(-matrix, 0).sum(axis=0).max()
    return int(max(positive, negative))
