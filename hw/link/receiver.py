"""From bytes to checked frames in a buffer."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .. import contract
from ..crc import crc32
from .cobs import CobsDecoder

__all__ = ["BUFFER_BITS", "FrameReceiver"]

BUFFER_BITS = 11  # 2048 bytes: one block RAM
CRC_BYTES = 4
MIN_FRAME = 2 + CRC_BYTES  # opcode, sequence number
MAX_FRAME = 2 + 4 + contract.MAX_PAYLOAD + CRC_BYTES  # opcode, sequence number, address, payload


class FrameReceiver(wiring.Component):
    """Holds one frame at a time, and only a frame whose COBS, length and CRC are right.

    What arrives while a frame is held is dropped, and reported like a damaged frame.

    Members
    -------
    strobe, data, error : In(1), In(8), In(1)
        A byte; ``error``: it arrived damaged.
    valid : Out(1)
        A frame is held, until ``release``.
    length : Out(11)
        Its bytes: opcode, sequence number and body, without the CRC.
    addr : In(11)
        Byte to be read.
    r_data : Out(8)
        The byte at the ``addr`` of one cycle ago.
    release : In(1)
        The held frame is done with.
    bad : Out(1)
        Pulse: a frame was dropped (damaged, too short, too long, or one was held already).
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "strobe": In(1),
                "data": In(8),
                "error": In(1),
                "valid": Out(1),
                "length": Out(BUFFER_BITS),
                "addr": In(BUFFER_BITS),
                "r_data": Out(8),
                "release": In(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=1 << BUFFER_BITS, init=[])
        m.submodules.cobs = cobs = CobsDecoder()
        m.submodules.crc = crc = crc32(8)
        write, read = memory.write_port(), memory.read_port()
        count = Signal(BUFFER_BITS)
        begun = Signal()  # something came since the last separator
        spoiled = Signal()
        separator = self.strobe & ~self.error & (self.data == 0)
        good = cobs.complete & crc.match_detected & (count >= MIN_FRAME) & ~spoiled
        room = count != MAX_FRAME

        m.d.comb += [
            read.addr.eq(self.addr),
            read.en.eq(self.valid),
            self.r_data.eq(read.data),
            cobs.strobe.eq(self.strobe & ~self.error),
            cobs.data.eq(self.data),
            write.en.eq(cobs.o_strobe & ~self.valid & room),
            write.addr.eq(count),
            write.data.eq(cobs.o_data),
            crc.start.eq(separator),
            crc.data.eq(cobs.o_data),
            crc.valid.eq(cobs.o_strobe),
        ]
        m.d.sync += self.bad.eq(separator & begun & ~good)
        with m.If(self.release):
            m.d.sync += self.valid.eq(0)
        with m.If(separator):
            m.d.sync += [begun.eq(0), spoiled.eq(0), count.eq(0)]
            with m.If(begun & good):
                m.d.sync += [self.valid.eq(1), self.length.eq(count - CRC_BYTES)]
        with m.Elif(self.strobe):
            m.d.sync += begun.eq(1)
            with m.If(self.error | self.valid | (cobs.o_strobe & ~room)):
                m.d.sync += spoiled.eq(1)
            with m.Elif(cobs.o_strobe):
                m.d.sync += count.eq(count + 1)
        return m
