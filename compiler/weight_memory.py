"""Weight rows as layers address them: those of all lanes, and behind them those of the strip."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.row_mode import row_planes
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["WeightRows", "strip_words"]


def strip_words(rows: NDArray[np.uint32], config: Config) -> NDArray[np.uint32]:
    """WEIGHT section (rows, banks, weight_words) of rows as they are addressed: the strip goes behind the others."""
    if not config.weight_strip or len(rows) <= config.weight_rows:
        return rows
    main = rows[: config.weight_rows].copy()
    strip = rows[config.weight_rows :, :, 0]
    main[: len(strip), :, config.weight_memories] = strip
    return main


class WeightRows:
    """Weight bits of a program.

    Parameters
    ----------
    weight : uint32 array
        Section WEIGHT.
    config : Config
    """

    def __init__(self, weight: NDArray[np.uint32], config: Config) -> None:
        self._config = config
        words = np.ascontiguousarray(weight, dtype="<u4").reshape(-1, config.banks, config.weight_words)
        self.number = len(words)
        """Rows in the program, without those of the strip."""
        self._main = words[:, :, : config.weight_memories]
        self._strip = words[:, :, config.weight_memories : config.weight_memories + 1]

    def check(self, start: int, rows: int, slots: Collection[int], row_mode: bool, where: str) -> None:
        """That a pass has its rows, and the lanes of the slots that it drains.

        Raises
        ------
        InputError
            Which rows do not exist, or which slot the strip does not have.
        """
        config, strip = self._config, start >= self._config.weight_rows and self._config.weight_strip
        first = config.weight_rows if strip else 0
        if start + rows > first + self.number:
            found = f"{start}..{start + rows - 1} of {first + self.number}"
            raise InputError(f"{where}: its weight rows do not exist: weight rows {found}")
        if strip and (row_mode or max(slots, default=0) >= config.strip_slots):
            what = "row mode" if row_mode else f"slot {max(slots)}"
            raise InputError(
                f"{where}: {what} in rows {start}..{start + rows - 1}, which have {config.strip_slots} slots"
            )

    def bits(self, start: int, rows: int, taps_y: int, row_mode: bool) -> NDArray[np.uint8]:
        """Of a pass that exists: (taps * channels, lanes), in row mode (taps * channels, row_lanes)."""
        config = self._config
        strip = config.weight_strip and start >= config.weight_rows
        words = self._strip[start - config.weight_rows :][:rows] if strip else self._main[start : start + rows]
        raw = np.ascontiguousarray(words).view(np.uint8)
        bits = np.unpackbits(raw.reshape(rows * config.banks, -1), axis=-1, bitorder="little")
        lanes = np.zeros((len(bits), config.lanes), dtype=np.uint8)
        width = min(config.lanes, config.strip_lanes if strip else config.lanes)
        lanes[:, :width] = bits[:, :width]
        return row_planes(lanes, taps_y, config) if row_mode else lanes
