"""Gateware small enough to build in seconds."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Counter"]


class Counter(wiring.Component):
    """Adds ``step`` every cycle."""

    def __init__(self) -> None:
        super().__init__({"port": Out(wiring.Signature({"step": In(4), "count": Out(8)}))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.port.count.eq(self.port.count + self.port.step)
        return m
