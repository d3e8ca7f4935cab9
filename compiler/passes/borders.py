"""Padded pooling of currents, in sums that a walk can gather.

Beyond the border of a current there are zeros, but a walk that goes on finds the convolution continued there. So the
layer's map pools that, and further maps with the opposite weights take away what the windows at the border have too
much: rows beyond, columns beyond, and once more with the weights as they are the corners, which both have taken away.
Sums of integers, exact; each map's current is rounded to membrane units by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Beyond, Geometry, Pair
from reverb_fpga.compiler.intnet import INPUT, WeightKind
from reverb_fpga.compiler.passes.graph import FoldedLayer, FoldedMap, FoldedNetwork
from reverb_fpga.hw.errors import InputError

__all__ = ["signed", "split_borders", "surplus"]

Ints = NDArray[np.int64]

_MOST_BITS = 8  # of a weight


def split_borders(network: FoldedNetwork) -> FoldedNetwork:
    """The same function without padded pooling of currents that end at their border.

    Raises InputError where a layer with a gate has it.
    """
    sides = {INPUT: (network.input.height, network.input.width)}
    layers = []
    for layer in network.layers:
        own = layer.maps[-1]
        sides[layer.name] = own.geometry.out_shape(
            f"layer {layer.name}", sides[own.source], (own.weight.shape[2], own.weight.shape[3])
        )
        layers.append(_layer(network, layer, sides))
    return dataclasses.replace(network, layers=tuple(layers))


def surplus(geometry: Geometry, sides: Pair, kernel: Pair) -> Iterator[tuple[int, Geometry]]:
    """What a continued current has too much at the border of a source of ``sides``: signs, and where to read it."""
    rows, columns = (_parts(geometry, sides[axis], kernel[axis], axis) for axis in range(2))
    for row in (None, *rows):
        for column in (None, *columns):
            if row is not None or column is not None:
                sign = -1 if row is None or column is None else 1
                yield sign, dataclasses.replace(geometry, continued=True, beyond=(row, column))


def _layer(network: FoldedNetwork, layer: FoldedLayer, sides: dict[str, Pair]) -> FoldedLayer:
    maps: list[FoldedMap] = []
    for leg in layer.maps:
        if any(leg.geometry.out_pool.padding):
            if layer.gate is not None and leg is layer.maps[-1]:
                raise InputError(
                    f"layer {layer.name}: pooling of its current with padding is not supported with a gate, whose mean "
                    "is of one map's current; pool the spikes, or pad the convolution"
                )
            maps += _taken_away(network, layer.name, leg, sides[leg.source])
            leg = dataclasses.replace(leg, geometry=dataclasses.replace(leg.geometry, continued=True))
        maps.append(leg)
    return dataclasses.replace(layer, maps=tuple(maps))


def _taken_away(network: FoldedNetwork, name: str, leg: FoldedMap, sides: Pair) -> Iterator[FoldedMap]:
    for sign, geometry in surplus(leg.geometry, sides, (leg.weight.shape[2], leg.weight.shape[3])):
        weight, kind, bits = signed(sign, leg.weight, leg.kind, leg.bits)
        if bits > _MOST_BITS:
            raise InputError(
                f"layer {name}: pooling of its current with padding is not supported with weights of "
                f"{int(leg.weight.min())}, whose opposite has more than {_MOST_BITS} bits"
            )
        bias = np.zeros(len(leg.bias))
        if leg.source == INPUT:  # outside is the code of zero, of which a current is 0
            zero = np.einsum("oikl,i->o", weight, network.input.zero.astype(np.float64)) * geometry.pooled
            bias = -leg.gain * zero
        yield dataclasses.replace(leg, weight=weight, kind=kind, bits=bits, geometry=geometry, bias=bias)


def signed(sign: int, weight: Ints, kind: WeightKind, bits: int) -> tuple[Ints, WeightKind, int]:
    """Weights times 1 or -1, and how they are stored then."""
    weight = sign * weight
    if kind is WeightKind.UNIT and sign < 0:
        kind = WeightKind.TERNARY
    if kind is WeightKind.MULTIBIT and weight.max() >= 1 << (bits - 1):  # the lowest has no opposite
        bits += 1
    return weight, kind, bits


def _parts(geometry: Geometry, side: int, kernel: int, axis: int) -> list[Beyond]:
    """Of every window along an axis what it has before the current's first position and after its last, if that reads
    anything of the source."""
    _, convolved, windows = geometry.sides(side, kernel, axis)
    pool, found = geometry.out_pool, []
    for window in range(windows):
        first = window * pool.stride[axis] - pool.padding[axis]
        end = first + pool.window[axis]
        for low, high in ((first, min(end, 0)), (max(first, convolved), end)):
            reading = [at for at in range(low, high) if _reads(geometry, side, kernel, axis, at)]
            if reading:
                found.append(Beyond(window, reading[0], reading[-1] - reading[0] + 1))
    return found


def _reads(geometry: Geometry, side: int, kernel: int, axis: int, position: int) -> bool:
    """Whether the convolution reads anything of the pooled source at a position of the current."""
    pooled = geometry.in_pool.out(side, axis)
    first = position * geometry.stride[axis] - geometry.padding[axis]
    return any(0 <= first + tap * geometry.dilation[axis] < pooled for tap in range(kernel))
