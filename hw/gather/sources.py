"""Sources that the walker has found wait here for a free table."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..contract import COUNT_BITS
from .shapes import source_layout

__all__ = ["SourceQueue"]

_DEPTH = 16


class SourceQueue(wiring.Component):
    """Lets the walker run ahead of the tables, so that a free one is filled at once.

    Without it, a table of few sources waits for the way from the walker's first step through the count memory.

    Members
    -------
    step : In(1)
        The walker makes a step, whose source is going to come.
    room : Out(1)
        It may make one.
    valid, source, count : In
        A source record and its number of events in each bank.
    table_free : In(1)
        Pulse: a table has been used up. There are ``tables``.
    out_valid, out_source, out_count : Out
        The same, once there is a table for it: from the first source of a table to its last, one in every cycle.
    """

    tables = 2
    delay = 2
    """Cycles that a source takes at least."""

    def __init__(self, config: Config) -> None:
        counts = data.ArrayLayout(COUNT_BITS, config.banks)
        super().__init__(
            {
                "step": In(1),
                "room": Out(1),
                "valid": In(1),
                "source": In(source_layout(config)),
                "count": In(counts),
                "table_free": In(1),
                "out_valid": Out(1),
                "out_source": Out(source_layout(config)),
                "out_count": Out(counts),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ahead = Signal(range(_DEPTH + 1))  # steps whose source has not left
        taken = Signal(range(self.tables + 1))  # tables being filled, full or being replayed
        waiting = Signal()  # in the registers of `out`
        width = len(self.source.as_value()) + len(self.count.as_value())
        m.submodules.queue = queue = fifo.SyncFIFO(width=width, depth=_DEPTH)
        m.d.comb += [
            queue.w_en.eq(self.valid),
            queue.w_data.eq(Cat(self.source, self.count)),
            queue.r_en.eq(~waiting | self.out_valid),
            self.out_valid.eq(waiting & (~self.out_source.first | (taken != self.tables))),
        ]
        m.d.sync += [
            ahead.eq(ahead + self.step - self.out_valid),
            self.room.eq(ahead < _DEPTH - 1),  # a step may be under way that is not counted yet
            taken.eq(taken + (self.out_valid & self.out_source.first) - self.table_free),
        ]
        with m.If(queue.r_en):
            m.d.sync += [waiting.eq(queue.r_rdy), Cat(self.out_source, self.out_count).eq(queue.r_data)]
        return m
