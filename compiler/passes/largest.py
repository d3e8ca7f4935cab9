"""Max pooling with nothing but sums and neurons: ``max(a, b) = b + (a - b where that is positive)``.

Codes are not negative and of one scale, so a neuron of threshold 0 without leak fires exactly that difference, another
one exactly the sum. Windows grow from there, one direction after the other: the largest of ``2 k`` neighbours is the
larger of two windows of ``k``, which may overlap. Beyond the border are zeros, which never win against a code.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import NO_POOL, Geometry, Pool
from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatMap

__all__ = ["identity", "largest"]


def identity(source: str, channels: int, pool: Pool = NO_POOL) -> FloatMap:
    """Every channel as it is, averaged over windows."""
    weight = np.eye(channels, dtype=np.int64)[:, :, None, None]
    return _bare(source, weight, WeightKind.UNIT, Geometry(in_pool=pool))


def largest(source: str, channels: int, pool: Pool, name: str, timesteps: int) -> list[FloatLayer]:
    """Layers of which the last, called ``name``, fires the largest code of every window of the tensor ``source``.

    The first of them have names of their own. All codes are those of ``source`` in scale and width.
    """
    steps = list(_steps(pool))
    if not steps:
        return [_layer(name, (identity(source, channels, pool),), source, timesteps)]
    layers: list[FloatLayer] = []
    read = source
    for number, (axis, geometry) in enumerate(steps, start=1):
        larger = name if number == len(steps) else f"{name}.{number}"
        more = f"{name}.{number}d"
        first, second = (_tap(channels, axis, tap) for tap in range(2))
        difference = _bare(read, first - second, WeightKind.TERNARY, geometry)
        layers.append(_layer(more, (difference,), source, timesteps))
        legs = (identity(more, channels), _bare(read, second, WeightKind.UNIT, geometry))
        layers.append(_layer(larger, legs, source, timesteps))
        read = larger
    return layers


def _steps(pool: Pool) -> Iterator[tuple[int, Geometry]]:
    """Pairs of places to choose the larger of: the axis, and where a kernel of two taps along it reads."""
    plan: list[tuple[int, int, bool, bool]] = []  # axis, distance of the two, first and last step of the axis
    for axis in (1, 0):
        have, side = 1, pool.window[axis]
        while have < side:
            apart = min(have, side - have)
            plan.append((axis, apart, have == 1, have + apart == side))
            have += apart
    for number, (axis, apart, first, last) in enumerate(plan):
        dilation, padding, stride = [1, 1], [0, 0], [1, 1]
        dilation[axis] = apart
        padding[axis] = pool.padding[axis] if first else 0
        stride[axis] = pool.stride[axis] if last else 1
        if number == 0 and pool.window[1 - axis] == 1:
            stride[1 - axis] = pool.stride[1 - axis]  # a direction without windows has no step of its own
        yield axis, Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]))


def _tap(channels: int, axis: int, tap: int) -> NDArray[np.int64]:
    """The identity at one of the two taps."""
    weight = np.zeros((channels, channels, *((2, 1) if axis == 0 else (1, 2))), dtype=np.int64)
    place = (tap, 0) if axis == 0 else (0, tap)
    weight[:, :, place[0], place[1]] = np.eye(channels, dtype=np.int64)
    return weight


def _bare(source: str, weight: NDArray[np.int64], kind: WeightKind, geometry: Geometry) -> FloatMap:
    channels = len(weight)
    return FloatMap(
        source=source,
        weight=weight,
        kind=kind,
        bits=1,
        weight_scale=np.ones(channels),
        scaled=False,
        geometry=geometry,
        bias=np.zeros(channels),
        norm=None,
    )


def _layer(name: str, maps: tuple[FloatMap, ...], codes_of: str, timesteps: int) -> FloatLayer:
    return FloatLayer(
        name=name, maps=maps, tau=0.0, v_th=0.0, spiking=True, binary=False, timesteps=timesteps, codes_of=codes_of
    )
