"""Gateware small enough to build in seconds."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from reverb_fpga.hw.link import Deframer, FrameReceiver

__all__ = ["Counter", "FramedReceiver"]


class Counter(wiring.Component):
    """Adds ``step`` every cycle."""

    def __init__(self) -> None:
        super().__init__({"port": Out(wiring.Signature({"step": In(4), "count": Out(8)}))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.port.count.eq(self.port.count + self.port.step)
        return m


class FramedReceiver(wiring.Component):
    """A Deframer and a FrameReceiver, bytes in, requests out; no stream is open."""

    def __init__(self) -> None:
        inputs = {"strobe": In(1), "data": In(8), "error": In(1), "addr": In(11), "release": In(1)}
        super().__init__({**inputs, "valid": Out(1), "length": Out(11), "r_data": Out(8), "bad": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.deframer = deframer = Deframer()
        m.submodules.receiver = receiver = FrameReceiver(2048)
        connect(m, deframer.frame, receiver.frame)
        request = receiver.request
        m.d.comb += [
            deframer.bytes.valid.eq(self.strobe),
            deframer.bytes.payload.data.eq(self.data),
            deframer.bytes.payload.error.eq(self.error),
            request.addr.eq(self.addr),
            request.release.eq(self.release),
            self.valid.eq(request.valid),
            self.length.eq(request.length),
            self.r_data.eq(request.data),
            self.bad.eq(request.bad),
        ]
        return m
