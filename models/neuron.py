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

import torch
from torch import Tensor

__all__ = ["WINDOW", "lif"]

WINDOW = 1.0


class _Lif(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, steps: int, tau: float, v_th: float, binary: bool) -> Tensor:
        static = current.dim() > 0 and current.shape[0] == 1 and steps > 1
        spikes = current.new_empty((steps, *current.shape[1:]))
        membranes = torch.empty_like(spikes)
        membrane: Tensor | None = None
        for step in range(steps):
            y = current[0] if static else current[step]
            u = membranes[step]
            if membrane is None:
                u.copy_(y)
            else:
                torch.add(y, membrane, alpha=tau, out=u)
            fired = u >= v_th
            if binary:
                spikes[step].copy_(fired)
            else:
                torch.mul(u, fired, out=spikes[step])
            membrane = u.masked_fill(fired, 0.0) if step + 1 < steps else None
        ctx.save_for_backward(membranes)
        ctx.settings = (tau, v_th, binary, static)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (membranes,) = ctx.saved_tensors
        tau, v_th, binary, static = ctx.settings
        result = torch.empty_like(membranes)
        carried: Tensor | None = None
        for step in range(membranes.shape[0] - 1, -1, -1):
            u = membranes[step]
            fired = u >= v_th
            slope = _slope(u, fired, v_th, binary)
            total = torch.mul(grad[step], slope, out=result[step])
            if carried is not None:
                total.add_(carried.masked_fill_(fired, 0.0), alpha=tau)
            carried = total.clone() if step else None
        if static:
            result = result.sum(dim=0, keepdim=True)
        return result, None, None, None, None


def _slope(u: Tensor, fired: Tensor, v_th: float, binary: bool) -> Tensor:
    """dO/dU of the surrogate, in the type of `u`."""
    if not binary and v_th == 0:
        return fired.to(u.dtype)
    window = ((u - v_th).abs() < WINDOW / 2).to(u.dtype).div_(WINDOW)
    if binary:
        return window
    return window.mul_(v_th).add_(fired)


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
