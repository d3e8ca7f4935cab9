"""From response bytes to frames; the last numbered response is kept, to be sent again."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..crc import crc32
from ..signatures import byte_stream
from .cobs import CobsEncoder
from .receiver import BUFFER_BITS

__all__ = ["FrameTransmitter"]

KEPT, ASIDE = 0, 3 << (BUFFER_BITS - 2)  # the kept response at 0, short ones that must not replace it at 1536


class FrameTransmitter(wiring.Component):
    """Builds a response in a buffer, with its CRC, COBS-encoded, then sends it between two separators.

    Members
    -------
    start : In(1)
        Begins a response (also in the middle of building another, which is lost).
    aside : In(1)
        With ``start``: a short response that leaves the kept one as it is.
    payload : In(byte stream)
        Opcode, sequence number, status, body. Not in a cycle with ``start``.
    finish : In(1)
        All bytes are in: close it and send it.
    repeat : In(1)
        Send the kept response again.
    busy : Out(1)
        A frame is being closed or sent; nothing may be asked for. Bounded: a UART always takes bytes.
    bytes : Out(byte stream)
        To the UART.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "aside": In(1),
                "payload": In(byte_stream()),
                "finish": In(1),
                "repeat": In(1),
                "busy": Out(1),
                "bytes": Out(byte_stream()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=1 << BUFFER_BITS, init=[])
        m.submodules.cobs = cobs = CobsEncoder(BUFFER_BITS)
        m.submodules.crc = crc = crc32(8)
        write, read = memory.write_port(), memory.read_port()
        aside = Signal()
        kept_length = Signal(BUFFER_BITS)
        length = Signal(BUFFER_BITS)
        at = Signal(BUFFER_BITS)
        byte = Signal(2)
        base = Mux(aside, ASIDE, KEPT)

        m.d.comb += [
            cobs.start.eq(self.start),
            crc.start.eq(self.start),
            crc.data.eq(self.payload.payload),
            crc.valid.eq(self.payload.valid & self.payload.ready),
            write.en.eq(cobs.w_en),
            write.addr.eq(cobs.w_addr | base),
            write.data.eq(cobs.w_data),
            read.addr.eq(at | base),
        ]
        with m.If(self.start):
            m.d.sync += aside.eq(self.aside)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("BUILD"))
            with m.State("BUILD"):
                m.d.comb += [
                    cobs.bytes.valid.eq(self.payload.valid),
                    cobs.bytes.payload.eq(self.payload.payload),
                    self.payload.ready.eq(cobs.bytes.ready),
                ]
                m.d.sync += byte.eq(0)
                with m.If(self.finish):
                    m.next = "CRC"
                with m.Elif(self.repeat):
                    m.d.sync += [aside.eq(0), length.eq(kept_length)]
                    m.next = "LEAD"
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
