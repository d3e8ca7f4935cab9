"""Linear layers, normalisation and pooling of traced values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reverb_fpga.compiler.frontends.neurons import RELU
from reverb_fpga.compiler.frontends.tracing import Traced, Tracer, numbers
from reverb_fpga.compiler.frontends.values import Largest, Linear, Value
from reverb_fpga.compiler.geometry import NO_POOL, Pair, Pool
from reverb_fpga.hw.errors import InputError

__all__ = [
    "adaptive",
    "average",
    "convolution",
    "dense",
    "largest",
    "leads",
    "named_padding",
    "normalised",
    "pair",
    "rectified",
    "value_of",
    "voted",
    "window_of",
]

Reals = NDArray[np.float64]


def value_of(x: Any) -> Value:
    """What a traced tensor stands for. Raises InputError for the membrane of a neuron."""
    if isinstance(x, Traced) and isinstance(x.value, Value):
        return x.value
    if isinstance(x, Traced) and isinstance(x.value, Largest):
        raise InputError(
            "reads the largest of currents or sums, which need not make the largest membrane: pool after the spiking "
            "layer, or use average pooling"
        )
    raise InputError("computes with the membrane of a neuron; only its spikes can be read")


def pair(size: Any) -> Pair:
    values = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    return (values[0], values[-1])


def named_padding(name: str, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """``same`` or ``valid`` in numbers."""
    if name == "valid":
        return (0, 0)
    reach = [spread * (side - 1) for side, spread in zip(pair(kernel), pair(dilation), strict=True)]
    if any(side % 2 for side in reach):
        raise InputError("padding='same' of an even kernel is not the same on both sides")
    return (reach[0] // 2, reach[1] // 2)


def convolution(
    tracer: Tracer,
    value: Value,
    parameters: tuple[Tensor, Tensor | None],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Value:
    """A convolution; one of several groups is a whole one with zeros between them."""
    if value.flat:
        raise InputError("a convolution of a flattened tensor")
    weight, bias = numbers(parameters[0]), parameters[1]
    if groups > 1:
        weight = _ungrouped(weight, groups)
    channels, rows, columns = value.shape
    if weight.shape[1] != channels:
        raise InputError(f"reads {weight.shape[1]} channels, its input has {channels}")
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    sides = [
        (side + 2 * pad - spread * (kernel - 1) - 1) // step + 1
        for side, pad, spread, kernel, step in zip(
            (rows, columns), padding, dilation, weight.shape[2:], stride, strict=True
        )
    ]
    linear = Linear(tracer.where.removeprefix("layer "), weight, stride, padding, dilation)
    return value.convolved(linear, (len(weight), sides[0], sides[1]), _bias(bias, len(weight)))


def _ungrouped(weight: Reals, groups: int) -> Reals:
    out, own = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], own * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * out, (group + 1) * out)
        whole[rows, group * own : (group + 1) * own] = weight[rows]
    return whole


def _bias(bias: Tensor | None, channels: int) -> Reals:
    return np.zeros(channels) if bias is None else numbers(bias)


def dense(tracer: Tracer, value: Value, weight: Tensor, bias: Tensor | None) -> Value:
    """A linear layer: a convolution whose kernel covers its input."""
    if not value.flat:
        raise InputError("a linear layer over the last dimension of a map; flatten it before")
    matrix = numbers(weight)
    if matrix.shape[1] != math.prod(value.shape):
        raise InputError(f"reads {matrix.shape[1]} features, its input has {math.prod(value.shape)}")
    kernel = matrix.reshape(len(matrix), *value.shape)
    linear = Linear(tracer.where.removeprefix("layer "), kernel)
    return value.convolved(linear, (len(matrix), 1, 1), _bias(bias, len(matrix))).flattened(True)


def normalised(value: Value, scale: Reals, shift: Reals, mean: Reals) -> Value:
    """Batch normalisation in evaluation."""
    if len(scale) != value.shape[0] or (value.flat and math.prod(value.shape[1:]) > 1):
        raise InputError("normalises every feature of a flattened map by itself; normalise channels before flattening")
    return value.scaled(scale).shifted(shift - mean * scale)


def average(
    value: Value,
    window: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    count_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    """Average pooling."""
    sides, padded = pair(window), pair(padding)
    steps = sides if stride is None else pair(stride)
    if value.flat:
        raise InputError("pools a flattened tensor")
    if ceil or (any(padded) and not count_pad):
        raise InputError("average pooling with ceil_mode, or padding that is not counted, divides by several numbers")
    pool = Pool(sides, steps, padded)
    rows, columns = (pool.out(value.shape[1 + axis], axis) for axis in range(2))
    result = value.pooled(pool, (value.shape[0], rows, columns))
    return result if divisor is None else result.scaled(pool.size / divisor)


def adaptive(value: Value, size: Any) -> Value:
    """Adaptive average pooling onto sides that divide those of the map."""
    wanted = (size, size) if size is None or isinstance(size, int) else tuple(size)
    sides = value.shape[1:]
    out = [side if want is None else want for side, want in zip(sides, wanted, strict=True)]
    if any(side % want for side, want in zip(sides, out, strict=True)):
        raise InputError(f"adaptive pooling of {sides[0]}x{sides[1]} onto {out[0]}x{out[1]}: windows of several sizes")
    return average(value, (sides[0] // out[0], sides[1] // out[1]))


def voted(value: Value, size: int) -> Value:
    """The mean of every `size` neighbouring features."""
    if not value.flat or math.prod(value.shape[1:]) != 1:
        raise InputError("votes over what is no vector of features")
    classes = value.shape[0] // size
    matrix = np.repeat(np.eye(classes), size, axis=1)
    matrix = np.pad(matrix, ((0, 0), (0, value.shape[0] - classes * size)))[:, :, None, None]
    linear = Linear("the vote", matrix)
    return value.convolved(linear, (classes, 1, 1), np.zeros(classes)).flattened(True).scaled(1 / size)


def largest(tracer: Tracer, name: str, x: Traced, data: Tensor, pool: Pool) -> Traced:
    """Max pooling: of spikes, which are not negative, a layer of its own; of a current, left to what reads it."""
    value = value_of(x)
    if value.flat:
        raise InputError("pools a flattened tensor")
    rows, columns = (pool.out(value.shape[1 + axis], axis) for axis in range(2))
    shape = (value.shape[0], rows, columns)
    if not _spikes(tracer, value):
        return tracer.made(data, Largest(value, pool))
    scale = value.terms[0].scale
    bare = value if value.binary else value.scaled(np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 1))
    fired = tracer.fire_largest(name, data, bare, pool, shape)
    return tracer.made(data, value_of(fired).scaled(scale))


def rectified(tracer: Tracer, name: str, x: Traced) -> Traced:
    """ReLU; of the largest of a window of currents, the largest of their spikes, which is the same."""
    if not isinstance(x.value, Largest):
        value = value_of(x)
        return tracer.fire(tracer.unit(name, value, RELU), torch.relu(x.sample), value, RELU, stateful=False)
    whole, pool = x.value.value, x.value.pool
    name = tracer.unit(f"{name}.all", whole, RELU)
    fired = tracer.fire(name, torch.relu(x.sample), whole, RELU, stateful=False)
    return largest(tracer, name.removesuffix(".all"), fired, torch.relu(x.sample), pool)


def window_of(window: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Pool:
    """A window that max pooling can have."""
    if ceil or pair(dilation) != (1, 1):
        raise InputError("max pooling with ceil_mode or dilation")
    return Pool(pair(window), pair(stride or window), pair(padding))


def _spikes(tracer: Tracer, value: Value) -> bool:
    """Whether it is what one layer fires, times numbers that are not negative."""
    if len(value.terms) != 1 or value.bias.any() or not np.all(value.terms[0].scale >= 0):
        return False
    term = value.terms[0]
    return term.linear is None and term.in_pool == NO_POOL and term.source in tracer.fired


def leads(x: Traced) -> int:
    """Dimensions before the features."""
    return x.sample.dim() - (1 if value_of(x).flat else 3)
