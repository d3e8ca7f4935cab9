"""From bytes to decoded and checked frames."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..crc import crc32
from .cobs import CobsDecoder
from .signatures import COUNT_BITS, Decoded, received_bytes

__all__ = ["Deframer"]


class Deframer(wiring.Component):
    """Finds frames between zeros, decodes them and checks their CRC. Takes a byte in every clock.

    Members
    -------
    bytes : In(received bytes)
        Always ready.
    frame : Out(Decoded)
        One clock behind.
    """

    def __init__(self) -> None:
        super().__init__({"bytes": In(received_bytes()), "frame": Out(Decoded())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cobs = cobs = CobsDecoder()
        m.submodules.crc = crc = crc32(8)
        frame = self.frame
        arrived, damaged = self.bytes.valid, self.bytes.payload.error
        begun, spoiled = Signal(), Signal()  # something came since the last separator; a byte of it was damaged
        separator = arrived & ~damaged & (self.bytes.payload.data == 0)
        last = (1 << COUNT_BITS) - 1

        m.d.comb += [
            self.bytes.ready.eq(1),
            cobs.strobe.eq(arrived & ~damaged),
            cobs.data.eq(self.bytes.payload.data),
            crc.start.eq(separator),
            crc.data.eq(cobs.o_data),
            crc.valid.eq(cobs.o_strobe),
        ]
        m.d.sync += [
            frame.strobe.eq(cobs.o_strobe),
            frame.data.eq(cobs.o_data),
            frame.end.eq(separator & begun),
            frame.good.eq(cobs.complete & crc.match_detected & ~spoiled),
        ]
        with m.If(separator):
            m.d.sync += [begun.eq(0), spoiled.eq(0)]
        with m.Elif(arrived):
            m.d.sync += begun.eq(1)
            with m.If(damaged):
                m.d.sync += spoiled.eq(1)
        with m.If(frame.end):
            m.d.sync += frame.count.eq(0)
        with m.Elif(frame.strobe & (frame.count != last)):
            m.d.sync += frame.count.eq(frame.count + 1)
        return m
