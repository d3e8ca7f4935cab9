"""Resets by way of a register, so that a simulation does not compute the whole design again for the sake of a pin."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["SampledResets"]


class SampledResets(wiring.Component):
    """A component whose ``rst`` and ``reset`` take effect one clock after the pins; its other ports are its own.

    Amaranth writes a reset into what every register becomes next. With a pin there, nearly all logic hangs on an input,
    and Verilator computes what does at every call: twice in a clock, beside the once that it takes.

    Whoever drives it gives it one clock more after a reset has gone, in which it is still reset and takes nothing.

    Parameters
    ----------
    component : wiring.Component
        One clock domain ``sync``; perhaps with an input ``reset`` of its own.

    Members
    -------
    clk, rst : In(1)
        Of ``sync``.
    """

    def __init__(self, component: wiring.Component) -> None:
        self.component = component
        super().__init__({"clk": In(1), "rst": In(1), **component.signature.members})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sampled = self.component
        m.domains.sync = sync = ClockDomain("sync")
        m.domains.pins = pins = ClockDomain("pins", reset_less=True, local=True)
        sync.clk = pins.clk = self.clk
        m.d.pins += sync.rst.eq(self.rst)
        for path, member, inner in self.component.signature.flatten(self.component):
            outer = self
            for step in path:
                outer = outer[step] if isinstance(step, int) else getattr(outer, step)
            if path == ("reset",):
                m.d.pins += inner.eq(outer)
            elif member.flow == In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        return m
