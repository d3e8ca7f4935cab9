"""Windows of more positions than the target can gather: average pooling apart from what reads it, or in its kernel."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.frontends.values import Linear, Term
from reverb_fpga.compiler.geometry import NO_POOL, Geometry, Pool
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatTensor
from reverb_fpga.compiler.passes.largest import identity
from reverb_fpga.hw.contract import EVENT_VALUE_BITS

__all__ = ["averages", "codes_of_averages", "merged", "window"]

Reals = NDArray[np.float64]


def window(term: Term) -> int:
    """Positions that a map gathers for one output."""
    kernel = 1 if term.linear is None else math.prod(term.linear.weight.shape[2:])
    return kernel * Geometry(in_pool=term.in_pool, out_pool=term.out_pool).pooled


def averages(source: str, channels: int, pool: Pool, name: str, timesteps: int) -> FloatLayer:
    """A layer of its own that fires the averages of a tensor of spikes."""
    leg = identity(source, channels, pool)
    return FloatLayer(name, (leg,), tau=0.0, v_th=0.0, spiking=True, binary=False, timesteps=timesteps)


def codes_of_averages(pool: Pool) -> FloatTensor | None:
    """Codes of averages of spikes of 0 and 1, which are exact; None if there are too many."""
    bits = max(2, pool.size.bit_length())
    return FloatTensor(code_step=1 / pool.size, code_bits=bits) if bits <= EVENT_VALUE_BITS else None


def merged(term: Term) -> Term:
    """A convolution and the average of what it gives as one convolution; as it is where that is none."""
    linear, pool = term.linear, term.out_pool
    if linear is None or pool == NO_POOL or any(pool.padding) or linear.dilation != (1, 1):
        return term
    stride = (linear.stride[0] * pool.stride[0], linear.stride[1] * pool.stride[1])
    whole = Linear(linear.name, _running(linear.weight, linear, pool), stride, linear.padding)
    return dataclasses.replace(term, linear=whole, out_pool=NO_POOL)


def _running(weight: Reals, linear: Linear, pool: Pool) -> Reals:
    """The mean of a kernel over the places that a window of its results has."""
    rows, columns = weight.shape[2:]
    down, right = ((side - 1) * step for side, step in zip(pool.window, linear.stride, strict=True))
    whole = np.zeros((*weight.shape[:2], rows + down, columns + right))
    for y in range(0, down + 1, linear.stride[0]):
        for x in range(0, right + 1, linear.stride[1]):
            whole[:, :, y : y + rows, x : x + columns] += weight / pool.size
    return whole
