"""Neuron parameters of the lanes of one datapath: a block RAM per parameter word."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..config import Config

__all__ = ["ParamMemory"]


class ParamMemory(wiring.Component):
    """One of the two words of all channels of these lanes; row ``group * ways + way``.

    Members
    -------
    r_addr : In
    word : Out(32)
        ``delay`` cycles after ``r_addr``.
    early : Out(32)
        The same one cycle earlier, straight from the block RAM.
    w_addr, w_en, w_data : In
    """

    delay = 2

    def __init__(self, config: Config) -> None:
        self.depth = config.neuron_ways * config.param_groups
        super().__init__(
            {
                "r_addr": In(range(self.depth)),
                "word": Out(contract.WORD_BITS),
                "early": Out(contract.WORD_BITS),
                "w_addr": In(range(self.depth)),
                "w_en": In(1),
                "w_data": In(contract.WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = memory.Memory(shape=contract.WORD_BITS, depth=self.depth, init=[])
        read, write = store.read_port(), store.write_port()
        m.d.comb += [
            read.addr.eq(self.r_addr),
            write.addr.eq(self.w_addr),
            write.en.eq(self.w_en),
            write.data.eq(self.w_data),
            self.early.eq(read.data),
        ]
        m.d.sync += self.word.eq(read.data)
        return m
