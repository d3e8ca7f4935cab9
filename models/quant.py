"""Quantisers with their gradients: sign, multi-bit weights, learned activation codes.

``quantise_multibit`` and ``quantise_ternary`` are the one definition of these weights; the compiler calls them on the
latent weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reverb_fpga.models.description import WeightSpec

__all__ = [
    "activation_codes",
    "binarise",
    "code_of",
    "effective_weight",
    "multibit_ste",
    "quantise_multibit",
    "quantise_ternary",
    "scaled_gradient",
    "sign_plus",
    "step_factor",
    "ternary_ste",
]


_JUST_ABOVE_ONE = 1 + 2**-23  # the next float32: turns a strict comparison with it into ``<= 1``


def sign_plus(x: Tensor) -> Tensor:
    """+1 where ``x >= 0``, else -1, in the type of `x`: ``sign(0) = +1``. No gradient."""
    return (x.detach() >= 0).to(x.dtype).mul_(2).sub_(1)  # a tenth of the time of torch.where


class _StraightThrough(torch.autograd.Function):
    """``quantiser(weight)``; the gradient passes where ``|weight| <= 1``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantiser: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(weight)
        return quantiser(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, weight, -_JUST_ABOVE_ONE, _JUST_ABOVE_ONE), None


def binarise(weight: Tensor) -> Tensor:
    """``sign(W)`` with the straight-through gradient: 1 where ``|W| <= 1``, else 0."""
    return _StraightThrough.apply(weight, sign_plus)


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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def multibit_ste(weight: Tensor, bits: int) -> Tensor:
    """``integers * scale`` of :func:`quantise_multibit`; the gradient passes straight through."""
    return _MultibitSte.apply(weight, bits)


def quantise_ternary(weight: Tensor) -> Tensor:
    """-1, 0 or 1 in the type of `weight` (out, ...): 0 where ``|W|`` is at most 0.7 of its mean over the channel.

    (Li and Liu, "Ternary Weight Networks", 2016; without their scale, which normalisation takes over.)
    """
    flat = weight.detach().reshape(weight.shape[0], -1)
    size = flat.abs()
    live = size > 0.7 * size.mean(dim=1, keepdim=True)
    return (torch.sign(flat) * live).reshape(weight.shape)


def ternary_ste(weight: Tensor) -> Tensor:
    """:func:`quantise_ternary` with the straight-through gradient: 1 where ``|W| <= 1``, else 0."""
    return _StraightThrough.apply(weight, quantise_ternary)


def effective_weight(weight: Tensor, spec: WeightSpec) -> Tensor:
    """What a map multiplies with, from latent weights (out, ...); differentiable."""
    if spec.kind == "binary":
        return binarise(weight)
    if spec.kind == "ternary":
        return ternary_ste(weight)
    if spec.kind == "scaled":
        flat = weight.abs().reshape(weight.shape[0], -1).mean(dim=1)
        return binarise(weight) * flat.reshape(-1, *([1] * (weight.dim() - 1)))
    if spec.kind == "multibit":
        return multibit_ste(weight, spec.bits)
    return weight


def code_of(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Activation codes ``clip(floor(x / scale + 0.5), 0, 2**bits - 1)``, in the type of `x`. No gradient."""
    return torch.floor(x.detach() / scale.detach() + 0.5).clamp_(0, 2**bits - 1)


class _Round(torch.autograd.Function):
    """Codes forward; backward straight through inside the range, nothing outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bits: int) -> Tensor:
        top = float(2**bits - 1)
        shifted = torch.addcmul(x.new_full((), 0.5), x, gain)
        ctx.save_for_backward(x, gain, shifted)
        ctx.top = top
        return torch.floor(shifted).clamp_(0, top)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, shifted = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward(grad, shifted, 0.5, ctx.top + 0.5)
        to_x = inside * gain
        return to_x, inside.mul_(x).sum_to_size(gain.shape), None


def activation_codes(x: Tensor, gain: Tensor, bits: int) -> Tensor:
    """``clip(floor(x * gain + 0.5), 0, 2**bits - 1)`` with the straight-through gradient to `x` and `gain`.

    `gain` broadcasts over `x`. The clip at zero is also the neuron of a network without time (``v_th = 0``): `x` may
    be its current.
    """
    return _Round.apply(x, gain, bits)


def scaled_gradient(parameter: Tensor, factor: float) -> Tensor:
    """`parameter` itself, whose gradient is multiplied by `factor`."""
    return parameter * factor + (parameter * (1 - factor)).detach()


def step_factor(count: int, bits: int) -> float:
    """Gradient factor of a step size that `count` values share (LSQ): ``1 / sqrt(count * top)``."""
    return float((count * (2**bits - 1)) ** -0.5)
