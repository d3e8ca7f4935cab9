"""Carry chains of an ECP5 whose LUTs compute something of their own on the way."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Const, Instance, Module, Signal, Value

__all__ = ["carry_chain"]


def carry_chain(m: Module, lut: int, bits: Sequence[tuple[Value, ...]]) -> Signal:
    """Sums of a chain of CCU2C, which starts without a carry.

    Parameters
    ----------
    m : Module
        Gets the cells.
    lut : int
        INIT of every LUT4.
    bits : sequence of (A, B, C, D)
        Inputs of each; an even number of them.
    """
    sums = Signal(len(bits))
    carry: Value = Const(0, 1)
    for k in range(0, len(bits), 2):
        carry_out = Signal(name=f"carry_{k}")
        m.submodules[f"add_{k}"] = Instance(
            "CCU2C",
            p_INIT0=Const(lut, 16),
            p_INIT1=Const(lut, 16),
            p_INJECT1_0="NO",
            p_INJECT1_1="NO",
            i_CIN=carry,
            **{f"i_{pin}0": value for pin, value in zip("ABCD", bits[k], strict=True)},
            **{f"i_{pin}1": value for pin, value in zip("ABCD", bits[k + 1], strict=True)},
            o_S0=sums[k],
            o_S1=sums[k + 1],
            o_COUT=carry_out,
        )
        carry = carry_out
    return sums
