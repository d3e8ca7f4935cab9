"""Between those who make frames and the one who sends them: a few bytes and commands in a queue."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from .signatures import Response

__all__ = ["Handover"]

_DEPTH = 4


class Handover(wiring.Component):
    """A :class:`Response` some clocks later, in the same order.

    The transmitter may stand anywhere on the device: neither what makes the bytes nor what takes them waits for the
    other in the same cycle.

    Members
    -------
    maker : In(Response)
        ``start``, ``finish`` and ``repeat`` are always taken, not two of them in one cycle, nor one with a byte.
    sender : Out(Response)
    """

    delay = 1
    """Cycles from a byte or a command of the maker's to the sender, if none is before it."""

    def __init__(self) -> None:
        super().__init__({"maker": In(Response()), "sender": Out(Response())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        maker, sender = self.maker, self.sender
        layout = data.StructLayout({"start": 1, "aside": 1, "finish": 1, "repeat": 1, "byte": 8})
        m.submodules.queue = queue = fifo.SyncFIFO(width=layout.size, depth=_DEPTH)
        arriving, first = data.View(layout, queue.w_data), data.View(layout, queue.r_data)
        is_byte, command = Signal(), Signal()
        m.d.comb += [
            command.eq(maker.start | maker.finish | maker.repeat),
            queue.w_en.eq(command | (maker.payload.valid & maker.payload.ready)),
            arriving.start.eq(maker.start),
            arriving.aside.eq(maker.aside),
            arriving.finish.eq(maker.finish),
            arriving.repeat.eq(maker.repeat),
            arriving.byte.eq(maker.payload.payload),
            is_byte.eq(~(first.start | first.finish | first.repeat)),
            sender.start.eq(queue.r_rdy & first.start),
            sender.aside.eq(first.aside),
            sender.finish.eq(queue.r_rdy & first.finish),
            sender.repeat.eq(queue.r_rdy & first.repeat),
            sender.payload.valid.eq(queue.r_rdy & is_byte),
            sender.payload.payload.eq(first.byte),
            queue.r_en.eq(~is_byte | sender.payload.ready),
            maker.busy.eq(sender.busy | (queue.level != 0)),
        ]
        # as if a byte and a command came still: there is always room for a command
        m.d.sync += maker.payload.ready.eq(queue.level + queue.w_en < _DEPTH - 2)
        return m
