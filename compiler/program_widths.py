"""Proof, from the weight bits of a program, that no sum of a layer overflows: the back end's proof, done again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.row_mode import WEIGHT_FIELDS, weight_rows
from reverb_fpga.compiler.slot_checks import SlotEntry
from reverb_fpga.compiler.weight_memory import WeightRows
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["WeightProofs"]

_READERS = 4
"""Passes of different layers or legs that may read a weight row, on average over all rows.

So neither time nor memory, here or in the golden model, grows beyond a few times what is stored.
"""

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """What P, S and z may reach per unit of the largest pooled code."""

    p: int
    s: int
    low: int
    high: int


class WeightProofs:
    """Proofs for the layers of one program; strips of the same layer share theirs.

    Parameters
    ----------
    program : Program
    config : Config
    """

    def __init__(self, program: Program, config: Config) -> None:
        self._config = config
        self._rows = WeightRows(program.weight, config)
        self._left = _READERS * (self._rows.number << config.weight_strip)
        self._bounds: dict[tuple[int, ...], _Bounds] = {}

    def prove(
        self, f: Mapping[str, int], passes: tuple[tuple[SlotEntry, ...], ...], channels: int, largest: int, where: str
    ) -> None:
        """P and S fit ``acc_width``; P << shift, what a slot adds, and z after every slot fit ``z_width``.

        Parameters
        ----------
        f : fields of the descriptor
        passes : valid slot entries, pass by pass
        channels : int
            Of the source.
        largest : int
            Largest code of the source.

        Raises
        ------
        InputError
            Names the sum, what it may reach and the width; or the weight rows do not exist, or are read by other
            layers as well.
        """
        top = largest * f["n_pool_y"] * f["n_pool_x"]
        bounds = self._bounds_of(f, passes, channels, where)
        config = self._config
        z_limit = 1 << (config.z_width - 1)
        for what, reach, limit, width in (
            ("S", bounds.s * top, (1 << config.acc_width) - 1, config.acc_width),
            ("P", bounds.p * top, (1 << config.acc_width) - 1, config.acc_width),
            ("z", bounds.high * top, z_limit - 1, config.z_width),
            ("-z", bounds.low * top, z_limit, config.z_width),
        ):
            if reach > limit:
                raise InputError(f"{where}: {what} may reach {reach}, which {width} bits do not hold")

    def _bounds_of(
        self, f: Mapping[str, int], passes: tuple[tuple[SlotEntry, ...], ...], channels: int, where: str
    ) -> _Bounds:
        key = (*(f[name] for name in WEIGHT_FIELDS), channels)
        if key not in self._bounds:
            rows, number = weight_rows(f), f["row_passes"] or f["n_passes"]
            for index, entries in enumerate(passes[:number]):
                slots = [entry["slot"] for entry in entries]
                start = f["w_base"] + index * f["w_pass_stride"]
                self._rows.check(start, rows, slots, f["row_passes"] > 0, where)
            self._left -= number * rows
            if self._left < 0:
                raise InputError(f"{where}: weight rows are read by more than {_READERS} passes each, on average")
            self._bounds[key] = self._measure(f, passes, channels)
        return self._bounds[key]

    def _measure(self, f: Mapping[str, int], passes: tuple[tuple[SlotEntry, ...], ...], channels: int) -> _Bounds:
        taps = f["n_tap_y"] * f["n_tap_x"]
        p, low, high = 0, 0, 0
        open_groups: dict[int, Ints] = {}
        # in row mode, the columns of a pooling window add the same; the largest code is multiplied by their number
        for index, entries in enumerate(passes[: f["row_passes"] or None]):
            bits = self._bits(f, index, channels)
            for entry in entries:
                first = entry["slot"] * self._config.neuron_lanes
                lanes = bits[:, first : first + self._config.neuron_lanes].astype(np.int64)
                added = (-lanes if entry["negate"] else lanes) << entry["shift"]
                added -= entry["subtract_s"]
                total = added + open_groups.pop(entry["group"], 0)
                if not entry["final"]:
                    open_groups[entry["group"]] = total
                count = int(lanes.sum(axis=0).max())
                p, high = max(p, count), max(high, count << entry["shift"])
                for value in (added, total):
                    high = max(high, int(np.maximum(value, 0).sum(axis=0).max()))
                    low = max(low, int(np.maximum(-value, 0).sum(axis=0).max()))
        return _Bounds(p, taps * channels, low, high)

    def _bits(self, f: Mapping[str, int], index: int, channels: int) -> NDArray[np.uint8]:
        """Weight bits of one pass, uint8 (taps * channels, lanes)."""
        start = f["w_base"] + index * f["w_pass_stride"]
        bits = self._rows.bits(start, weight_rows(f), f["n_tap_y"], f["row_passes"] > 0)
        by_tap = bits.reshape(f["n_tap_y"] * f["n_tap_x"], f["src_slots"] * self._config.banks, -1)
        return by_tap[:, :channels].reshape(-1, bits.shape[-1])
