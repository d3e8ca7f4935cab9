"""Consistent overhead byte stuffing: frames without a zero, so that zero can separate them."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..signatures import byte_stream

__all__ = ["CobsDecoder", "CobsEncoder"]

FULL_BLOCK = 255  # code of a block of 254 bytes that stands for no zero


class CobsDecoder(wiring.Component):
    """Decodes byte by byte; at most one byte out per byte in, in the same cycle.

    Members
    -------
    strobe, data : In(1), In(8)
        An encoded byte; 0 separates frames.
    o_strobe, o_data : Out(1), Out(8)
        A decoded byte.
    complete : Out(1)
        The bytes so far are whole blocks: a separator may come.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "strobe": In(1),
                "data": In(8),
                "o_strobe": Out(1),
                "o_data": Out(8),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        remaining = Signal(8)
        zero_due = Signal()  # the block stands for a zero, unless it is the last of its frame

        m.d.comb += self.complete.eq(remaining == 0)
        with m.If(self.strobe):
            with m.If(self.data == 0):
                m.d.sync += [remaining.eq(0), zero_due.eq(0)]
            with m.Elif(self.complete):
                m.d.comb += self.o_strobe.eq(zero_due)
                m.d.sync += [remaining.eq(self.data - 1), zero_due.eq(self.data != FULL_BLOCK)]
            with m.Else():
                m.d.comb += [self.o_strobe.eq(1), self.o_data.eq(self.data)]
                m.d.sync += remaining.eq(remaining - 1)
        return m


class CobsEncoder(wiring.Component):
    """Encodes into a memory: the code of a block is written behind its bytes' back, once it is known.

    Parameters
    ----------
    address_width : int
        Of the memory that takes the frame.

    Members
    -------
    start : In(1)
        Begins a frame at address 0 (also in the middle of another one, which is lost).
    bytes : In(byte stream)
        Never ready in a cycle with ``start`` or ``finish``.
    finish : In(1)
        Closes the frame; ``length`` is valid from the next cycle on.
    w_en, w_addr, w_data : Out(1), Out(address_width), Out(8)
        Memory write port.
    length : Out(address_width)
        Encoded bytes so far.
    """

    def __init__(self, address_width: int) -> None:
        super().__init__(
            {
                "start": In(1),
                "bytes": In(byte_stream()),
                "finish": In(1),
                "w_en": Out(1),
                "w_addr": Out(address_width),
                "w_data": Out(8),
                "length": Out(address_width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        code_at = Signal.like(self.w_addr)
        code = Signal(8, init=1)
        full = code == FULL_BLOCK
        zero = self.bytes.payload == 0
        close = Signal()  # write the code of the open block

        with m.If(self.start):
            m.d.sync += [code_at.eq(0), self.length.eq(1), code.eq(1)]
        with m.Elif(self.finish):
            m.d.comb += close.eq(1)
        with m.Else():
            m.d.comb += self.bytes.ready.eq(~full)
            with m.If(self.bytes.valid):
                with m.If(full | zero):
                    m.d.comb += close.eq(1)
                    m.d.sync += [code_at.eq(self.length), self.length.eq(self.length + 1), code.eq(1)]
                with m.Else():
                    m.d.comb += [
                        self.w_en.eq(1),
                        self.w_addr.eq(self.length),
                        self.w_data.eq(self.bytes.payload),
                    ]
                    m.d.sync += [self.length.eq(self.length + 1), code.eq(code + 1)]
        with m.If(close):
            m.d.comb += [self.w_en.eq(1), self.w_addr.eq(code_at), self.w_data.eq(code)]
        return m
