"""What one membrane unit of a layer is worth: as fine as its widths allow, where nothing else fixes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import IntLayer
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.graph import FoldedLayer
from reverb_fpga.compiler.passes.rounding import grain_of
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["Reach", "Units", "summed", "units_of"]

_LEAST_CODES = 16  # of the threshold of binary spikes, even where the largest current that could be then saturates
_CANDIDATES = 2048
_BEARABLE = 2.0  # units: what a largest current may lose, which a usual one is far from
_LOGIT_MARGIN = 0.98  # of a range: roundings of m, b and q stay inside
_TINY = np.finfo(np.float64).tiny

Reals = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Reach:
    """What the maps of a layer can bring.

    Parameters
    ----------
    bounds : sequence of (float64 array (C_out,), float64 array (C_out,))
        Smallest and largest current of every map, bias not included.
    gains : sequence of float64 array (C_out,)
        Of one code of the source, of every map.
    """

    bounds: Sequence[tuple[Reals, Reals]]
    gains: Sequence[Reals]

    @property
    def gain(self) -> float:
        """The largest."""
        return max(float(gain.max()) for gain in self.gains)


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """Membrane units of the channels of a layer.

    Parameters
    ----------
    value : float64 array (C_out,)
        Of one.
    grain : int64 array (C_out,)
        Of how many units a gain shall be a whole multiple, so that leaks round nothing; 0 where that is not asked for.
    """

    value: Reals
    grain: NDArray[np.int64]

    def in_units(self, gain: Reals, bounds: tuple[Reals, Reals]) -> Reals:
        """A gain (C_out,) in units: whole grains where that costs its largest current no more than a rounding."""
        of_unit, grain = gain / self.value, np.maximum(self.grain, 1)
        whole = np.rint(of_unit / grain) * grain
        largest = np.maximum(np.abs(bounds[0]), np.abs(bounds[1])) / np.maximum(gain, _TINY)
        return np.where((self.grain > 0) & (np.abs(whole - of_unit) * largest <= _BEARABLE), whole, of_unit)


def units_of(layer: FoldedLayer, reach: Reach, step: Step | None, timesteps: int, config: Config) -> Units:
    """Membrane units of every channel.

    ``step`` is that of the codes which the layer fires; None for the last layer.
    """
    channels = np.ones(len(layer.threshold))
    no_grain = np.zeros(len(layer.threshold), dtype=np.int64)
    if step is None:
        # of a single source the range would allow finer units than the gain
        finest = reach.gain / ((1 << config.gain_width) - 1) * (1 + 1e-9)
        return Units(channels * max(finest, _logit_unit(layer, reach.bounds, timesteps, config)), no_grain)
    if not layer.binary:
        return Units(channels * (step.step / (1 << config.fraction_bits)), no_grain)
    if (threshold := float(layer.threshold.min())) <= 0:
        raise InputError(
            f"layer {layer.name}: binary spikes with V_th = {threshold:g}; a threshold above 0 is supported, so that a "
            "membrane at rest does not fire"
        )
    least = _finest(layer, reach, config)
    if layer.gate is not None or layer.reset is not None:
        units = _whole(reach, least, np.ones_like(no_grain))
        return Units(units if layer.reset is None else channels * float(units.max()), no_grain)  # one reset for all
    grain = np.full_like(no_grain, grain_of(layer.tau, layer.timesteps))
    grain = np.where(np.floor(reach.gains[-1] / least) >= grain, grain, 0)
    return Units(_whole(reach, least, np.maximum(grain, 1)), grain)


def _finest(layer: FoldedLayer, reach: Reach, config: Config) -> Reals:
    """Of binary spikes only whether the threshold is reached counts, so every channel may have a unit of its own: the
    smallest with which no current saturates and no gain is too wide.
    """
    finest = layer.threshold / (1 << (config.membrane_width - 2))
    decay = sum(min(layer.tau, 1.0) ** step for step in range(layer.timesteps))  # what the steps before leave behind
    total = np.zeros(len(layer.threshold))
    for position, stored in summed(layer):
        (low, high), leg = reach.bounds[position], layer.maps[position]
        total = total + np.maximum(np.abs(low), np.abs(high)) + np.abs(leg.bias)
        width, steps = (config.skip_width, 1.0) if stored else (config.membrane_width, decay)
        finest = np.maximum(finest, total * steps / (((1 << (width - 1)) - 1) * _LOGIT_MARGIN))
    # whatever reaches the threshold must round to one code at least
    units = np.minimum(finest, layer.threshold / (_LEAST_CODES << config.fraction_bits))
    for gain in reach.gains:
        units = np.maximum(units, gain / ((1 << config.gain_width) - 1) * (1 + 1e-9))
    return units


def _whole(reach: Reach, finest: Reals, grain: NDArray[np.int64]) -> Reals:
    """Units of at least `finest`, at most twice that, of which the own map's gain is a whole number of grains.

    Of those, the ones in which the gains of the other maps lose least by being rounded to grains: then a sum is
    compared with the threshold without any rounding but theirs, and identities and convolutions lose little. A rounded
    gain would turn a spike in 100,000, and a deep network multiplies those.
    """
    own = reach.gains[-1]
    most = np.floor(own / finest * (1 + 1e-12))
    numbers = (np.floor(most / grain)[:, None] - np.arange(_CANDIDATES)) * grain[:, None]
    possible = numbers >= np.maximum(most / 2, grain)[:, None]
    units = np.where(possible, own[:, None] / np.where(possible, numbers, 1.0), finest[:, None])
    lost = np.where(possible, 0.0, np.inf)
    for gain, (low, high) in zip(reach.gains[:-1], reach.bounds[:-1], strict=True):
        largest = np.maximum(np.abs(low), np.abs(high)) / np.maximum(gain, _TINY)  # current that it multiplies
        of_unit = gain[:, None] / units / grain[:, None]
        lost += np.abs(of_unit - np.rint(of_unit)) * (largest * grain)[:, None]
    chosen = np.take_along_axis(units, lost.argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.where(most >= 1, chosen, finest)


def _logit_unit(layer: FoldedLayer, bounds: Sequence[tuple[Reals, Reals]], timesteps: int, config: Config) -> float:
    low, high = (sum(pair[side] for pair in bounds) for side in range(2))
    bias = sum(leg.bias for leg in layer.maps)
    reach = float(np.maximum(np.abs(low + bias), np.abs(high + bias)).max()) * timesteps
    for leg, pair in zip(layer.maps, bounds, strict=True):
        # each q alone is clipped too, before the bias is added
        reach = max(reach, *(float(np.abs(values).max()) for values in (*pair, leg.bias)))
    limit = (1 << (config.membrane_width - 1)) * _LOGIT_MARGIN
    return reach / limit if reach > 0 else 1.0


def summed(layer: FoldedLayer | IntLayer) -> Iterator[tuple[int, bool]]:
    """The maps of a layer in the order in which they are added, by position, and whether the sum is then stored."""
    own = len(layer.maps) - 1
    order = range(own + 1) if layer.gate is None else (own, *range(own))
    for number, position in enumerate(order):
        yield position, number < own or (layer.gate is not None and number == 0)
