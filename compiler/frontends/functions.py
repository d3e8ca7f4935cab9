"""Functions of torch on traced tensors: those that a spiking network may use between its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.compiler.frontends.arithmetic import ARITHMETIC
from reverb_fpga.compiler.frontends.maps import (
    adaptive,
    average,
    convolution,
    dense,
    largest,
    leads,
    named_padding,
    normalised,
    pair,
    value_of,
)
from reverb_fpga.compiler.frontends.neurons import RELU
from reverb_fpga.compiler.frontends.shaping import SHAPING
from reverb_fpga.compiler.frontends.tracing import Traced, Tracer, numbers
from reverb_fpga.hw.errors import InputError

__all__ = ["FUNCTIONS"]


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
    lead = x.data.shape[: leads(x)]
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
    lead = x.data.shape[: leads(x)]
    data = F.batch_norm(x.data.flatten(0, len(lead) - 1), mean, var, weight, bias, False, momentum, eps)
    return tracer.made(data.unflatten(0, lead), normalised(value_of(x), scale, shift, numbers(mean)))


def _avg_pool2d(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = dict(zip(names, args, strict=False)) | kwargs
    value = average(
        value_of(x), given["kernel_size"], given.get("stride") or None, given.get("padding", 0),
        given.get("ceil_mode", False), given.get("count_include_pad", True), given.get("divisor_override"),
    )  # fmt: skip
    lead = x.data.shape[: leads(x)]
    data = F.avg_pool2d(x.data.flatten(0, len(lead) - 1), *args, **kwargs)
    return tracer.made(data.unflatten(0, lead), value)


def _adaptive_pool(tracer: Tracer, x: Traced, output_size: Any) -> Traced:
    lead = x.data.shape[: leads(x)]
    data = F.adaptive_avg_pool2d(x.data.flatten(0, len(lead) - 1), output_size)
    return tracer.made(data.unflatten(0, lead), adaptive(value_of(x), output_size))


def _max_pool2d(tracer: Tracer, x: Traced, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                ceil_mode: bool = False, return_indices: bool = False) -> Traced:  # fmt: skip
    lead = x.data.shape[: leads(x)]
    data = F.max_pool2d(x.data.flatten(0, len(lead) - 1), kernel_size, stride, padding, dilation, ceil_mode)
    name = f"{value_of(x).terms[0].source}.max{pair(kernel_size)[0]}x{pair(kernel_size)[1]}"
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


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **ARITHMETIC, **SHAPING, "conv2d": _conv2d, "linear": _linear, "matmul": _matmul, "mm": _matmul,
    "batch_norm": _batch_norm, "avg_pool2d": _avg_pool2d, "adaptive_avg_pool2d": _adaptive_pool,
    "max_pool2d": _max_pool2d, "boolean_dispatch": _max_pool2d, "relu": _relu, "dropout": _dropout,
    "contiguous": _unchanged, "float": _unchanged, "to": _unchanged, "clone": _unchanged, "detach": _unchanged,
    "cpu": _unchanged,
}  # fmt: skip
"""By the name of the function or method."""
