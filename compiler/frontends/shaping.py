"""Functions that bring traced tensors into other shapes, or part and join them over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverb_fpga.compiler.frontends.maps import leads, value_of
from reverb_fpga.compiler.frontends.tracing import Membrane, Traced, Tracer
from reverb_fpga.compiler.frontends.values import EVERY, SEQUENCE, Shape, Time, Value
from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.hw.errors import InputError

__all__ = ["SHAPING", "reshaped"]


def reshaped(tracer: Tracer, x: Traced, data: Tensor) -> Traced:
    """A tensor in another shape: time and batch joined or parted, a map flattened, features seen as a map."""
    value, features = value_of(x), math.prod(value_of(x).shape)
    leading = math.prod(x.sample.shape) // features
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
        f"brings a tensor of shape {tuple(x.sample.shape)} into {shape}: only flattening and its inverse are"
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
    return reshaped(tracer, x, x.sample.reshape(*shape, **kwargs))


def _flatten(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, torch.flatten(x.sample, *args, **kwargs))


def _unflatten(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, x.sample.unflatten(*args, **kwargs))


def _squeeze(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return reshaped(tracer, x, torch.squeeze(x.sample, *args, **kwargs))


def _unsqueeze(tracer: Tracer, x: Traced, dim: int) -> Traced:
    data = torch.unsqueeze(x.sample, dim)
    value = value_of(x)
    if dim == 0 and value.time == EVERY:
        return tracer.made(data, value)
    return reshaped(tracer, x, data)


def _repeat(tracer: Tracer, x: Traced, *sizes: Any) -> Traced:
    counts = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    data = x.sample.repeat(*counts)
    if value_of(x).time != EVERY or any(count != 1 for count in counts[1:]):
        raise InputError("repeats a tensor in another dimension than time")
    return tracer.made(data, value_of(x))


def _expand(tracer: Tracer, x: Traced, *sizes: Any) -> Traced:
    data = x.sample.expand(*sizes)
    if value_of(x).time != EVERY or data.shape[1:] != x.sample.shape[-(data.dim() - 1) :]:
        raise InputError("expands a tensor in another dimension than time")
    return tracer.made(data, value_of(x))


def _getitem(tracer: Tracer, x: Traced, index: Any) -> Any:
    if isinstance(x.value, Membrane):
        raise InputError("looks into the membrane of a neuron; only its spikes can be read")
    value = value_of(x)
    step = index[0] if isinstance(index, tuple) and all(rest == slice(None) for rest in index[1:]) else index
    if isinstance(step, slice) and step == slice(None):
        return x
    if isinstance(step, Tensor) and not step.dim():
        step = int(step)
    if not isinstance(step, int) or leads(x) != 2:
        raise InputError(f"takes a part of a tensor ([{index}]); only single time steps can be")
    time: Time = step % len(x.sample) if value.time == SEQUENCE else value.time
    return tracer.made(x.sample[step], value.at(time))


def _stack(tracer: Tracer, tensors: Sequence[Any], dim: int = 0) -> Traced:
    if not all(isinstance(x, Traced) for x in tensors):
        raise InputError("stacks tensors that do not come from the input")
    if isinstance(tensors[0].value, Membrane):
        return Traced(tracer, torch.stack([x.sample for x in tensors], dim), tensors[0].value)
    values = [value_of(x) for x in tensors]
    if dim != 0 or not all(value.same(values[0]) for value in values):
        raise InputError("stacks different tensors; only steps of one tensor, in their order, can be")
    data = torch.stack([x.sample for x in tensors])
    if all(value.time == EVERY for value in values):
        return tracer.made(data, values[0])
    if [value.time for value in values] != list(range(len(values))):
        raise InputError("stacks time steps that are not all there, in their order")
    return tracer.made(data, values[0].at(SEQUENCE))


def _cat(tracer: Tracer, tensors: Sequence[Any], dim: int = 0) -> Traced:
    whole = all(isinstance(x, Traced) and leads(x) == 2 and len(x.sample) == 1 for x in tensors)
    if whole and dim == 0:
        return _stack(tracer, [_getitem(tracer, x, 0) for x in tensors])
    raise InputError("joins tensors (torch.cat); only sums of them can be read")


def _size(tracer: Tracer, x: Traced, *args: Any) -> Any:
    return x.sample.size(*args)


def _zeros(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Tensor:
    return torch.zeros_like(x.sample, *args, **kwargs)


SHAPING: dict[str, Callable[..., Any]] = {
    "stack": _stack, "cat": _cat, "getitem": _getitem, "flatten": _flatten, "view": _reshape, "reshape": _reshape,
    "unflatten": _unflatten, "squeeze": _squeeze, "unsqueeze": _unsqueeze, "repeat": _repeat, "expand": _expand,
    "size": _size, "dim": lambda tracer, x: x.sample.dim(), "zeros_like": _zeros,
    "new_zeros": lambda tracer, x, *args, **kw: x.sample.new_zeros(*args, **kw),
}  # fmt: skip
"""By the name of the function or method."""
