"""Quantisers with their gradients: sign, multi-bit weights, learned activation codes.

``quantise_multibit`` is the one definition of multi-bit weights; the compiler calls it on the latent weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["binarise", "code_of", "multibit_ste", "quantise_activation", "quantise_multibit", "sign_plus"]


def sign_plus(x: Tensor) -> Tensor:
    """+1 where ``x >= 0``, else -1, in the type of `x`: ``sign(0) = +1``. No gradient."""
    return torch.where(x.detach() >= 0, 1.0, -1.0).to(x.dtype)


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return sign_plus(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return grad * (weight.abs() <= 1)


def binarise(weight: Tensor) -> Tensor:
    """``sign(W)`` with the straight-through gradient: 1 where ``|W| <= 1``, else 0."""
    return _Binarise.apply(weight)


def quantise_multibit(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Symmetric integers and their scale per output channel (first dimension).

    Parameters
    ----------
    weight : Tensor
        Real weights, (out, ...).
    bits : int
        2..8; the integers lie in ``-(2**(bits-1) - 1) .. 2**(bits-1) - 1``.

    Returns
    -------
    (Tensor, Tensor)
        Integers of the shape of `weight` (in its float type, exact), and scales (out,), such that
        ``weight ~ integers * scale``. An all-zero channel has scale 1.
    """
    top = 2 ** (bits - 1) - 1
    flat = weight.detach().reshape(weight.shape[0], -1)
    peak = flat.abs().amax(dim=1)
    scale = torch.where(peak > 0, peak / top, torch.ones_like(peak))
    integers = torch.round(flat / scale[:, None]).clamp_(-top, top)
    return integers.reshape(weight.shape), scale


class _MultibitSte(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int) -> Tensor:
        integers, scale = quantise_multibit(weight, bits)
        return integers * scale.reshape(-1, *([1] * (weight.dim() - 1)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


def multibit_ste(weight: Tensor, bits: int) -> Tensor:
    """``integers * scale`` of :func:`quantise_multibit`; the gradient passes straight through."""
    return _MultibitSte.apply(weight, bits)


def code_of(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Activation codes ``clip(floor(x / scale + 0.5), 0, 2**bits - 1)``, in the type of `x`. No gradient."""
    return torch.floor(x.detach() / scale.detach() + 0.5).clamp_(0, 2**bits - 1)


class _QuantiseActivation(torch.autograd.Function):
    """Learned step size: codes times scale forward, straight-through to `x` inside the range, LSQ to `scale`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bits: int) -> Tensor:
        ratio = x / scale
        codes = torch.floor(ratio + 0.5).clamp_(0, 2**bits - 1)
        ctx.save_for_backward(ratio, codes)
        ctx.bits = bits
        return codes * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        ratio, codes = ctx.saved_tensors
        top = 2**ctx.bits - 1
        inside = (ratio >= 0) & (ratio <= top)
        grad_x = grad * inside
        # d(s * code)/ds is code - ratio inside, code (0 or top) outside; the factor keeps the step in proportion
        share = grad.mul(codes).sum() - grad_x.mul(ratio).sum()
        return grad_x, share / (ratio.numel() * top) ** 0.5, None


def quantise_activation(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """``scale * clip(floor(x / scale + 0.5), 0, 2**bits - 1)`` with learned step-size gradients.

    `x` is any shape, `scale` a positive scalar tensor. Gradient of `x`: 1 inside the range, 0 outside.
    """
    return _QuantiseActivation.apply(x, scale, bits)
