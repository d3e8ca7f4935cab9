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
    rectified,
    value_of,
    window_of,
)
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
    lead = x.sample.shape[: leads(x)]
    data = F.conv2d(x.sample.flatten(0, len(lead) - 1), weight, bias, stride, padding, dilation, groups)
    return tracer.made(data.unflatten(0, lead), value)


def _linear(tracer: Tracer, x: Traced, weight: Any, bias: Any = None) -> Traced:
    if isinstance(weight, Traced) or isinstance(bias, Traced):
        raise InputError("multiplies by weights that depend on the input")
    return tracer.made(F.linear(x.sample, weight, bias), dense(tracer, value_of(x), weight, bias))


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
    lead = x.sample.shape[: leads(x)]
    data = F.batch_norm(x.sample.flatten(0, len(lead) - 1), mean, var, weight, bias, False, momentum, eps)
    return tracer.made(data.unflatten(0, lead), normalised(value_of(x), scale, shift, numbers(mean)))


def _avg_pool2d(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = dict(zip(names, args, strict=False)) | kwargs
    value = average(
        value_of(x), given["kernel_size"], given.get("stride") or None, given.get("padding", 0),
        given.get("ceil_mode", False), given.get("count_include_pad", True), given.get("divisor_override"),
    )  # fmt: skip
    lead = x.sample.shape[: leads(x)]
    data = F.avg_pool2d(x.sample.flatten(0, len(lead) - 1), *args, **kwargs)
    return tracer.made(data.unflatten(0, lead), value)


def _adaptive_pool(tracer: Tracer, x: Traced, output_size: Any) -> Traced:
    lead = x.sample.shape[: leads(x)]
    data = F.adaptive_avg_pool2d(x.sample.flatten(0, len(lead) - 1), output_size)
    return tracer.made(data.unflatten(0, lead), adaptive(value_of(x), output_size))


def _max_pool2d(tracer: Tracer, x: Traced, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                ceil_mode: bool = False, return_indices: bool = False) -> Traced:  # fmt: skip
    if return_indices:
        raise InputError("returns indices of its maxima")
    lead = x.sample.shape[: leads(x)]
    data = F.max_pool2d(x.sample.flatten(0, len(lead) - 1), kernel_size, stride, padding, dilation, ceil_mode)
    name = f"{tracer.part}.max" if tracer.part else "max"
    pool = window_of(kernel_size, stride, padding, dilation, ceil_mode)
    return largest(tracer, name, x, data.unflatten(0, lead), pool)


def _relu(tracer: Tracer, x: Traced, inplace: bool = False) -> Traced:
    return rectified(tracer, f"{tracer.part}.relu" if tracer.part else "relu", x)


def _clamp(tracer: Tracer, x: Traced, min: Any = None, max: Any = None) -> Traced:
    if max is not None or isinstance(min, Tensor | Traced) or min != 0:
        raise InputError(f"clamps to {min} ... {max}: 0 and more (min=0, as ReLU) is supported")
    return _relu(tracer, x)


def _cast(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    """To another type or device: only what keeps every number."""
    sample = x.sample.to(*args, **kwargs)
    if sample.dtype not in (torch.float32, torch.float64):
        raise InputError(f"rounds a tensor to {str(sample.dtype).removeprefix('torch.')}")
    return tracer.made(sample, value_of(x))


def _unchanged(tracer: Tracer, x: Traced, *args: Any, **kwargs: Any) -> Traced:
    return x


def _dropout(tracer: Tracer, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False) -> Traced:
    if training and p:
        raise InputError("drops values at random in evaluation, too (give training=self.training)")
    return x


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **ARITHMETIC, **SHAPING, "conv2d": _conv2d, "linear": _linear, "matmul": _matmul, "mm": _matmul,
    "batch_norm": _batch_norm, "avg_pool2d": _avg_pool2d, "adaptive_avg_pool2d": _adaptive_pool,
    "max_pool2d": _max_pool2d, "relu": _relu, "clamp": _clamp, "clip": _clamp,
    "clamp_min": _clamp, "dropout": _dropout, "to": _cast, "type": _cast,
    "type_as": lambda tracer, x, other: _cast(tracer, x, other.dtype),
    "clone": lambda tracer, x, **kw: tracer.made(x.sample, x.value),
    **dict.fromkeys(("contiguous", "float", "double", "detach", "cpu", "requires_grad"), _unchanged),
}  # fmt: skip
"""By the name of the function or method."""
