"""Fold: signs into weights; pooling, normalisation and scales into gain and bias; alpha into the layer that fires."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.passes.graph import FloatLayer, FloatNetwork, FoldedInput, FoldedLayer, FoldedNetwork

__all__ = ["fold"]

Reals = NDArray[np.float64]


def fold(network: FloatNetwork) -> FoldedNetwork:
    """The folded form: the same function of the pixels, up to floating-point rounding.

    Input channels of different ``std`` are brought to the smallest by ``FoldedInput.scale``, so that the weights stay
    integers.
    """
    std = np.asarray(network.std, dtype=np.float64)
    scale = std.min() / std
    mean = np.asarray(network.mean, dtype=np.float64)
    zero = np.rint(mean * scale).astype(np.int64)
    source = FoldedInput(network.height, network.width, scale, zero - mean * scale, zero)
    layers = [_fold_layer(layer) for layer in network.layers]
    layers[0] = _fold_input(layers[0], source, float(std.min()))
    for index, layer in enumerate(network.layers):
        if layer.alpha is not None:
            layers[index - 1] = _scale_output(layers[index - 1], np.abs(layer.alpha))
    return FoldedNetwork(source, tuple(layers), network.timesteps, network.static_input)


def _fold_layer(layer: FloatLayer) -> FoldedLayer:
    weight = layer.weight
    if layer.alpha is not None:
        weight = weight * np.where(layer.alpha >= 0, 1, -1)[None, :, None, None]
    divisor = (layer.in_pool * layer.out_pool) ** 2
    g, bias = np.ones(len(layer.bias)), layer.bias
    if layer.norm is not None:
        g = layer.norm.gamma / layer.norm.sigma
        bias = g * (layer.bias - layer.norm.mean) + layer.norm.beta
    gain = g * layer.weight_scale / divisor
    negative = gain < 0
    return FoldedLayer(
        name=layer.name,
        weight=np.where(negative[:, None, None, None], -weight, weight),
        kind=layer.kind,
        bits=layer.bits,
        stride=layer.stride,
        padding=layer.padding,
        in_pool=layer.in_pool,
        out_pool=layer.out_pool,
        gain=np.abs(gain),
        bias=bias,
        threshold=np.full(len(bias), layer.v_th),
        tau=layer.tau,
        spiking=layer.spiking,
        code_step=layer.code_step,
        code_bits=layer.code_bits,
    )


def _fold_input(layer: FoldedLayer, source: FoldedInput, std: float) -> FoldedLayer:
    """Read codes instead of normalised pixels: every window is complete (padding has the code of 0), so the offset is
    a constant."""
    gain = layer.gain / std
    pooled = (layer.in_pool * layer.out_pool) ** 2
    offset = np.einsum("oikl,i->o", layer.weight, source.zero) * pooled
    return _replace(layer, gain, layer.bias - gain * offset, layer.threshold)


def _scale_output(layer: FoldedLayer, scale: Reals) -> FoldedLayer:
    """Multiply what each channel fires: leak, threshold and reset commute with a factor that is not negative."""
    return _replace(layer, layer.gain * scale, layer.bias * scale, layer.threshold * scale)


def _replace(layer: FoldedLayer, gain: Reals, bias: Reals, threshold: Reals) -> FoldedLayer:
    return dataclasses.replace(layer, gain=gain, bias=bias, threshold=threshold)
