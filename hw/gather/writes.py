"""Events on their way into a bank: they wait for a cycle in which nobody reads with its second port."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..memory import DISTRIBUTED
from ..signatures import event_layout
from .shapes import act_addr_width

__all__ = ["WriteQueue"]

_DEPTH = 16  # what one cell of distributed RAM holds


class WriteQueue(wiring.Component):
    """A few events, each stored when the second port is spare, or soon enough that there is always room.

    Members
    -------
    en, addr, data : In
        An event to be stored; it may come every cycle.
    spare : In(1)
        The second port is free in this cycle. Always where ``force`` is.
    force : Out(1)
        The second port is taken in this cycle.
    w_en, w_addr, w_data : Out
        Stored in this cycle, the earliest one that of the arrival's successor.
    """

    full = _DEPTH - 2
    """Events from which on one takes the port: another may come in the cycle in which that is decided."""

    def __init__(self, config: Config) -> None:
        events = event_layout().size
        self.layout = data.StructLayout({"addr": act_addr_width(config), "data": events})
        addr, word = In(act_addr_width(config)), In(events)
        super().__init__(
            {
                "en": In(1),
                "addr": addr,
                "data": word,
                "spare": In(1),
                "force": Out(1),
                "w_en": Out(1),
                "w_addr": addr.flip(),
                "w_data": word.flip(),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = memory.Memory(shape=self.layout, depth=_DEPTH, init=[], attrs=DISTRIBUTED)
        write, read = store.write_port(), store.read_port(domain="comb")
        head, tail = Signal(range(_DEPTH)), Signal(range(_DEPTH))
        level, any_left, nearly_full = Signal(range(_DEPTH + 1)), Signal(), Signal()
        following = Signal.like(level)
        m.d.comb += [
            write.addr.eq(tail),
            write.data.addr.eq(self.addr),
            write.data.data.eq(self.data),
            write.en.eq(self.en),
            read.addr.eq(head),
            self.w_addr.eq(read.data.addr),
            self.w_data.eq(read.data.data),
            self.w_en.eq(any_left & self.spare),
            following.eq(level + self.en - self.w_en),
        ]
        m.d.sync += [
            level.eq(following),
            any_left.eq(following != 0),
            head.eq(head + self.w_en),
            tail.eq(tail + self.en),
            nearly_full.eq(following >= self.full),
            self.force.eq(nearly_full),  # a register that may stand where it is read
        ]
        return m
