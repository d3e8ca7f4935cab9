"""The gate of a layer as integers: a sum per channel whose unit serves gains, biases and factors alike."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.passes.graph import FoldedGate, FoldedMap
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import GATE_SHIFT, SIGMOID, SIGMOID_STEPS

__all__ = ["Sum", "sum_of"]

_UNITS = 1 << 13  # tried
_RANGE = 256.0  # finest over coarsest
_USUAL_MEAN = 0.5
_ROUNDING = 0.15  # of a bias, in units: half of its deviation, 0.29, as gains make up for a part
_MAP_DEVIATION = 0.5  # of a map's mean, in deviations of a single current

Reals = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Sum:
    """What is added up over the positions, in its own unit.

    Parameters
    ----------
    gain, bias : float64 array (C,)
        Of one current; the bias is an integer.
    factor : int64 array (T,)
        Makes the argument's sixteenths of the sum, over ``2**GATE_SHIFT``.
    """

    gain: Reals
    bias: Reals
    factor: NDArray[np.int64]


def sum_of(own: FoldedMap, gate: FoldedGate, source_step: float, config: Config) -> Sum:
    """The sum behind a gate. Its bits hold twice the argument that the table ends with, or the largest mean that can be
    expected, if that is less."""
    largest = 2 * len(SIGMOID) / SIGMOID_STEPS / (float(np.abs(gate.factor).max()) or 1.0)
    if gate.reach is not None:
        reach = max(gate.reach, float(np.abs(own.bias * gate.scale).max()))
        largest = min(largest, reach or largest)  # no channel has any current: any unit will do
    per_mean = _unit(gate, (1 << (config.skip_width - 1)) / largest)
    share = gate.scale * per_mean / gate.positions
    gain, bias = own.gain * source_step * share, own.bias * share
    rounded = np.rint(bias)
    if gate.usual is not None and gate.deviation is not None:
        gain = gain * _made_up(rounded - bias, gate.usual * share - bias, gate.deviation * share)
    return Sum(gain, rounded, _integers(_factors(gate.factor, per_mean)).astype(np.int64))


def _factors(factor: Reals, per_mean: Reals | float) -> Reals:
    return factor * SIGMOID_STEPS * (1 << GATE_SHIFT) / per_mean


def _integers(factor: Reals) -> Reals:
    """The nearest, but 0 of 0 only: the gates of either sign of a small argument are four 256ths apart."""
    return np.where(factor == 0, 0.0, np.copysign(np.maximum(np.rint(np.abs(factor)), 1), factor))


def _unit(gate: FoldedGate, most: float) -> float:
    """Units for a mean of 1, at most `most`: of coarse ones biases lose more, of fine ones factors do.

    What either costs an argument, in sixteenths, is estimated; factors are nearly whole in some units: many are tried.
    """
    tried = np.geomspace(most, most / _RANGE, _UNITS)
    wanted = _factors(gate.factor, tried[:, None])
    factors = np.abs(wanted - _integers(wanted)).max(axis=1) * tried * (_USUAL_MEAN / (1 << GATE_SHIFT))
    biases = np.abs(gate.factor).max() * SIGMOID_STEPS * gate.positions * _ROUNDING / tried
    return float(tried[(factors**2 + biases**2).argmin()])


def _made_up(lost: Reals, current: Reals, deviation: Reals) -> Reals:
    """What gains are multiplied with to make up for what the rounding of the bias adds at every position.

    At the usual current that is exact; the further a map's mean is from there, the less. So it is the least square of
    what remains. A channel with hardly any current cannot make up for it: gains stay positive, and within twice theirs.
    """
    square = current**2 + (_MAP_DEVIATION * deviation) ** 2
    return np.clip(1 - lost * current / np.maximum(square, np.finfo(np.float64).tiny), 0.5, 2.0)
