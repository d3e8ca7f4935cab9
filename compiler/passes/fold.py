"""Fold: signs into weights; pooling, normalisation and scales into gain and bias; alpha into the layer that fires."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.compiler.passes.graph import (
    FloatLayer,
    FloatMap,
    FloatNetwork,
    FloatTensor,
    FoldedGate,
    FoldedInput,
    FoldedLayer,
    FoldedMap,
    FoldedNetwork,
)
from reverb_fpga.hw.contract import EVENT_VALUE_BITS

__all__ = ["fold"]

Reals = NDArray[np.float64]

_TOP = (1 << EVENT_VALUE_BITS) - 1
_PLAIN = FloatTensor()
_SIGMAS = 6.0  # deviations of a single current, of which the mean over a map is as good as never larger


def fold(network: FloatNetwork) -> FoldedNetwork:
    """The folded form: the same function of the pixels, up to floating-point rounding.

    Input channels of different ``std`` are brought to the smallest by ``FoldedInput.scale``, so that the weights stay
    integers. A channel whose alpha is 0 has no codes: whatever reads it, shortcuts too, reads 0.
    """
    std = np.asarray(network.std, dtype=np.float64)
    scale = std.min() / std
    mean = np.asarray(network.mean, dtype=np.float64)
    zero = np.rint(mean * scale).astype(np.int64)
    if not any(leg.source == INPUT and leg.geometry.padded for layer in network.layers for leg in layer.maps):
        zero = np.clip(zero, 0, _TOP)  # nothing reads beyond the border: 0 may lie far from every code
    # codes of unscaled channels are the pixels; where 0 is none of them, the biases know it exactly
    centre = mean if np.all(scale == 1) else zero.astype(np.float64)
    source = FoldedInput(network.height, network.width, scale, centre - mean * scale, zero, centre)
    layers = tuple(_fold_layer(network, layer, source, float(std.min())) for layer in network.layers)
    return FoldedNetwork(source, layers, network.timesteps, network.static_input)


def _fold_layer(network: FloatNetwork, layer: FloatLayer, source: FoldedInput, std: float) -> FoldedLayer:
    fired = network.tensors.get(layer.name, _PLAIN)
    channels = len(layer.maps[-1].bias)
    # leak, threshold and reset commute with a factor that is not negative: what is fired carries |alpha|
    scale = np.ones(channels) if fired.alpha is None else np.abs(fired.alpha)
    maps = []
    for leg in layer.maps:
        folded = _fold_map(layer.name, leg, network.tensors.get(leg.source, _PLAIN))
        if leg.source == INPUT:
            folded = _fold_input(folded, source, std)
        maps.append(dataclasses.replace(folded, gain=folded.gain * scale, bias=folded.bias * scale))
    return FoldedLayer(
        name=layer.name,
        maps=tuple(maps),
        threshold=layer.v_th * scale,
        tau=layer.tau,
        spiking=layer.spiking,
        binary=layer.binary,
        timesteps=layer.timesteps,
        code_step=fired.code_step,
        code_bits=fired.code_bits,
        gate=_fold_gate(layer, scale),
        reset=layer.reset,
        strict=layer.strict,
        codes_of=layer.codes_of,
    )


def _fold_gate(layer: FloatLayer, scale: Reals) -> FoldedGate | None:
    if layer.gate is None:
        return None
    live = scale > 0
    inverse = np.where(live, 1 / np.where(live, scale, 1.0), 0.0)
    norm = layer.maps[-1].norm
    gate = FoldedGate(layer.gate.factor[: layer.timesteps], inverse, layer.gate.positions)
    if norm is None:
        return gate
    reach = float((np.abs(norm.beta) + _SIGMAS * np.abs(norm.gamma)).max())
    return dataclasses.replace(gate, reach=reach, usual=norm.beta * scale, deviation=np.abs(norm.gamma) * scale)


def _fold_map(name: str, leg: FloatMap, read: FloatTensor) -> FoldedMap:
    weight, scale = leg.weight, leg.weight_scale / leg.geometry.pooled
    if read.alpha is not None and leg.scaled:
        weight = weight * np.where(read.alpha >= 0, 1, -1)[None, :, None, None]
    if read.alpha is not None and not leg.scaled:  # an identity: channel o reads channel o
        live = read.alpha != 0
        scale = np.where(live, scale / np.abs(np.where(live, read.alpha, 1.0)), 0.0)
    g, bias = np.ones(len(leg.bias)), leg.bias
    if leg.norm is not None:
        g = leg.norm.gamma / leg.norm.sigma
        bias = g * (leg.bias - leg.norm.mean) + leg.norm.beta
    gain = g * scale
    negative = gain < 0
    return FoldedMap(
        source=leg.source,
        weight=np.where(negative[:, None, None, None], -weight, weight),
        kind=leg.kind,
        bits=leg.bits,
        geometry=leg.geometry,
        gain=np.abs(gain),
        bias=bias,
    )


def _fold_input(leg: FoldedMap, source: FoldedInput, std: float) -> FoldedMap:
    """Read codes instead of normalised pixels: every window is complete (padding has the code of 0), so the offset is
    a constant."""
    gain = leg.gain / std
    offset = np.einsum("oikl,i->o", leg.weight, source.centre) * leg.geometry.pooled
    return dataclasses.replace(leg, gain=gain, bias=leg.bias - gain * offset)
