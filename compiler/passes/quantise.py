"""Quantise: gains, biases and thresholds become the integers of ``docs/numerics.md``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.intervals import current_bounds
from reverb_fpga.compiler.intnet import IntInput, IntLayer, IntNetwork
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.graph import FoldedLayer, FoldedNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import TAU_ONE
from reverb_fpga.hw.errors import InputError

__all__ = ["Quantised", "quantise"]

_MAX_SHIFT = 63
_LOGIT_MARGIN = 0.98  # of the membrane's range: roundings of m, b and q stay inside

Reals = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Quantised:
    """Result of :func:`quantise`.

    Parameters
    ----------
    logit_scale : float
        Real logit (mean over T) of one membrane unit of the last layer.
    notes : tuple of str
        What is not exact, layer by layer.
    """

    network: IntNetwork
    logit_scale: float
    notes: tuple[str, ...]


def quantise(folded: FoldedNetwork, steps: Sequence[Step], config: Config) -> Quantised:
    """Round a folded network.

    One membrane unit is a code's step over ``2**fraction_bits``; in the last layer it is as small as the membrane's
    range provably allows. ``r`` is as large as the widest gain allows.

    Raises
    ------
    InputError
        If a gain, bias or threshold has no representation; names the layer.
    """
    layers, notes = [], []
    source_unit, top = 1.0, np.full(len(folded.input.scale), 255, dtype=np.int64)
    unit = 1.0
    for index, layer in enumerate(folded.layers):
        pooled = (layer.in_pool * layer.out_pool) ** 2
        low, high = (bound * source_unit * layer.gain for bound in current_bounds(layer.weight, pooled, top))
        if layer.spiking:
            unit = steps[index].step / (1 << config.fraction_bits)
            code_max = steps[index].code_max
        else:
            unit = _logit_unit(layer, low, high, folded.timesteps, config)
            code_max = 1
        done = _layer(layer, source_unit / unit, unit, code_max, config)
        layers.append(done)
        notes += _notes(layer, done, (low / unit, high / unit), folded.timesteps, config)
        if layer.spiking:
            source_unit, top = steps[index].step, np.full(len(layer.gain), code_max, dtype=np.int64)
    source = IntInput(
        len(folded.input.scale), folded.input.height, folded.input.width, folded.input.zero.astype(np.uint8)
    )
    if not np.all(folded.input.scale == 1):
        notes.insert(0, "input: channels of different deviation are brought to one scale; their codes are rounded")
    network = IntNetwork(source, tuple(layers), folded.timesteps, folded.static_input)
    return Quantised(network, unit / folded.timesteps, tuple(notes))


def _logit_unit(layer: FoldedLayer, low: Reals, high: Reals, timesteps: int, config: Config) -> float:
    reach = float(np.maximum(np.abs(low + layer.bias), np.abs(high + layer.bias)).max())
    # q alone is clipped too, before the bias is added
    reach = max(reach * timesteps, float(np.maximum(np.abs(low), np.abs(high)).max()), float(np.abs(layer.bias).max()))
    limit = (1 << (config.membrane_width - 1)) * _LOGIT_MARGIN
    return reach / limit if reach > 0 else 1.0


def _layer(layer: FoldedLayer, ratio: float, unit: float, code_max: int, config: Config) -> IntLayer:
    """``ratio``: membrane units of a current of gain 1 and z = 1."""
    gain = layer.gain * ratio
    r_shift = _shift(layer.name, float(gain.max()), config)
    m = np.rint(np.ldexp(gain, r_shift)).astype(np.int64)
    tau_q = round(layer.tau * TAU_ONE) if layer.spiking else TAU_ONE
    return IntLayer(
        name=layer.name,
        weight=layer.weight,
        kind=layer.kind,
        bits=layer.bits,
        stride=layer.stride,
        padding=layer.padding,
        in_pool=layer.in_pool,
        out_pool=layer.out_pool,
        gain=m,
        r_shift=r_shift,
        bias=_rounded(layer.name, "bias", layer.bias / unit, config),
        threshold=_rounded(layer.name, "threshold", layer.threshold / unit, config),
        tau_q=tau_q,
        code_max=code_max,
        spiking=layer.spiking,
    )


def _shift(name: str, largest: float, config: Config) -> int:
    """Largest r with which every gain fits."""
    if largest == 0:
        return 0
    top = (1 << config.gain_width) - 1
    r_shift = min(_MAX_SHIFT, math.floor(math.log2(top / largest)))
    if r_shift < 0:
        raise InputError(
            f"layer {name}: a gain of {largest:.4g} membrane units per unit of current, at most {top} is possible; "
            "its activation scale is too small for its normalisation"
        )
    return r_shift


def _rounded(name: str, what: str, values: Reals, config: Config) -> Ints:
    limit = 1 << (config.membrane_width - 1)
    rounded = np.rint(values)
    if rounded.max() >= limit or rounded.min() < -limit:
        worst = float(values[np.argmax(np.abs(values))])
        raise InputError(
            f"layer {name}: a {what} of {worst:.4g} membrane units does not fit {config.membrane_width} bits; "
            "its activation scale is too small"
        )
    return rounded.astype(np.int64)


def _notes(
    layer: FoldedLayer, done: IntLayer, bounds: tuple[Reals, Reals], timesteps: int, config: Config
) -> list[str]:
    notes = []
    if timesteps > 1 and layer.spiking and done.tau_q != layer.tau * TAU_ONE:
        notes.append(f"layer {layer.name}: tau {layer.tau:g} is rounded to {done.tau_q}/{TAU_ONE}")
    limit = 1 << (config.membrane_width - 1)
    worst = float(np.max(np.maximum(np.abs(bounds[0]), np.abs(bounds[1])) + np.abs(done.bias)))
    if layer.spiking and worst >= limit:
        notes.append(
            f"layer {layer.name}: if every source fired at most, the membrane would saturate ({worst / limit:.1f} x)"
        )
    return notes
