"""Float weights as the integers that the target multiplies with: recognised where they are such, else rounded."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.models.quant import quantise_multibit

__all__ = ["ROUNDED_BITS", "Integers", "exact_integers", "integers_of", "unrounded"]

ROUNDED_BITS = 8
_TOLERANCE = 1e-4  # of one integer: float32 weights that are integers times a scale are this close

Reals = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Integers:
    """``weight ~ integers * scale`` per output channel.

    Parameters
    ----------
    integers : int64 array (C_out, ...)
        Numbers that are no integers only as :func:`unrounded` gives them.
    exact : bool
        Recognised, not rounded.
    error : float
        Root of the mean squared error over that of the weights; 0 if exact.
    """

    integers: Ints | Reals
    scale: Reals
    kind: WeightKind
    bits: int
    exact: bool
    error: float = 0.0


def exact_integers(weight: Reals) -> Integers | None:
    """Weights (C_out, ...) that are binary, ternary or 2..8-bit integers, each channel with a scale of its own; None
    for others.
    """
    flat = weight.reshape(len(weight), -1)
    peak = np.abs(flat).max(axis=1)
    peak = np.where(peak > 0, peak, 1.0)
    if np.all(np.abs(np.abs(flat) - peak[:, None]) <= _TOLERANCE * peak[:, None]):
        signs = np.where(weight >= 0, 1, -1).astype(np.int64)
        return Integers(signs, peak, WeightKind.BINARY, 1, exact=True)
    found = _recognised(flat, peak)
    if found is None:
        return None
    tops, integers = found
    integers = integers.reshape(weight.shape)
    if tops.max() == 1:
        return Integers(integers, peak, WeightKind.TERNARY, 1, exact=True)
    bits = int(tops.max()).bit_length() + 1
    return Integers(integers, peak / tops, WeightKind.MULTIBIT, bits, exact=True)


def integers_of(weight: Reals) -> Integers:
    """Weights (C_out, ...) as integers: exactly, else rounded to 8 bits as the trainer rounds them
    (:func:`~reverb_fpga.models.quant.quantise_multibit`).
    """
    if (found := exact_integers(weight)) is not None:
        return found
    rounded, scales = quantise_multibit(torch.from_numpy(weight), ROUNDED_BITS)
    integers, scale = rounded.numpy().astype(np.int64), scales.numpy()
    off = np.square((integers.T * scale).T - weight).sum()
    wrong = off / max(np.square(weight).sum(), np.finfo(float).tiny)
    return Integers(integers, scale, WeightKind.MULTIBIT, ROUNDED_BITS, exact=False, error=float(np.sqrt(wrong)))


def unrounded(weight: Reals) -> Integers:
    """The weights as they are, for checks in floating point: "integers" that are none, times 1."""
    return Integers(weight, np.ones(len(weight)), WeightKind.MULTIBIT, ROUNDED_BITS, exact=True)


def _recognised(flat: Reals, peak: Reals) -> tuple[Reals, Ints] | None:
    """The largest integer of every channel, and all integers; None if some channel has no such scale."""
    tops = np.zeros(len(flat))
    integers = np.zeros(flat.shape, dtype=np.int64)
    left = np.arange(len(flat))
    for top in range(1, 1 << (ROUNDED_BITS - 1)):
        scaled = flat[left] * (top / peak[left])[:, None]
        close = np.abs(scaled - np.rint(scaled)).max(axis=1) <= _TOLERANCE
        tops[left[close]] = top
        integers[left[close]] = np.rint(scaled[close]).astype(np.int64)
        left = left[~close]
        if not len(left):
            return tops, integers
    return None
