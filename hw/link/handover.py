"""Between those who make frames and the one who sends them: a few bytes and commands in a queue."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from .signatures import Response

__all__ = ["Handover"]

_DEPTH = 8


class Handover(wiring.Component):
    """A :class:`Response` some clocks later, in the same order.

    The transmitter may stand anywhere on the device: neither what makes the bytes nor what takes them waits for the
    other in the same cycle, and what goes to and fro does so between registers.

    Members
    -------
    maker : In(Response)
        ``start``, ``finish`` and ``repeat`` are always taken, not two of them in one cycle, nor one with a byte.
    sender : Out(Response)
    """

    def __init__(self) -> None:
        super().__init__({"maker": In(Response()), "sender": Out(Response())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        maker, sender = self.maker, self.sender
        layout = data.StructLayout({"start": 1, "aside": 1, "finish": 1, "repeat": 1, "byte": 8})
        m.submodules.queue = queue = fifo.SyncFIFO(width=layout.size, depth=_DEPTH)
        arriving, first = Signal(layout, name="arriving"), Signal(layout, name="first")
        taken, arrived = Signal(), Signal()  # from the maker, into `arriving`
        waiting, is_byte, command = Signal(), Signal(), Signal()  # waiting: in `first`
        m.d.comb += [
            command.eq(maker.start | maker.finish | maker.repeat),
            taken.eq(command | (maker.payload.valid & maker.payload.ready)),
            queue.w_en.eq(arrived),
            queue.w_data.eq(arriving),
        ]
        m.d.sync += [
            arrived.eq(taken),
            arriving.start.eq(maker.start),
            arriving.aside.eq(maker.aside),
            arriving.finish.eq(maker.finish),
            arriving.repeat.eq(maker.repeat),
            arriving.byte.eq(maker.payload.payload),
        ]
        m.d.comb += [
            is_byte.eq(~(first.start | first.finish | first.repeat)),
            sender.start.eq(waiting & first.start),
            sender.aside.eq(first.aside),
            sender.finish.eq(waiting & first.finish),
            sender.repeat.eq(waiting & first.repeat),
            sender.payload.valid.eq(waiting & is_byte),
            sender.payload.payload.eq(first.byte),
            queue.r_en.eq(~waiting | ~is_byte | sender.payload.ready),
        ]
        with m.If(queue.r_en):
            m.d.sync += [waiting.eq(queue.r_rdy), first.eq(queue.r_data)]
        m.d.sync += [
            maker.busy.eq(sender.busy | waiting | (queue.level != 0) | arrived | taken),
            # one has arrived, one comes now, a byte and two commands may come with what is said here
            maker.payload.ready.eq(queue.level <= _DEPTH - 5),
        ]
        return m
