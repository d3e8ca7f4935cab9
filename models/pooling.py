"""Pooling of batches, and the running average that makes pooled convolutions cheap."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.models.description import Pair, PoolSpec

__all__ = ["bordered", "pooled", "running_average"]


def pooled(x: Tensor, pool: PoolSpec | None) -> Tensor:
    """(N, C, H, W) pooled; `x` itself without a pool."""
    if pool is None:
        return x
    if pool.kind == "max":
        return F.max_pool2d(x, pool.window, pool.stride, pool.padding)
    return F.avg_pool2d(x, pool.window, pool.stride, pool.padding)


class _RunningAverage(torch.autograd.Function):
    """Its backward is the running average of the gradient with a border of zeros: torch's own scatters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair) -> Tensor:
        ctx.window = window
        return F.avg_pool2d(x, window, stride=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        height, width = ctx.window
        if max(ctx.window) == 2:
            return F.avg_pool2d(grad, ctx.window, stride=1, padding=(height - 1, width - 1)), None
        return F.avg_pool2d(bordered(grad, (height - 1, width - 1)), ctx.window, stride=1), None


def running_average(x: Tensor, window: Pair) -> Tensor:
    """Average over every window (height, width) of (N, C, H, W): (N, C, H - height + 1, W - width + 1)."""
    return _RunningAverage.apply(x, window)


def bordered(x: Tensor, border: Pair) -> Tensor:
    """(N, C, H, W) with so many rows and columns of zeros on every side."""
    height, width = border
    return F.pad(x, (width, width, height, height)) if height or width else x
