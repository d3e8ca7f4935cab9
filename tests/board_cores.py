"""The smallest cores that a board can carry: the tools are done with them in seconds."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from reverb_fpga.hw.link.signatures import received_bytes
from reverb_fpga.hw.signatures import byte_stream


class Echo(wiring.Component):
    """The smallest core: sends back what it hears."""

    def __init__(self, stages: int = 2) -> None:
        super().__init__({"reset": In(1), "rx": In(1), "tx": Out(1, init=1), "state": Out(4)})
        self._stages = stages

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last = self.rx
        for index in range(self._stages):
            stage = Signal(init=1, name=f"stage{index}")
            m.d.sync += stage.eq(last)
            last = stage
        count = Signal(32)
        m.d.sync += [self.tx.eq(last), count.eq(count + 1)]
        m.d.comb += self.state.eq(count[-4:])
        return m


class ByteEcho(wiring.Component):
    """The same behind a PHY of bytes."""

    def __init__(self) -> None:
        super().__init__(
            {"reset": In(1), "received": In(received_bytes()), "bytes": Out(byte_stream()), "state": Out(4)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(32)
        m.d.sync += count.eq(count + 1)
        m.d.comb += [
            self.bytes.valid.eq(self.received.valid),
            self.bytes.payload.eq(self.received.payload.data),
            self.received.ready.eq(self.bytes.ready),
            self.state.eq(count[-4:]),
        ]
        return m
