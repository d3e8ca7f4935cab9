"""The sigmoid of a gate as the target computes it: from a table, its argument cut to a sixteenth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reverb_fpga.hw.contract import GATE_ONE, GATES, SIGMOID_STEPS

__all__ = ["rounded_sigmoid"]

_BELOW = len(GATES) // 2  # arguments below 0


class _RoundedSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(torch.sigmoid(x))
        index = torch.floor(torch.nan_to_num(x) * SIGMOID_STEPS).clamp_(-_BELOW, len(GATES) - _BELOW - 1)
        gate = (torch.tensor(GATES, device=x.device) / GATE_ONE).to(x.dtype)[index.long() + _BELOW]
        return torch.where(x.isnan(), x, gate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (smooth,) = ctx.saved_tensors
        return grad * smooth * (1 - smooth)


def rounded_sigmoid(x: Tensor) -> Tensor:
    """``GATES[floor(16 x)] / 256``, saturated (docs/numerics.md section 3); the gradient is that of the sigmoid.

    `x` has any shape. The target's argument is that of a sum of rounded currents, in a unit that the compiler chooses:
    at a border between two sixteenths it may have the gate beside this one.
    """
    return _RoundedSigmoid.apply(x)
