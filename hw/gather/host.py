"""Host-bus leaf in front of a group of memories, one per bank (and per 32-bit word of a row)."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..memory import DualReadMemory
from ..signatures import LocalBus

__all__ = ["HostLeaf"]


class HostLeaf(wiring.Component):
    """Splits an offset ``row * memories + memory``, and picks the answer ``DualReadMemory.delay`` cycles later.

    Parameters
    ----------
    memories : int
        Power of two.
    addr_width : int
        Bits of a row number; higher bits are ignored.
    width : int
        Bits of a word, at most 32.

    Members
    -------
    bus : In(LocalBus())
    active : Out(1)
        The host uses the memories in this cycle: their port B takes ``addr``.
    addr : Out(addr_width)
    w_en : Out(memories)
    w_data : Out(width)
    r_data : In(ArrayLayout(width, memories))
    """

    def __init__(self, memories: int, addr_width: int, width: int) -> None:
        self.select_bits = exact_log2(memories)
        super().__init__(
            {
                "bus": In(LocalBus()),
                "active": Out(1),
                "addr": Out(addr_width),
                "w_en": Out(memories),
                "w_data": Out(width),
                "r_data": In(data.ArrayLayout(width, memories)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        select = self.bus.addr[: self.select_bits]
        m.d.comb += [
            self.active.eq(self.bus.r_en | self.bus.w_en),
            self.addr.eq(self.bus.addr[self.select_bits :]),
            self.w_en.eq(self.bus.w_en << select),
            self.w_data.eq(self.bus.w_data),
        ]
        chosen = [select]
        for k in range(DualReadMemory.delay):
            later = Signal(self.select_bits, name=f"select_{k}")
            m.d.sync += later.eq(chosen[-1])
            chosen.append(later)
        m.d.comb += self.bus.r_data.eq(self.r_data[chosen[-1]])
        return m
