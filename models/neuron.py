"""The leaky integrate-and-fire neuron with hard reset, real-valued or binary, with its surrogate gradient.

Forward, for every time step::

    U[t] = tau * U[t-1] * (not fired at t-1) + y[t]
    fired = U[t] >= v_th
    O[t] = U[t] where fired, else 0          (binary spikes: 1 where fired, else 0)

Backward: a real-valued spike passes the gradient where it fired, and its jump of ``v_th`` at the threshold is
smoothed over a window of width ``WINDOW``; a binary spike has the window only. The reset is not differentiated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["WINDOW", "lif"]

WINDOW = 1.0


class _Lif(torch.autograd.Function):
    """All steps at once. Written in whole-tensor passes without boolean masks, which are slow on CPUs."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, steps: int, tau: float, v_th: float, binary: bool) -> Tensor:
        static = current.shape[0] == 1 and steps > 1
        below = _just_below(v_th)
        membranes, spikes = [], []
        u, kept = current[0], torch.zeros(())
        for step in range(steps):
            if step:
                u = torch.add(current[0 if static else step], kept, alpha=tau)
            real = torch.threshold(u, below, 0.0)
            kept = u - real  # the membrane where it did not fire, zero where it did
            membranes.append(u)
            spikes.append((u >= v_th).to(u.dtype) if binary else real)
        ctx.save_for_backward(*membranes)
        ctx.settings = (tau, v_th, below, binary, static)
        return torch.stack(spikes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        tau, v_th, below, binary, static = ctx.settings
        results: list[Tensor] = []
        carried: Tensor | None = None
        for u, upper in zip(reversed(ctx.saved_tensors), reversed(grad.unbind(0)), strict=True):
            total = _through_spike(upper, u, v_th, below, binary)
            if carried is not None:
                stopped = torch.ops.aten.threshold_backward(carried, u, below)
                total = total.add_(carried - stopped, alpha=tau)
            carried = total
            results.append(total)
        stacked = torch.stack(results[::-1])
        return (stacked.sum(dim=0, keepdim=True) if static else stacked), None, None, None, None


def _just_below(v_th: float) -> float:
    """The largest float32 below `v_th`, so that the strict comparison of torch.threshold becomes ``>=``."""
    return float(np.nextafter(np.float32(v_th), np.float32(-np.inf)))


def _through_spike(grad: Tensor, u: Tensor, v_th: float, below: float, binary: bool) -> Tensor:
    """`grad` times dO/dU of the surrogate."""
    half = WINDOW / 2
    if binary:
        return torch.ops.aten.hardtanh_backward(grad, u, v_th - half, v_th + half).mul_(1 / WINDOW)
    passed = torch.ops.aten.threshold_backward(grad, u, below)
    if v_th == 0:
        return passed
    window = torch.ops.aten.hardtanh_backward(grad, u, v_th - half, v_th + half)
    return passed.add_(window, alpha=v_th / WINDOW)


def lif(current: Tensor, steps: int, tau: float, v_th: float, binary: bool = False) -> Tensor:
    """Spikes of `steps` time steps.

    Parameters
    ----------
    current : Tensor
        (T, ...) with T equal to `steps`, or (1, ...): the same current at every step.
    steps : int
        Time steps to compute.
    tau, v_th : float
        Leak and threshold.
    binary : bool
        Spikes of 1 instead of the membrane potential.

    Returns
    -------
    Tensor
        (steps, ...).
    """
    if steps == 1 and v_th == 0 and not binary:
        return torch.relu(current)  # the same values and the same gradient, in one pass
    return _Lif.apply(current, steps, tau, v_th, binary)
