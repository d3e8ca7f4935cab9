"""The sigmoid of a gate: a table of half of it (numerics.md section 3)."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Mux, Signal, Value

from ..contract import GATE_ONE, SIGMOID

__all__ = ["INDEX_BITS", "sigmoid", "sigmoid_value"]

INDEX_BITS = len(SIGMOID).bit_length()
"""Bits of its signed argument."""

_HALF = GATE_ONE // 2


def sigmoid(x: int) -> int:
    """Gate, 0..256, of ``x`` in sixteenths."""
    return SIGMOID[x] if x >= 0 else GATE_ONE - SIGMOID[-1 - x]


def sigmoid_value(x: Signal) -> Value:
    """Hardware twin of :func:`sigmoid`."""
    negative = x[-1]
    above = Array(Const(value - _HALF, 8) for value in SIGMOID)[x[:-1] ^ negative.replicate(INDEX_BITS - 1)]
    return _HALF + Mux(negative, -above, above)
