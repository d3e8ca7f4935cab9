"""The skip memory of one pair of neuron lanes: currents of one leg of a layer, for the next leg to add."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..memory import BLOCK
from .fixed import delayed

__all__ = ["SkipMemory"]


class SkipMemory(wiring.Component):
    """Rows of ``width`` bits, signed, of lanes 2i and 2i+1: every (position, step, group) of a strip.

    A row is never read for its content in the cycle in which it is written: a strip reads and writes every row once,
    and the write comes later.

    Parameters
    ----------
    depth, width : int
        Rows, and bits of a row.

    Members
    -------
    r_addr : In
    add : In(1)
        With ``r_addr``: 0 makes ``value`` 0.
    value : Out(signed(width))
        ``delay`` cycles after ``r_addr``.
    early : Out(signed(width))
        Whatever lies there, one cycle earlier, straight from the block RAM.
    w_addr, w_en, w_data : In
        Where ``w_data`` goes. It is stored a cycle later.
    """

    delay = 3
    store_delay = 1

    def __init__(self, depth: int, width: int) -> None:
        self.depth = depth
        self.width = width
        address = range(depth)
        super().__init__(
            {
                "r_addr": In(address),
                "add": In(1),
                "value": Out(signed(width)),
                "early": Out(signed(width)),
                "w_addr": In(address),
                "w_en": In(1),
                "w_data": In(signed(width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.width
        m.submodules.store = store = memory.Memory(shape=signed(width), depth=self.depth, init=[], attrs=BLOCK)
        read, write = store.read_port(), store.write_port()
        # addresses are copied into registers of the pair, for the fan-out
        r_addr = Signal(self.r_addr.shape())
        m.d.sync += r_addr.eq(self.r_addr)
        m.d.comb += [read.addr.eq(r_addr), self.early.eq(read.data)]
        m.d.sync += self.value.eq(Mux(delayed(m, self.add, 2, "add"), read.data, 0))
        w_addr, w_en, w_data = Signal(self.w_addr.shape()), Signal(), Signal(signed(width))
        m.d.sync += [w_addr.eq(self.w_addr), w_en.eq(self.w_en), w_data.eq(self.w_data)]
        m.d.comb += [write.addr.eq(w_addr), write.en.eq(w_en), write.data.eq(w_data)]
        return m
