"""The link as one block: pins on one side, host bus and input bytes on the other."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..bus import HostBus
from ..config import Config
from ..signatures import byte_stream
from .processor import PATIENCE, CommandProcessor
from .receiver import FrameReceiver
from .transmitter import FrameTransmitter
from .uart import UartReceiver, UartTransmitter, check_divisor

__all__ = ["Link"]


class Link(wiring.Component):
    """UART, frames and requests; see ``docs/protocol.md``.

    Parameters
    ----------
    config : Config
        Named by HELLO.
    divisor : int
        Clocks per bit, at least 4.
    patience : int
        Clocks that a request waits for the core before it is answered with an error.

    Members
    -------
    rx, tx : In(1), Out(1)
        Pins; 8N1, idle 1. ``rx`` may be asynchronous.
    bus : Out(HostBus)
    input : Out(byte stream)
        Codes of one image; may be withdrawn, see :class:`CommandProcessor`.
    state : In(4)
        Of the sequencer.
    input_bytes : In(32)
        Input bytes that the core has taken of this image.

    Raises
    ------
    InputError
        If the divisor is too small.
    """

    def __init__(self, config: Config, divisor: int, patience: int = PATIENCE) -> None:
        check_divisor(divisor)
        self.config = config
        self.divisor = divisor
        self.patience = patience
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(4),
                "input_bytes": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.uart_rx = uart_rx = UartReceiver(self.divisor)
        m.submodules.uart_tx = uart_tx = UartTransmitter(self.divisor)
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.transmitter = transmitter = FrameTransmitter()
        m.submodules.processor = processor = CommandProcessor(self.config, self.patience)

        m.d.comb += [
            uart_rx.rx.eq(self.rx),
            self.tx.eq(uart_tx.tx),
            receiver.strobe.eq(uart_rx.strobe),
            receiver.data.eq(uart_rx.data),
            receiver.error.eq(uart_rx.error),
            processor.rx_valid.eq(receiver.valid),
            processor.rx_length.eq(receiver.length),
            processor.rx_data.eq(receiver.r_data),
            processor.rx_bad.eq(receiver.bad),
            receiver.addr.eq(processor.rx_addr),
            receiver.release.eq(processor.rx_release),
            transmitter.start.eq(processor.tx_start),
            transmitter.aside.eq(processor.tx_aside),
            transmitter.finish.eq(processor.tx_finish),
            transmitter.repeat.eq(processor.tx_repeat),
            processor.tx_busy.eq(transmitter.busy),
            processor.state.eq(self.state),
            processor.input_bytes.eq(self.input_bytes),
        ]
        wiring.connect(m, processor.tx_payload, transmitter.payload)
        wiring.connect(m, transmitter.bytes, uart_tx.bytes)
        wiring.connect(m, processor.bus, wiring.flipped(self.bus))
        wiring.connect(m, processor.input, wiring.flipped(self.input))
        return m
