"""Functions of torch on traced tensors: those that a spiking network may use between its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from numpy.typing import NDArray
from torch import Tensor

from reverb_fpga.compiler.frontends.neurons import RELU
from reverb_fpga.compiler.frontends.tracing import Membrane, Traced, Tracer, numbers
from reverb_fpga.compiler.frontends.values import EVERY, SEQUENCE, Linear, Shape, Time, Total, Value
from reverb_fpga.compiler.geometry import Pair, Pool
from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.hw.errors import InputError

__all__ = [
    "FUNCTIONS",
    "adaptive",
    "average",
    "convolution",
    "dense",
    "largest",
    "named_padding",
    "normalised",
    "reshaped",
    "value_of",
    "voted",
]

Reals = NDArray[np.float64]


def value_of(x: Any) -> Value:
    """What a traced tensor stands for. Raises InputError for the membrane of a neuron."""
    if isinstance(x, Traced) and isinstance(x.value, Value):
        return x.value
    raise InputError("computes with the membrane of a neuron; only its spikes can be read")


def _pair(size: Any) -> Pair:
    values = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    return (values[0], values[-1])


def named_padding(name: str, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """``same`` or ``valid`` in numbers."""
    if name == "valid":
        return (0, 0)
    reach = [spread * (side - 1) for side, spread in zip(_pair(kernel), _pair(dilation), strict=True)]
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
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
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
    sides, padded = _pair(window), _pair(padding)
    steps = sides if stride is None else _pair(stride)
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


def largest(
    tracer: Tracer,
    name: str,
    x: Traced,
    data: Tensor,
    window: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Traced:
    """Max pooling of binary spikes: one fires if any of its window did."""
    value = value_of(x)
    if not value.binary or len(value.terms) != 1 or value.flat:
        raise InputError(
            "max pooling of what is no spike of 0 or 1: the target adds; pool after the spiking layer, or use average "
            "pooling"
        )
    if ceil or _pair(dilation) != (1, 1):
        raise InputError("max pooling with ceil_mode or dilation")
    pooled = average(value, window, stride or window, padding)
    return tracer.fire(name, data, pooled, None, stateful=False)


def reshaped(tracer: Tracer, x: Traced, data: Tensor) -> Traced:
    """A tensor in another shape: time and batch joined or parted, a map flattened, features seen as a map."""
    value, features = value_of(x), math.prod(value_of(x).shape)
    leading = math.prod(x.data.shape) // features
    shape, lead = tuple(data.shape), 1
    for used, side in enumerate(shape):
        if lead == leading and (math.prod(shape[used:]) == features) and used:
            rest = shape[used:]
            break
        lead *= side
    else:
        rest = ()
    if rest == value.shape or rest == (features,):
        # a map of one pixel that was flat stays flat where both are written alike
        return tracer.made(data, value.flattened(len(rest) == 1))
    if len(rest) == 3 and value.flat and all(term.source == INPUT and term.linear is None for term in value.terms):
        return tracer.made(data, _reread(tracer, value, (rest[0], rest[1], rest[2])))
    raise InputError(
        f"brings a tensor of shape {tuple(x.data.shape)} into {shape}: only flattening and its inverse are"
    )


def _reread(tracer: Tracer, value: Value, shape: Shape) -> Value:
    """Features of the input as a map."""
    if tracer.fired or value.bias.any() or not np.all(value.terms[0].scale == 1):
        raise InputError("brings the input into another shape after it was read")
    tracer.input_shape = shape
    one = value.terms[0]
    term = type(one)(one.source, np.ones(shape[0]))
    return Value((term,), np.zeros(shape[0]), shape, value.time)


def _reshape(tracer: Tracer, x: Traced, *shape: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, x.data.reshape(*shape, **kwargs))


def _flatten(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, torch.flatten(x.data, *args, **kwargs))


def _unflatten(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, x.data.unflatten(*args, **kwargs))


def _squeeze(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, torch.squeeze(x.data, *args, **kwargs))


def _unsqueeze(tracer: Tracer, x: Traced, dim: int) -> Traced:
    data = torch.unsqueeze(x.data, dim)
    value = value_of(x)
    if dim == 0 and value.time == EVERY:
        return tracer.made(data, value)
    return reshaped(tracer, x, data)


def _repeat(tracer: Tracer, x: Traced, *sizes: Any) -> Traced:
    counts = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    data = x.data.repeat(*counts)
    if value_of(x).time != EVERY or any(count != 1 for count in counts[1:]):
        raise InputError("repeats a tensor in another dimension than time")
    return tracer.made(data, value_of(x))


def _expand(tracer: Tracer, x: Traced, *sizes: Any) -> Traced:
    data = x.data.expand(*sizes)
    if value_of(x).time != EVERY or data.shape[1:] != x.data.shape[-(data.dim() - 1) :]:
        raise InputError("expands a tensor in another dimension than time")
    return tracer.made(data, value_of(x))


def _leads(x: Traced) -> int:
    """Dimensions before the features."""
    return x.data.dim() - (1 if value_of(x).flat else 3)


def _getitem(tracer: Tracer, x: Traced, index: Any) -> Any:
    if isinstance(x.value, Membrane):
        raise InputError("looks into the membrane of a neuron; only its spikes can be read")
    value = value_of(x)
    step = index[0] if isinstance(index, tuple) and all(rest == slice(None) for rest in index[1:]) else index
    if isinstance(step, slice) and step == slice(None):
        return x
    if isinstance(step, Tensor) and not step.dim():
        step = int(step)
    if not isinstance(step, int) or _leads(x) != 2:
        raise InputError(f"takes a part of a tensor ([{index}]); only single time steps can be")
    time: Time = step % len(x.data) if value.time == SEQUENCE else value.time
    return tracer.made(x.data[step], value.at(time))


def _stack(tracer: Tracer, tensors: Sequence[Any], dim: int = 0) -> Traced:
    if not all(isinstance(x, Traced) for x in tensors):
        raise InputError("stacks tensors that do not come from the input")
    if isinstance(tensors[0].value, Membrane):
        return Traced(tracer, torch.stack([x.data for x in tensors], dim), tensors[0].value)
    values = [value_of(x) for x in tensors]
    if dim != 0 or not all(value.same(values[0]) for value in values):
        raise InputError("stacks different tensors; only steps of one tensor, in their order, can be")
    data = torch.stack([x.data for x in tensors])
    if all(value.time == EVERY for value in values):
        return tracer.made(data, values[0])
    if [value.time for value in values] != list(range(len(values))):
        raise InputError("stacks time steps that are not all there, in their order")
    return tracer.made(data, values[0].at(SEQUENCE))


def _cat(tracer: Tracer, tensors: Sequence[Any], dim: int = 0) -> Traced:
    whole = all(isinstance(x, Traced) and _leads(x) == 2 and len(x.data) == 1 for x in tensors)
    if whole and dim == 0:
        return _stack(tracer, [_getitem(tracer, x, 0) for x in tensors])
    raise InputError("joins tensors (torch.cat); only sums of them can be read")


def _over(x: Traced, dim: Any) -> tuple[int, ...]:
    dims = range(x.data.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    return tuple(sorted(d % x.data.dim() for d in dims))


def _sum(tracer: Tracer, x: Traced, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Traced:
    value = value_of(x)
    if kwargs or keepdim or _over(x, dim) != (0,) or _leads(x) != 2:
        raise InputError("sums over something else than time")
    data, steps = x.data.sum(0), len(x.data)
    if value.time == EVERY:
        return tracer.made(data, value.scaled(float(steps)))
    return tracer.made(data, value.at(Total(frozenset(range(steps)))))


def _mean(tracer: Tracer, x: Traced, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Traced:
    value, lead = value_of(x), _leads(x)
    dims = _over(x, dim)
    if dims == (0,) and lead == 2:
        total = _sum(tracer, x, 0)
        return tracer.made(x.data.mean(0), value_of(total).scaled(1 / len(x.data)))
    if dims == (lead + 1, lead + 2) and not value.flat:
        pooled = average(value, value.shape[1:])
        return tracer.made(x.data.mean(dims, keepdim=keepdim), pooled.flattened(not keepdim))
    raise InputError("averages over something else than time, or rows and columns")


def _add(tracer: Tracer, a: Any, b: Any, *, alpha: float = 1) -> Traced:
    if not isinstance(a, Traced):
        a, b, alpha = (b, a, 1) if alpha == 1 else (_mul(tracer, b, alpha), a, 1)
    if isinstance(b, Traced):
        if alpha != 1:
            b = _mul(tracer, b, alpha)
        return tracer.made(a.data + b.data, value_of(a).plus(value_of(b)))
    if isinstance(b, Tensor) and b.numel() and not bool(b.any()):
        return a
    amount = _per_channel(a, b)
    return tracer.made(a.data + b * alpha, value_of(a).shifted(amount * alpha))


def _sub(tracer: Tracer, a: Any, b: Any, *, alpha: float = 1) -> Traced:
    return _add(tracer, a, _mul(tracer, b, -alpha) if isinstance(b, Traced) else -alpha * b)


def _mul(tracer: Tracer, a: Any, b: Any) -> Traced:
    if isinstance(a, Traced) and isinstance(b, Traced):
        raise InputError("multiplies one traced tensor by another")
    x, factor = (a, b) if isinstance(a, Traced) else (b, a)
    return tracer.made(x.data * factor, value_of(x).scaled(_per_channel(x, factor)))


def _div(tracer: Tracer, a: Any, b: Any, **kwargs: Any) -> Traced:
    if not isinstance(a, Traced) or isinstance(b, Traced) or kwargs.get("rounding_mode"):
        raise InputError("divides by a traced tensor, or with rounding")
    return _mul(tracer, a, 1 / b)


def _neg(tracer: Tracer, x: Traced) -> Traced:
    return _mul(tracer, x, -1.0)


def _per_channel(x: Traced, factor: Any) -> Reals:
    """A number, or a tensor that is one number per channel, as (C,) or ()."""
    if not isinstance(factor, Tensor):
        return np.asarray(factor, dtype=np.float64)
    if factor.numel() == 1:
        return numbers(factor).reshape(())
    value = value_of(x)
    channels = value.shape[0]
    wanted = (channels,) if value.flat else (channels, 1, 1)
    shape = tuple(factor.shape)
    while len(shape) > len(wanted) and shape[0] == 1:
        shape = shape[1:]
    if shape != wanted or (value.flat and math.prod(value.shape[1:]) > 1):
        raise InputError(
            f"combines with a constant of shape {tuple(factor.shape)}: one number per channel is supported"
        )
    return numbers(factor).reshape(channels)


def _conv2d(
    tracer: Tracer,
    x: Traced,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Traced:
    if isinstance(weight, Traced) or isinstance(bias, Traced):
        raise InputError("convolves with weights that depend on the input")
    if isinstance(padding, str):
        padding = named_padding(padding, weight.shape[2:], stride, dilation)
    value = convolution(tracer, value_of(x), (weight, bias), stride, padding, dilation, groups)
    lead = x.data.shape[: _leads(x)]
    data = F.conv2d(x.data.flatten(0, len(lead) - 1), weight, bias, stride, padding, dilation, groups)
    return tracer.made(data.unflatten(0, lead), value)


def _linear(tracer: Tracer, x: Traced, weight: Any, bias: Any = None) -> Traced:
    if isinstance(weight, Traced) or isinstance(bias, Traced):
        raise InputError("multiplies by weights that depend on the input")
    return tracer.made(F.linear(x.data, weight, bias), dense(tracer, value_of(x), weight, bias))


def _matmul(tracer: Tracer, x: Any, weight: Any) -> Traced:
    if not isinstance(x, Traced) or not isinstance(weight, Tensor) or weight.dim() != 2:
        raise InputError("multiplies two traced tensors, or from the left")
    return _linear(tracer, x, weight.T)


def _batch_norm(
    tracer: Tracer, x: Traced, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Traced:  # fmt: skip
    if training or mean is None:
        raise InputError("normalises with the statistics of each batch")
    scale = 1 / np.sqrt(numbers(var) + eps)
    shift = np.zeros_like(scale) if bias is None else numbers(bias)
    scale = scale if weight is None else scale * numbers(weight)
    lead = x.data.shape[: _leads(x)]
    data = F.batch_norm(x.data.flatten(0, len(lead) - 1), mean, var, weight, bias, False, momentum, eps)
    return tracer.made(data.unflatten(0, lead), normalised(value_of(x), scale, shift, numbers(mean)))


def _avg_pool2d(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = dict(zip(names, args, strict=False)) | kwargs
    value = average(
        value_of(x), given["kernel_size"], given.get("stride") or None, given.get("padding", 0),
        given.get("ceil_mode", False), given.get("count_include_pad", True), given.get("divisor_override"),
    )  # fmt: skip
    lead = x.data.shape[: _leads(x)]
    data = F.avg_pool2d(x.data.flatten(0, len(lead) - 1), *args, **kwargs)
    return tracer.made(data.unflatten(0, lead), value)


def _adaptive_pool(tracer: Tracer, x: Traced, output_size: Any) -> Traced:
    lead = x.data.shape[: _leads(x)]
    data = F.adaptive_avg_pool2d(x.data.flatten(0, len(lead) - 1), output_size)
    return tracer.made(data.unflatten(0, lead), adaptive(value_of(x), output_size))


def _max_pool2d(tracer: Tracer, x: Traced, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                ceil_mode: bool = False, return_indices: bool = False) -> Traced:  # fmt: skip
    lead = x.data.shape[: _leads(x)]
    data = F.max_pool2d(x.data.flatten(0, len(lead) - 1), kernel_size, stride, padding, dilation, ceil_mode)
    name = f"{value_of(x).terms[0].source}.max{_pair(kernel_size)[0]}x{_pair(kernel_size)[1]}"
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return largest(tracer, name, x, data.unflatten(0, lead), *window)


def _relu(tracer: Tracer, x: Traced, inplace: bool = False) -> Traced:
    value = value_of(x)
    name = next(
        (known.name for known in tracer.fired.values() if known.current.same(value) and known.neuron is RELU),
        f"{tracer.where.removeprefix('layer ').replace('the module itself', 'relu')}.relu{len(tracer.fired) + 1}",
    )
    return tracer.fire(name, torch.relu(x.data), value, RELU, stateful=False)


def _unchanged(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return x


def _dropout(tracer: Tracer, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False) -> Traced:
    if training:
        raise InputError("drops values at random in evaluation, too (give training=self.training)")
    return x


def _size(tracer: Tracer, x: Traced, *args: Any) -> Any:
    return x.data.size(*args)


def _zeros(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Tensor:
    return torch.zeros_like(x.data, *args, **kwargs)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": _add, "sub": _sub, "rsub": lambda tracer, a, b, **kw: _sub(tracer, b, a, **kw), "mul": _mul, "div": _div,
    "neg": _neg, "negative": _neg, "sum": _sum, "mean": _mean, "stack": _stack, "cat": _cat, "getitem": _getitem,
    "flatten": _flatten, "view": _reshape, "reshape": _reshape, "unflatten": _unflatten, "squeeze": _squeeze,
    "unsqueeze": _unsqueeze, "repeat": _repeat, "expand": _expand, "size": _size, "dim": lambda t, x: x.data.dim(),
    "conv2d": _conv2d, "linear": _linear, "matmul": _matmul, "mm": _matmul, "batch_norm": _batch_norm,
    "avg_pool2d": _avg_pool2d, "adaptive_avg_pool2d": _adaptive_pool, "max_pool2d": _max_pool2d,
    "boolean_dispatch": _max_pool2d, "relu": _relu, "dropout": _dropout, "contiguous": _unchanged, "float": _unchanged,
    "to": _unchanged, "clone": _unchanged, "detach": _unchanged, "cpu": _unchanged, "zeros_like": _zeros,
    "new_zeros": lambda tracer, x, *args, **kw: x.data.new_zeros(*args, **kw),
}  # fmt: skip
"""By the name of the function or method."""
