"""Row mode: which walks it can compute, and what its weight rows and slot programs mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import LAYER_FIELDS, ROW_CELLS, ROW_TAPS, field_of
from reverb_fpga.hw.errors import InputError

__all__ = [
    "MAX_COLUMNS",
    "MAX_POOL",
    "WEIGHT_FIELDS",
    "all_slots",
    "check_row",
    "row_planes",
    "slots_of",
    "weight_rows",
]

MAX_POOL = 2  # columns of the convolution that share a current
MAX_COLUMNS = (1 << field_of(LAYER_FIELDS, "cols").width) - ROW_TAPS
"""The walker counts two more, those that the first output column reads to its left."""
WEIGHT_FIELDS = (
    "w_base", "w_pass_stride", "n_passes", "slot_base", "pass_slots", "n_tap_y", "n_tap_x", "src_slots", "row_passes",
)  # fmt: skip
"""What the weights of a LAYER descriptor are said by: two that agree in these have the same."""


def check_row(f: Mapping[str, int], config: Config, where: str) -> None:
    """What must hold of a LAYER descriptor in row mode; nothing in gather mode.

    Raises
    ------
    InputError
        Names what row mode cannot compute.
    """
    if not f["row_passes"]:
        return
    pooled, passes = f["n_pool_x"], f["row_passes"]
    steps = 1 if f["static_input"] else f["timesteps"]
    for ok, what in (
        (config.taps == ROW_TAPS, f"which {config.name} does not have"),
        (f["n_tap_x"] == ROW_TAPS and f["x_tap"] == 1, f"but its kernel is not {ROW_TAPS} neighbouring columns wide"),
        (pooled <= MAX_POOL, f"but pools {pooled} columns, at most {MAX_POOL}"),
        (f["x_step"] == pooled and (pooled == 1 or f["x_pool"] == 1), "but its columns do not follow each other"),
        (f["n_passes"] == passes * pooled, f"but n_passes = {f['n_passes']} is not row_passes * n_pool_x"),
        (steps * passes < ROW_CELLS, f"but {steps} steps of {passes} passes need more than {ROW_CELLS - 1} cells"),
        (f["cols"] <= MAX_COLUMNS, f"but has {f['cols']} columns, at most {MAX_COLUMNS}"),
    ):
        if not ok:
            raise InputError(f"{where}: is in row mode, {what}")


def slots_of(f: Mapping[str, int], config: Config) -> int:
    """Slots of a pass that are drained."""
    return f["pass_slots"] or all_slots(f, config)


def all_slots(f: Mapping[str, int], config: Config) -> int:
    """Slots that a pass has."""
    return config.row_slots if f["row_passes"] else config.slots


def weight_rows(f: Mapping[str, int]) -> int:
    """Weight rows of a pass in each bank."""
    return f["n_tap_y"] * (1 if f["row_passes"] else f["n_tap_x"]) * f["src_slots"]


def row_planes(bits: NDArray[np.uint8], taps_y: int, config: Config) -> NDArray[np.uint8]:
    """Bits by tap and lane (taps_y * 3 * channels, row_lanes) of rows (taps_y * channels, lanes) in row mode.

    In a row, the lanes of the last kernel column come first: its output column is the one that is finished.
    """
    of_row = bits.reshape(taps_y, -1, ROW_TAPS, config.row_lanes)[:, :, ::-1]
    return of_row.transpose(0, 2, 1, 3).reshape(-1, config.row_lanes)
