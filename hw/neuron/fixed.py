"""Fixed-point helpers: exact Python integers, and the Amaranth expressions that equal them."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, ValueLike, signed
from amaranth.lib import data

from .. import contract

__all__ = [
    "MUL_SPLIT",
    "delayed",
    "delayed_view",
    "limits",
    "saturate",
    "saturated",
    "shift_right_mux",
    "split_multiply",
    "truncated",
]

MUL_SPLIT = contract.MULTIPLICAND_BITS // 2
"""Bits of the unsigned low half of a wide operand: what an 18x18 signed multiplier takes besides the sign."""


def limits(width: int) -> tuple[int, int]:
    """Smallest and largest signed integer of ``width`` bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def saturated(value: int, width: int) -> int:
    """``value`` clipped to ``width`` signed bits."""
    low, high = limits(width)
    return max(low, min(high, value))


def truncated(value: int, width: int) -> int:
    """The low ``width`` bits of ``value``, signed."""
    half = 1 << (width - 1)
    return ((value + half) & (2 * half - 1)) - half


def saturate(value: Value, width: int) -> Value:
    """Hardware twin of :func:`saturated` for a signed ``value`` wider than ``width``: ``width`` bits, signed."""
    sign = value[-1]
    overflow = value[width - 1 :].any() & ~value[width - 1 :].all()
    clipped = Cat(sign.__invert__().replicate(width - 1), sign)
    return Mux(overflow, clipped, value[:width]).as_signed()


def delayed(m: Module, value: ValueLike, cycles: int, name: str) -> Value:
    """``value`` as it was ``cycles`` clock cycles ago (registers, reset to zero)."""
    current = Value.cast(value)
    shape: Shape = current.shape()
    for index in range(cycles):
        register = Signal(shape, name=f"{name}_d{index + 1}")
        m.d.sync += register.eq(current)
        current = register
    return current


def delayed_view(m: Module, view: data.View, cycles: int, name: str) -> data.View:
    """:func:`delayed` for a struct."""
    return data.View(view.shape(), delayed(m, view, cycles, name))


def split_multiply(m: Module, a: Value, b: Value, name: str) -> Signal:
    """Exact product of signed ``a`` (up to 35 bits) and signed ``b`` (up to 18 bits), valid two cycles later.

    One or two multipliers with registers behind them, then an addition, so that no cycle holds more than one of either.
    """
    product = Signal(signed(len(a) + len(b)), name=f"{name}_product")
    if len(a) <= MUL_SPLIT + 1:
        single = Signal(signed(len(a) + len(b)), name=f"{name}_single")
        m.d.sync += [single.eq(a * b), product.eq(single)]
        return product
    low = Signal(signed(MUL_SPLIT + 1 + len(b)), name=f"{name}_low")
    high = Signal(signed(len(a) - MUL_SPLIT + len(b)), name=f"{name}_high")
    m.d.sync += [
        low.eq(Cat(a[:MUL_SPLIT], 0).as_signed() * b),
        high.eq(a[MUL_SPLIT:].as_signed() * b),
        # the low bits of the low product pass by the adder
        product.eq(Cat(low[:MUL_SPLIT], (low[MUL_SPLIT:].as_signed() + high)[: len(product) - MUL_SPLIT])),
    ]
    return product


def shift_right_mux(value: Value, select: Value, step: int) -> Value:
    """Signed ``value`` shifted right by ``select * step``: one multiplexer level, width kept."""
    choices = [Value.cast(value >> (step * n)) for n in range(1 << len(select))]
    widened = [Cat(c, value[-1].replicate(len(value) - len(c))) for c in choices]
    result = widened[0]
    for n, choice in enumerate(widened[1:], start=1):
        result = Mux(select == n, choice, result)
    return result.as_signed()
