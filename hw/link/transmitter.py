"""From a frame's bytes to the line; the last numbered response is kept, to be sent again."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..crc import crc32
from ..signatures import byte_stream
from .cobs import CobsEncoder
from .signatures import COUNT_BITS, Response

__all__ = ["FrameTransmitter"]

KEPT, ASIDE = 0, 3 << (COUNT_BITS - 2)  # the kept response at 0, short frames that must not replace it at 1536


class FrameTransmitter(wiring.Component):
    """Builds a frame in a buffer, with its CRC, COBS-encoded, then sends it between two separators.

    Members
    -------
    response : In(Response)
        ``busy`` is bounded if the line takes bytes.
    bytes : Out(byte stream)
        To the line.
    """

    def __init__(self) -> None:
        super().__init__({"response": In(Response()), "bytes": Out(byte_stream())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=1 << COUNT_BITS, init=[])
        m.submodules.cobs = cobs = CobsEncoder(COUNT_BITS)
        m.submodules.crc = crc = crc32(8)
        write, read = memory.write_port(), memory.read_port()
        response = self.response
        aside, finishing = Signal(), Signal()
        kept_length, length, at = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal(COUNT_BITS)
        byte = Signal(2)
        base = Mux(aside, ASIDE, KEPT)
        # A byte waits here for a clock: those who make frames choose it from many.
        held, valid = Signal(8), Signal()
        taken = response.payload.valid & response.payload.ready

        m.d.comb += [
            cobs.start.eq(response.start),
            crc.start.eq(response.start),
            crc.data.eq(held),
            write.en.eq(cobs.w_en),
            write.addr.eq(cobs.w_addr | base),
            write.data.eq(cobs.w_data),
            read.addr.eq(at | base),
        ]
        with m.If(response.start):
            m.d.sync += [aside.eq(response.aside), valid.eq(0), finishing.eq(0)]
        with m.FSM() as fsm:
            m.d.comb += response.busy.eq(~fsm.ongoing("BUILD") | finishing)
            with m.State("BUILD"):
                m.d.comb += [
                    cobs.bytes.valid.eq(valid),
                    cobs.bytes.payload.eq(held),
                    crc.valid.eq(valid & cobs.bytes.ready),
                    response.payload.ready.eq(~response.start & ~finishing & (~valid | cobs.bytes.ready)),
                ]
                m.d.sync += byte.eq(0)
                with m.If(~response.start):
                    m.d.sync += valid.eq(taken | valid & ~cobs.bytes.ready)
                    with m.If(taken):
                        m.d.sync += held.eq(response.payload.payload)
                with m.If(response.finish):
                    m.d.sync += finishing.eq(1)
                with m.Elif(response.repeat):
                    m.d.sync += [aside.eq(0), length.eq(kept_length)]
                    m.next = "LEAD"
                with m.If(finishing & ~valid):
                    m.d.sync += finishing.eq(0)
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [
                    cobs.bytes.valid.eq(1),
                    cobs.bytes.payload.eq(Array(crc.crc.word_select(i, 8) for i in range(4))[byte]),
                ]
                with m.If(cobs.bytes.ready):
                    m.d.sync += byte.eq(byte + 1)
                    with m.If(byte == 3):
                        m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += cobs.finish.eq(1)
                m.d.sync += length.eq(cobs.length)
                with m.If(~aside):
                    m.d.sync += kept_length.eq(cobs.length)
                m.next = "LEAD"
            with m.State("LEAD"):
                m.d.comb += self.bytes.valid.eq(1)
                m.d.sync += at.eq(0)
                with m.If(self.bytes.ready):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += read.en.eq(1)
                m.next = "SEND"
                with m.If(at == length):
                    m.next = "TAIL"
            with m.State("SEND"):
                m.d.comb += [self.bytes.valid.eq(1), self.bytes.payload.eq(read.data)]
                with m.If(self.bytes.ready):
                    m.d.sync += at.eq(at + 1)
                    m.next = "FETCH"
            with m.State("TAIL"):
                m.d.comb += self.bytes.valid.eq(1)
                with m.If(self.bytes.ready):
                    m.next = "BUILD"
        return m
