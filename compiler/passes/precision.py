"""What precision the common shift of a layer leaves to each channel, and which channels need not count for it.

The shift follows the largest gain. A channel whose current is always 0, or which can never fire, may have any gain. A
channel that jumps from no code to the largest within one unit of current needs no more gain than that takes; and if
the others would lose too many bits all the same, it gets a few units of current for its jump. Both turn its line about
the current nearest to where the potential is 0, so that a channel which never varied keeps its value.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

__all__ = ["Channels", "Precision", "flattened", "measure", "needed_gain", "silent", "turned"]

Reals = NDArray[np.float64]
_ROUNDINGS = 2.0  # membrane units: those of gain, product, bias and threshold, half a unit each
_SMALL = 0.5  # codes: an error beyond that changes most codes
_BEARABLE = 2.0  # codes: less than what flattening another channel costs

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a layer, all in membrane units; arrays (C,).

    Parameters
    ----------
    gain : of a current of 1
    bias, threshold
    low, high : least and largest value of gain times current
    """

    gain: Reals
    bias: Reals
    threshold: Reals
    low: Reals
    high: Reals


def silent(channels: Channels, timesteps: int) -> NDArray[np.bool_]:
    """Channels that can never fire: not even if every step brings all that it can, without leak."""
    most = channels.high + channels.bias
    return np.maximum(most, most * timesteps) < channels.threshold


def turned(channels: Channels, gain: Reals) -> Channels:
    """With other gains: the potential at the current nearest to its zero stays as it is."""
    pivot = _pivot(channels)
    return dataclasses.replace(channels, gain=gain, bias=channels.bias + (channels.gain - gain) * pivot)


def _pivot(channels: Channels) -> Reals:
    """The integer current at which the potential is nearest to 0, within those that occur."""
    gain = np.where(channels.gain > 0, channels.gain, 1.0)
    zero = np.rint(-channels.bias / gain)
    return np.where(channels.gain > 0, np.clip(zero, np.rint(channels.low / gain), np.rint(channels.high / gain)), 0.0)


def needed_gain(channels: Channels, full: float, timesteps: int, limit: float) -> Reals:
    """Gains that give the same codes as those of the channels when :func:`turned` to, as small as that is sure.

    Parameters
    ----------
    full : float
        Least potential that gives the largest code.
    limit : float
        Largest membrane potential.
    """
    no_current = (channels.low == 0) & (channels.high == 0)
    if timesteps == 1:
        # one unit of current takes the potential above the largest code, or below the threshold
        there = channels.bias + channels.gain * _pivot(channels)
        up, down = np.maximum(full, channels.threshold) - there, there - channels.threshold
        enough = np.maximum(np.maximum(up, down), 0) + _ROUNDINGS
    else:  # potentials are kept: only what saturates anyway
        enough = np.full_like(channels.gain, 2 * limit + _ROUNDINGS)
    return np.where(no_current, 0.0, np.minimum(channels.gain, enough))


def flattened(gain: Reals, reach: Reals, full: float, largest: float) -> tuple[Reals, int]:
    """Gains of which the largest are cut until the others have what they need; how many units a jump may take then.

    Parameters
    ----------
    reach : float array (C,)
        Largest magnitude of a current, in membrane units.
    largest : float
        Largest m.
    """
    for units in (1, 2, 4, 8, 16, 32, 64):
        cut = gain if units == 1 else np.minimum(gain, full / units)
        top = float(cut.max())
        if top == 0:
            return cut, 1
        m = np.floor(cut * 2.0 ** np.floor(np.log2(largest / top)))
        jumps = gain > full / units
        others = measure(np.where(jumps, 0, m).astype(np.int64), reach, full)
        if top <= largest and others.worst <= _BEARABLE:
            return cut, units
    return gain, 1


@dataclasses.dataclass(frozen=True)
class Precision:
    """What the roundings of the gains of a layer cost at most.

    Parameters
    ----------
    worst : float
        Largest error of a channel at full scale, in codes; of the output layer, in 1/256 of its largest logit.
    poor : int
        Channels with an error of more than half a code.
    channels : int
    ratio : float
        Largest gain over the median of those that are not 0.
    """

    worst: float
    poor: int
    channels: int
    ratio: float

    def note(self, layer: str) -> str | None:
        """One line if there is little left, else None."""
        if not self.poor:
            return None
        return (
            f"layer {layer}: one gain is {self.ratio:.0f} times the median, which leaves {self.poor} of "
            f"{self.channels} channels less than they need: rounding their gains costs up to {self.worst:.1f} codes"
        )


def measure(gain: Ints, reach: Reals, full: float) -> Precision:
    """Precision of a layer.

    Parameters
    ----------
    gain : int array (C,)
        m, rounded.
    reach : float array (C,)
        Largest magnitude of a current, in the unit of ``full``.
    full : float
        The range in which currents matter, in the same unit.
    """
    live = gain > 0
    step = np.minimum(reach, full) * 0.5 / np.maximum(gain, 1)
    codes = np.where(live, step * 255 / full if full > 0 else 0.0, 0.0)
    ratio = float(gain.max() / np.median(gain[live])) if live.any() else 1.0
    return Precision(float(codes.max(initial=0.0)), int(np.count_nonzero(codes > _SMALL)), len(gain), ratio)
