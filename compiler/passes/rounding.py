"""How bias and threshold become integers, so that neurons fire and codes change where those of the real numbers do.

Both come of comparing an integer potential with an integer edge, ``U >= edge``. A current that was rounded to the
nearest passes an edge half a unit early; one that is exact passes it wherever the real one does if the bias is rounded
down. So the potential shall lie half a unit low, on average: a bias is rounded down where no potential is kept, and
less where leaking, which rounds down too, takes its part. A threshold follows what the potential of its channel became.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.contract import TAU_ONE

__all__ = ["Kept", "exact_edges", "grain_of", "kept", "rounded_biases", "rounded_threshold"]

Reals = NDArray[np.float64]

_NOISE = 2.0**-20  # units: a number so close to an integer is meant to be it
_HALF = 0.5
_MOST_GRAIN = 1 << 12
_TRIED = 16  # biases, in grains, to either side of the real one


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a membrane has of earlier steps, halfway between one that never fires and one that is reset at every step.

    Parameters
    ----------
    bias : float
        What one unit of bias makes of its potential; at least 1.
    lost : float
        Units that it lost by rounding down after leaks.
    """

    bias: float
    lost: float

    @property
    def aim(self) -> float:
        """By how much a bias should be too large (-1/2 .. 1/2), for a potential that is half a unit low."""
        return (self.lost - _HALF) / self.bias


def kept(tau_q: int, timesteps: int) -> Kept:
    """Of a leak of ``tau_q / 256``."""
    tau, parts = tau_q / TAU_ONE, TAU_ONE // math.gcd(tau_q, TAU_ONE)
    loss = (parts - 1) / (2 * parts)  # of a leak, on average over integers
    bias = lost = bias_sum = lost_sum = 0.0
    for step in range(timesteps):
        lost = tau * lost + (loss if step else 0.0)
        bias = tau * bias + 1
        bias_sum, lost_sum = bias_sum + bias, lost_sum + lost
    return Kept((bias_sum / timesteps + 1) / 2, lost_sum / timesteps / 2)


def rounded_biases(biases: Sequence[Reals], aim: float) -> list[Reals]:
    """Of the maps of a layer, (C_out,) each, so that their sum is as near as can be to the real one plus ``aim``.

    All are rounded to the nearest but the last, which makes up for them. A sum that is an integer remains it.
    """
    total = np.sum(biases, axis=0)
    others = [np.rint(bias) for bias in biases[:-1]]
    return [*others, np.floor(total + (aim + _HALF + _NOISE)) - np.sum(others, axis=0, initial=0.0)]


def rounded_threshold(threshold: Reals, moved: Reals, kept: Kept, *, strict: bool) -> Reals:
    """The integer potential from which neurons fire.

    Parameters
    ----------
    threshold : float array (C_out,)
    moved : float array (C_out,)
        By how much the sum of the biases is larger than the real one.
    strict : bool
        The real potential must be above the threshold, not equal.
    """
    edge = threshold + moved * kept.bias - kept.lost
    return np.floor(edge + _NOISE) + 1 if strict else np.ceil(edge - _NOISE)


def grain_of(tau: float, timesteps: int) -> int:
    """The units of which a current must be a multiple, so that leaking by ``tau`` rounds nothing in so many steps.

    0 if tau has no such number, or too large a one.
    """
    tau_q = tau * TAU_ONE
    if timesteps == 1 or tau_q != round(tau_q):
        return 1 if timesteps == 1 else 0
    parts = TAU_ONE // math.gcd(round(tau_q), TAU_ONE)
    grain = 1
    for _ in range(timesteps - 1):
        grain *= parts
        if grain > _MOST_GRAIN:
            return 0
    return grain


def exact_edges(
    bias: Reals, threshold: Reals, leak: tuple[float, int], *, grain: int, strict: bool
) -> tuple[Reals, Reals]:
    """Bias and threshold as integers with which binary spikes are those of the real ones, if currents are exact.

    After k steps without a spike a neuron fires if ``sum tau^i z[k-i] >= threshold - (1 + tau + ... ) bias``; its left
    side is a multiple of ``grain / parts^(k-1)``, so the right one may lie anywhere between two multiples. There are T
    such conditions and two numbers to choose: with at most two steps all of them can be met, with more the bias is
    taken which comes nearest.

    Parameters
    ----------
    bias, threshold : float array (C,)
        In units.
    leak : (float, int)
        tau, a fraction of 256, and the number of steps.
    grain : int
        Of :func:`grain_of`.
    strict : bool
        The real potential must be above the threshold, not equal.
    """
    tau, timesteps = leak
    parts = TAU_ONE // math.gcd(round(tau * TAU_ONE), TAU_ONE)
    offsets = np.arange(-_TRIED, _TRIED + 1)
    offsets = offsets[np.argsort(np.abs(offsets), kind="stable")]  # of equally good ones the nearest
    tried = (np.rint(bias / grain)[:, None] + offsets) * grain
    least, most = np.full(tried.shape, -np.inf), np.full(tried.shape, np.inf)
    kept_of_bias, spacing = 0.0, float(grain)
    for step in range(timesteps):
        kept_of_bias = tau * kept_of_bias + 1
        spacing = spacing / parts if step else spacing
        edge = (threshold - kept_of_bias * bias) / spacing
        first = (np.floor(edge + _NOISE) + 1 if strict else np.ceil(edge - _NOISE)) * spacing
        top = first[:, None] + kept_of_bias * tried
        least, most = np.maximum(least, top - spacing + 1), np.minimum(most, top)
    missed = np.maximum(least - most, 0)
    chosen = missed.argmin(axis=1)
    rows = np.arange(len(bias))
    edges = np.where(missed > 0, np.floor((least + most) / 2), most)
    return tried[rows, chosen], edges[rows, chosen]
