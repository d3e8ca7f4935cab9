"""Sums, products and means of traced tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from reverb_fpga.compiler.frontends.maps import average, leads, value_of
from reverb_fpga.compiler.frontends.tracing import Traced, Tracer, numbers
from reverb_fpga.compiler.frontends.values import EVERY, Total
from reverb_fpga.hw.errors import InputError

__all__ = ["ARITHMETIC"]

Reals = NDArray[np.float64]


def _over(x: Traced, dim: Any) -> tuple[int, ...]:
    dims = range(x.sample.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    return tuple(sorted(d % x.sample.dim() for d in dims))


def _sum(tracer: Tracer, x: Traced, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Traced:
    value = value_of(x)
    if kwargs or keepdim or _over(x, dim) != (0,) or leads(x) != 2:
        raise InputError("sums over something else than time")
    data, steps = x.sample.sum(0), len(x.sample)
    if value.time == EVERY:
        return tracer.made(data, value.scaled(float(steps)))
    return tracer.made(data, value.at(Total(frozenset(range(steps)))))


def _mean(tracer: Tracer, x: Traced, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Traced:
    value, lead = value_of(x), leads(x)
    dims = _over(x, dim)
    if dims == (0,) and lead == 2:
        total = _sum(tracer, x, 0)
        return tracer.made(x.sample.mean(0), value_of(total).scaled(1 / len(x.sample)))
    if dims == (lead + 1, lead + 2) and not value.flat:
        pooled = average(value, value.shape[1:])
        return tracer.made(x.sample.mean(dims, keepdim=keepdim), pooled.flattened(not keepdim))
    raise InputError("averages over something else than time, or rows and columns")


def _add(tracer: Tracer, a: Any, b: Any, *, alpha: float = 1) -> Traced:
    if not isinstance(a, Traced):
        a, b, alpha = (b, a, 1) if alpha == 1 else (_mul(tracer, b, alpha), a, 1)
    if isinstance(b, Traced):
        if alpha != 1:
            b = _mul(tracer, b, alpha)
        return tracer.made(a.sample + b.sample, value_of(a).plus(value_of(b)))
    if isinstance(b, Tensor) and b.numel() and not bool(b.any()):
        return tracer.made(a.sample, a.value)
    amount = _per_channel(a, b)
    return tracer.made(a.sample + b * alpha, value_of(a).shifted(amount * alpha))


def _sub(tracer: Tracer, a: Any, b: Any, *, alpha: float = 1) -> Traced:
    return _add(tracer, a, _mul(tracer, b, -alpha) if isinstance(b, Traced) else -alpha * b)


def _mul(tracer: Tracer, a: Any, b: Any) -> Traced:
    if isinstance(a, Traced) and isinstance(b, Traced):
        raise InputError("multiplies one traced tensor by another")
    x, factor = (a, b) if isinstance(a, Traced) else (b, a)
    return tracer.made(x.sample * factor, value_of(x).scaled(_per_channel(x, factor)))


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


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": _add, "sub": _sub, "rsub": lambda tracer, a, b, **kw: _sub(tracer, b, a, **kw), "mul": _mul, "div": _div,
    "neg": _neg, "negative": _neg, "sum": _sum, "mean": _mean,
}  # fmt: skip
"""By the name of the function or method."""
