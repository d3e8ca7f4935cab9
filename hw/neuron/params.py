"""Parameter memory of one neuron lane: two 32-bit words per group, one block RAM."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config

__all__ = ["ParamMemory"]


class ParamMemory(wiring.Component):
    """Words ``group * 2 + word`` of one lane.

    Members
    -------
    r_addr : In
    word : Out(32)
        Two cycles after ``r_addr``.
    w_addr, w_en, w_data : In
    """

    delay = 2

    def __init__(self, config: Config) -> None:
        self.depth = 2 * config.param_groups
        super().__init__(
            {
                "r_addr": In(range(self.depth)),
                "word": Out(32),
                "w_addr": In(range(self.depth)),
                "w_en": In(1),
                "w_data": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = memory.Memory(shape=32, depth=self.depth, init=[])
        read, write = store.read_port(), store.write_port()
        m.d.comb += [
            read.addr.eq(self.r_addr),
            write.addr.eq(self.w_addr),
            write.en.eq(self.w_en),
            write.data.eq(self.w_data),
        ]
        m.d.sync += self.word.eq(read.data)
        return m
