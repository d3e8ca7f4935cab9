"""Codes of an input of real numbers: the levels that it has, or 8 bits of its range."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.contract import EVENT_VALUE_BITS
from reverb_fpga.hw.errors import InputError

__all__ = ["Grid", "grid_of"]

_TOP = (1 << EVENT_VALUE_BITS) - 1
_NOISE = 1e-6  # of the largest number: what float32 makes of one level
_NEAR = 0.01  # of a level
_CLOSE = 0.02  # of a level: zero is one of them

Reals = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """``x = (code - zero) * step`` per channel.

    Parameters
    ----------
    step : float64 array (C,)
        Value of one code.
    zero : float64 array (C,)
        The code of 0: an integer if 0 is a level.
    exact : bool
        The samples have these levels and no others.
    """

    step: Reals
    zero: Reals
    exact: bool

    def note(self, samples: NDArray[np.floating]) -> str | None:
        """What rounding to these codes costs samples (N, C, ...); None if it costs nothing."""
        if self.exact:
            return None
        values = np.moveaxis(samples, 1, 0).reshape(len(self.step), -1).astype(np.float64)
        step, zero = self.step[:, None], self.zero[:, None]
        off = np.sqrt(np.square((np.rint(values / step + zero) - zero) * step - values).mean(axis=1))
        reach = np.ptp(np.percentile(values, (1, 99), axis=1), axis=0)  # of what is usual, whatever lies far outside
        share = float((off / np.where(reach > 0, reach, np.inf)).max())
        low, high = 0.0 - float((zero * step).max()), float(((_TOP - zero) * step).max())
        return f"input: rounded to 256 levels from {low:g} to {high:g} ({100 * share:.2g} % of what 98 % of it spans)"


def grid_of(samples: NDArray[np.floating], *, joint: bool) -> Grid:
    """Of samples (N, C, ...); with ``joint`` one grid for all channels.

    Raises
    ------
    InputError
        If a sample is not a finite number.
    """
    if not np.isfinite(samples).all():
        raise InputError("the samples have entries that are not finite numbers")
    channels = samples.shape[1]
    moved = np.moveaxis(samples, 1, 0).reshape(channels, -1).astype(np.float64)
    whole = _levels(moved.ravel())  # channels that have the same levels have the same codes
    if joint or whole is not None:
        one, zero_code, same = whole or _range(moved.ravel())
        return Grid(np.full(channels, one), np.full(channels, zero_code), same)
    found = [_levels(values) or _range(values) for values in moved]
    step, zero, exact = (np.array(entries) for entries in zip(*found, strict=True))
    live = moved.any(axis=1)  # a channel of zeros has no levels: any step is right
    step = np.where(live, step, step[live].min())
    return Grid(step.astype(np.float64), zero.astype(np.float64), bool(exact.all()))


def _levels(values: Reals) -> tuple[float, float, bool] | None:
    """Step and code of zero of at most 256 equidistant levels; None if there are more, or others."""
    levels = np.unique(values)
    low, high = float(levels[0]), float(levels[-1])
    if low == high:
        return (abs(low) or 1.0), (0.0 if low >= 0 else 1.0), True
    if len(levels) > 16 * (_TOP + 1):  # float noise may split a level, but not into so many
        return None
    gaps = np.diff(levels)
    noise = _NOISE * max(abs(low), abs(high))
    gaps = gaps[gaps > noise]
    step = float(gaps.min()) if len(gaps) else high - low
    spans = round((high - low) / step)
    if spans > _TOP or spans < 1:
        return None
    step = (high - low) / spans
    places = (levels - low) / step
    if np.abs(places - np.rint(places)).max() > min(_NEAR, 4 * noise / step):
        return None
    below = -low / step  # levels from the lowest to 0
    if abs(below - round(below)) < _CLOSE:
        below = round(below)
        if below <= 0 and high / step <= _TOP + _CLOSE:
            return step, 0.0, True  # as pixels: 0 is code 0
    return step, below + (_TOP - spans) // 2, True


def _range(values: Reals) -> tuple[float, float, bool]:
    """8 bits of the range; 0 is a code, so that a border of zeros is exact."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    zero = round(_TOP * -low / (high - low))
    zero = min(max(zero, 1 if low < 0 else 0), _TOP - 1 if high > 0 else _TOP)
    step = max(high / (_TOP - zero) if zero < _TOP else 0.0, -low / zero if zero else 0.0)
    return step, float(zero), False
