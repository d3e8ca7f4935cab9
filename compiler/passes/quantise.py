"""Quantise: gains, biases and thresholds become the integers of ``docs/numerics.md``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.intervals import current_bounds
from reverb_fpga.compiler.intnet import INPUT, IntGate, IntInput, IntLayer, IntMap, IntNetwork
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.gating import sum_of
from reverb_fpga.compiler.passes.graph import FoldedGate, FoldedLayer, FoldedMap, FoldedNetwork
from reverb_fpga.compiler.passes.precision import Channels, flattened, measure, needed_gain, silent, turned
from reverb_fpga.compiler.passes.rounding import exact_edges, kept, rounded_biases, rounded_threshold
from reverb_fpga.compiler.passes.units import Reach, Units, summed, units_of
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import GATE_ONE, SIGMOID_STEPS, TAU_ONE
from reverb_fpga.hw.errors import InputError

__all__ = ["Quantised", "quantise"]

_MAX_SHIFT = 63
_MARGIN = 1 / 64  # of a code: gain and bias are rounded yet

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


def quantise(folded: FoldedNetwork, steps: Mapping[str, Step], config: Config) -> Quantised:
    """Round a folded network.

    One membrane unit is a code's step over ``2**fraction_bits``; of a layer of binary spikes, channel by channel, as
    small as the largest current allows; in the last layer as small as the membrane's range provably allows. The ``r``
    of a map is as large as its widest gain allows.

    Raises
    ------
    InputError
        If a gain, bias or threshold has no representation; names the layer.
    """
    tensors = {INPUT: _Codes(1.0, 255)} | {name: _Codes(step.step, step.code_max) for name, step in steps.items()}
    layers: list[IntLayer] = []
    notes: list[str] = []
    units = Units(np.ones(1), np.zeros(1, dtype=np.int64))
    for layer in folded.layers:
        bounds = [_bounds(leg, tensors[leg.source]) for leg in layer.maps]
        gains = [leg.gain * tensors[leg.source].step for leg in layer.maps]
        units = units_of(layer, Reach(bounds, gains), steps.get(layer.name), folded.timesteps, config)
        unit = units.value
        code_max = 1
        if layer.spiking:
            code_max = _largest(layer, bounds, tensors[layer.name])
            tensors[layer.name] = _Codes(tensors[layer.name].step, code_max)
        in_units = [(low / unit, high / unit) for low, high in bounds]
        trimmed, jump = _trimmed(layer, tensors, in_units, unit, code_max, config)
        done = _layer(trimmed, tensors, units, code_max, config)
        layers.append(done)
        notes += _precision_notes(done, in_units, jump, config) + _notes(layer, done, in_units, config)
    source = IntInput(
        len(folded.input.scale), folded.input.height, folded.input.width, folded.input.zero.astype(np.uint8)
    )
    if not np.all(folded.input.scale == 1):
        notes.insert(0, "input: channels of different deviation are brought to one scale; their codes are rounded")
    network = IntNetwork(source, tuple(layers), folded.timesteps, folded.static_input)
    return Quantised(network, float(units.value[0]) / folded.timesteps, tuple(notes))


@dataclasses.dataclass(frozen=True)
class _Codes:
    """Codes of a tensor: the value of one, and the largest."""

    step: float
    top: int


def _largest(layer: FoldedLayer, bounds: Sequence[tuple[Reals, Reals]], codes: _Codes) -> int:
    """Largest code that a layer can fire: of averages of spikes of 0 and 1 far less than its codes could hold.

    What a membrane keeps from the steps before is in it; a threshold below 0 takes nothing off.
    """
    reach = sum(high for _, high in bounds) + sum(leg.bias for leg in layer.maps)
    kept = sum(max(layer.tau, 0.0) ** step for step in range(layer.timesteps))
    largest = max(float(np.max(reach)), 0.0) * kept / codes.step
    return max(1, min(codes.top, math.floor(largest + 0.5 + _MARGIN))) if layer.gate is None else codes.top


def _bounds(leg: FoldedMap, source: _Codes) -> tuple[Reals, Reals]:
    """Smallest and largest current of a map per channel, bias not included."""
    top = np.full(leg.weight.shape[1], source.top, dtype=np.int64)
    low, high = current_bounds(leg.weight, leg.geometry.pooled, top)
    return low * source.step * leg.gain, high * source.step * leg.gain


def _trimmed(
    layer: FoldedLayer,
    tensors: Mapping[str, _Codes],
    bounds: Sequence[tuple[Reals, Reals]],
    unit: Reals,
    code_max: int,
    config: Config,
) -> tuple[FoldedLayer, int]:
    """Without gains that cannot matter, so that the others have the bits; and the units of current a jump may take.

    Of several maps, each is only a part of the current: what one unit of it does depends on the others, so only a
    channel without current, or one that never fires, can be left out.
    """
    maps = tuple(
        dataclasses.replace(leg, gain=np.where((low == 0) & (high == 0), 0.0, leg.gain))
        for leg, (low, high) in zip(layer.maps, bounds, strict=True)
    )
    layer = dataclasses.replace(layer, maps=maps)
    if layer.gate is not None or not layer.spiking or layer.binary or layer.reset is not None:
        return layer, 1
    limit = float((1 << (config.membrane_width - 1)) - 1)
    if len(maps) > 1:
        return _without_silent(layer, bounds, unit, limit), 1
    (leg,), ((low, high),) = maps, bounds
    ratio = tensors[leg.source].step / unit
    full = float((code_max << config.fraction_bits) - (1 << config.fraction_bits - 1))
    channels = Channels(leg.gain * ratio, leg.bias / unit, layer.threshold / unit, low, high)
    dead = silent(channels, layer.timesteps)
    gain = np.where(dead, 0.0, needed_gain(channels, full, layer.timesteps, limit))
    gain, jump = flattened(gain, np.maximum(np.abs(low), np.abs(high)), full, float((1 << config.gain_width) - 1))
    now = turned(channels, gain)
    leg = dataclasses.replace(leg, gain=now.gain / ratio, bias=np.where(dead, 0.0, now.bias * unit))
    return dataclasses.replace(layer, maps=(leg,), threshold=np.where(dead, limit * unit, layer.threshold)), jump


def _without_silent(
    layer: FoldedLayer, bounds: Sequence[tuple[Reals, Reals]], unit: Reals, limit: float
) -> FoldedLayer:
    """A layer of several maps without the channels that can never fire, whatever all of its maps bring."""
    bias = sum((leg.bias for leg in layer.maps), np.zeros(len(layer.threshold))) / unit
    low, high = (sum((pair[side] for pair in bounds), np.zeros(len(layer.threshold))) for side in range(2))
    dead = silent(Channels(np.zeros_like(bias), bias, layer.threshold / unit, low, high), layer.timesteps)
    maps = tuple(
        dataclasses.replace(leg, gain=np.where(dead, 0.0, leg.gain), bias=np.where(dead, 0.0, leg.bias))
        for leg in layer.maps
    )
    return dataclasses.replace(layer, maps=maps, threshold=np.where(dead, limit * unit, layer.threshold))


def _precision_notes(done: IntLayer, bounds: Sequence[tuple[Reals, Reals]], jump: int, config: Config) -> list[str]:
    """What the common shift of a map's gains costs."""
    notes = []
    if jump > 1:
        notes.append(
            f"layer {done.name}: channels that jump from no code to the largest within less than {jump} units of "
            "current are given as many, so that the others keep their precision"
        )
    for leg, (low, high) in zip(done.maps, bounds, strict=True):
        reach = np.maximum(np.abs(low), np.abs(high))
        full = float(done.code_max << config.fraction_bits) if done.spiking else float(reach.max())
        if note := measure(leg.gain, reach, full).note(done.name):
            notes.append(note)
    return notes


def _layer(layer: FoldedLayer, tensors: Mapping[str, _Codes], units: Units, code_max: int, config: Config) -> IntLayer:
    tau_q = round(layer.tau * TAU_ONE) if layer.spiking else TAU_ONE
    scaled = [_scaled(layer.name, leg, tensors[leg.source], units, config) for leg in layer.maps]
    biases, threshold = _edges(layer, [line.bias for line in scaled], units, tau_q)
    return IntLayer(
        name=layer.name,
        maps=tuple(
            _map(leg, line, _fitting(layer.name, "bias", bias, config))
            for leg, line, bias in zip(layer.maps, scaled, biases, strict=True)
        ),
        threshold=_fitting(layer.name, "threshold", threshold, config),
        tau_q=tau_q,
        code_max=code_max,
        spiking=layer.spiking,
        timesteps=layer.timesteps,
        gate=None if layer.gate is None else _gate(layer, layer.gate, tensors[layer.maps[-1].source].step, config),
        reset=None if layer.reset is None else int(_fitting(layer.name, "reset", layer.reset / units.value[0], config)),
    )


def _edges(layer: FoldedLayer, biases: Sequence[Reals], units: Units, tau_q: int) -> tuple[Sequence[Reals], Reals]:
    """Biases of the maps and threshold, in units, rounded."""
    threshold = layer.threshold / units.value
    if layer.gate is not None or not layer.spiking:
        # logits are compared with each other only; the product with a gate is rounded down, so it is low enough
        return biases, np.floor(threshold) + 1 if layer.strict else threshold
    has = kept(tau_q, layer.timesteps)
    rounded = rounded_biases(biases, has.aim)
    moved = np.sum(rounded, axis=0) - np.sum(biases, axis=0)
    edges = rounded_threshold(threshold, moved, has, strict=layer.strict)
    exact = units.grain > 0
    if not exact.any():
        return rounded, edges
    total, exact_edge = exact_edges(
        np.sum(biases, axis=0),
        threshold,
        (layer.tau, layer.timesteps),
        grain=int(units.grain.max()),
        strict=layer.strict,
    )
    exact &= 2 * exact_edge >= edges  # a threshold that moved far down might no longer round to a code
    last = np.where(exact, total - np.sum(rounded[:-1], axis=0, initial=0.0), rounded[-1])
    return [*rounded[:-1], last], np.where(exact, exact_edge, edges)


def _gate(layer: FoldedLayer, gate: FoldedGate, source_step: float, config: Config) -> IntGate:
    sums = sum_of(layer.maps[-1], gate, source_step, config)
    r_shift = _shift(layer.name, float(sums.gain.max()), config)
    return IntGate(
        gain=np.rint(np.ldexp(sums.gain, r_shift)).astype(np.int64),
        r_shift=r_shift,
        bias=_fitting(layer.name, "bias of its gate", sums.bias, config),
        factor=sums.factor,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaled:
    """A map's m and r, and the bias that goes with the rounded gain, in units."""

    gain: Ints
    r_shift: int
    bias: Reals


def _scaled(name: str, leg: FoldedMap, source: _Codes, units: Units, config: Config) -> _Scaled:
    unit = units.value
    low, high = _bounds(leg, source)
    gain, wanted = leg.gain * (source.step / unit), units.in_units(leg.gain * source.step, (low, high))
    r_shift = _shift(name, float(wanted.max()), config)
    m = np.rint(np.ldexp(wanted, r_shift)).astype(np.int64)
    line = Channels(gain, leg.bias / unit, np.zeros_like(gain), low / unit, high / unit)
    return _Scaled(m, r_shift, turned(line, np.ldexp(m.astype(np.float64), -r_shift)).bias)


def _map(leg: FoldedMap, line: _Scaled, bias: Ints) -> IntMap:
    return IntMap(
        source=leg.source,
        weight=leg.weight,
        kind=leg.kind,
        bits=leg.bits,
        geometry=leg.geometry,
        gain=line.gain,
        r_shift=line.r_shift,
        bias=bias,
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


def _fitting(name: str, what: str, values: Reals | float, config: Config) -> Ints:
    limit = 1 << (config.membrane_width - 1)
    values = np.asarray(values, dtype=np.float64)
    rounded = np.rint(values)
    if rounded.max() >= limit or rounded.min() < -limit:
        worst = float(values.flat[np.argmax(np.abs(values))])
        raise InputError(
            f"layer {name}: a {what} of {worst:.4g} membrane units does not fit {config.membrane_width} bits; "
            "its activation scale is too small"
        )
    return rounded.astype(np.int64)


def _notes(layer: FoldedLayer, done: IntLayer, bounds: Sequence[tuple[Reals, Reals]], config: Config) -> list[str]:
    """What is not exact; ``bounds`` of every map's current in membrane units."""
    notes: list[str] = []
    if not layer.spiking:
        return notes
    if layer.timesteps > 1 and done.tau_q != layer.tau * TAU_ONE:
        notes.append(f"layer {layer.name}: tau {layer.tau:g} is rounded to {done.tau_q}/{TAU_ONE}")
    if done.gate is not None:
        notes.append(f"layer {layer.name}: its gate is rounded to 1/{GATE_ONE}, its argument to 1/{SIGMOID_STEPS}")
    total = np.zeros(len(layer.threshold))
    skip_limit = 1 << max(0, config.skip_width - 1)
    for position, stored in summed(layer):
        (low, high), leg = bounds[position], done.maps[position]
        total = total + np.maximum(np.abs(low), np.abs(high)) + np.abs(leg.bias)
        worst = float(total.max())
        if stored and worst >= skip_limit:
            notes.append(
                f"layer {layer.name}: if every source fired at most, its current would saturate in the skip memory "
                f"({worst / skip_limit:.1f} x)"
            )
        if not stored and worst >= 1 << (config.membrane_width - 1):
            limit = 1 << (config.membrane_width - 1)
            notes.append(
                f"layer {layer.name}: if every source fired at most, the membrane would saturate "
                f"({worst / limit:.1f} x)"
            )
    return notes
