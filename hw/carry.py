"""Carry chains of an ECP5 whose LUTs compute something of their own on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from amaranth.hdl import Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["NOTHING", "ControlledAdder", "Platform", "carry_chain"]

Platform = Literal["generic", "ecp5"]
"""Plain operators, or carry chains of the ECP5 that compute the same."""

NOTHING = (Const(0, 1), Const(0, 1), Const(0, 1), Const(1, 1))
"""Inputs of a bit that adds nothing. C = 0 costs nothing beside D = 1; with both 0, nextpnr leads a wire there."""

# LUT4 of a CCU2C; the lower four bits are A, the carry where A and what is added to it are alike.
_ADD_MASKED = 0x6A6A  # A ^ (B & C)
_ADD_INVERTED = 0x96AA  # A ^ B ^ C, where D is 1


def carry_chain(m: Module, lut: int, bits: Sequence[tuple[Value, ...]], name: str = "add") -> Signal:
    """Sums of a chain of CCU2C, which starts without a carry.

    Parameters
    ----------
    m : Module
        Gets the cells.
    lut : int
        INIT of every LUT4.
    bits : sequence of (A, B, C, D)
        Inputs of each, constants or one bit wide.
    name : str
        What the cells' names begin with, unique in ``m``.
    """
    sums = Signal(len(bits))
    bits = [*bits, NOTHING][: len(bits) + len(bits) % 2]
    results = Signal(len(bits))
    m.d.comb += sums.eq(results)
    carry: Value = Const(0, 1)
    for k in range(0, len(bits), 2):
        carry_out = Signal(name=f"carry_{k}")
        m.submodules[f"{name}_{k}"] = Instance(
            "CCU2C",
            p_INIT0=Const(lut, 16),
            p_INIT1=Const(lut, 16),
            p_INJECT1_0="NO",
            p_INJECT1_1="NO",
            i_CIN=carry,
            **{f"i_{pin}0": value for pin, value in zip("ABCD", bits[k], strict=True)},
            **{f"i_{pin}1": value for pin, value in zip("ABCD", bits[k + 1], strict=True)},
            o_S0=results[k],
            o_S1=results[k + 1],
            o_COUT=carry_out,
        )
        carry = carry_out
    return sums


class ControlledAdder(wiring.Component):
    """``a + (b if control else 0)``, or ``a + ~b`` instead of ``a + b``; no register, one LUT per bit on ECP5.

    Parameters
    ----------
    width : int
    inverts : bool
        ``control`` inverts b; else it lets b pass.
    platform : "generic" or "ecp5"

    Members
    -------
    a, b : In(width)
    control : In(1)
    o : Out(width)
    """

    def __init__(self, width: int, inverts: bool, platform: Platform = "generic") -> None:
        self.width = width
        self.inverts = inverts
        self.platform: Platform = platform
        super().__init__({"a": In(width), "b": In(width), "control": In(1), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.platform == "generic":
            other = self.b ^ self.control.replicate(self.width) if self.inverts else Mux(self.control, self.b, 0)
            m.d.comb += self.o.eq(self.a + other)
            return m
        bits = [(self.a[k], self.b[k], self.control, Const(1, 1)) for k in range(self.width)]
        m.d.comb += self.o.eq(carry_chain(m, _ADD_INVERTED if self.inverts else _ADD_MASKED, bits))
        return m
