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
        u, kept = current[0], torch.zeros(())
        membranes, spikes = [], _stack_like(u, steps)
        for step in range(steps):
            if step:
                u = torch.add(current[0 if static else step], kept, alpha=tau)
            real = torch.ops.aten.threshold.out(u, below, 0.0, out=spikes[step])
            if step + 1 < steps:
                kept = u - real  # the membrane where it did not fire, zero where it did
            if binary:
                spikes[step].copy_(u >= v_th)
            membranes.append(u)
        ctx.save_for_backward(*membranes)
        ctx.settings = (tau, v_th, below, binary, static)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        tau, v_th, below, binary, static = ctx.settings
        membranes = ctx.saved_tensors
        results = _stack_like(membranes[0], len(membranes))
        carried: Tensor | None = None
        for step in range(len(membranes) - 1, -1, -1):
            u, total = membranes[step], results[step]
            _through_spike(grad[step], u, (v_th, below), binary, total)
            if carried is not None:
                stopped = torch.ops.aten.threshold_backward(carried, u, below)
                total.add_(carried - stopped, alpha=tau)
            carried = total
        return (results.sum(dim=0, keepdim=True) if static else results), None, None, None, None


def _stack_like(one: Tensor, steps: int) -> Tensor:
    """Uninitialised (steps, ...), every step in the memory order of `one`: channels-last stays channels-last."""
    return one.new_empty_strided((steps, *one.shape), (one.numel(), *one.stride()))


def _just_below(v_th: float) -> float:
    """The largest float32 below `v_th`, so that the strict comparison of torch.threshold becomes ``>=``."""
    return float(np.nextafter(np.float32(v_th), np.float32(-np.inf)))


def _through_spike(grad: Tensor, u: Tensor, levels: tuple[float, float], binary: bool, out: Tensor) -> None:
    """`out` becomes `grad` times dO/dU of the surrogate; `levels` are the threshold and the float just below it."""
    v_th, below = levels
    low, high = v_th - WINDOW / 2, v_th + WINDOW / 2
    if binary:
        torch.ops.aten.hardtanh_backward.grad_input(grad, u, low, high, grad_input=out)
        out.mul_(1 / WINDOW)
        return
    torch.ops.aten.threshold_backward.grad_input(grad, u, below, grad_input=out)
    if v_th > 0:
        out.add_(torch.ops.aten.hardtanh_backward(grad, u, low, high), alpha=v_th / WINDOW)


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
