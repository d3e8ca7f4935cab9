"""UART, 8N1, with the bit time fixed at elaboration."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import cdc, fifo, wiring
from amaranth.lib.wiring import In, Out

from ..errors import InputError
from ..signatures import byte_stream
from .signatures import received_bytes

__all__ = ["BRIDGE_FILL", "MIN_DIVISOR", "UartPhy", "UartReceiver", "UartTransmitter", "check_divisor"]

BRIDGE_FILL = 62  # bytes of a USB-serial bridge's packet: one is full, and handed on at once, after so many more
RECEIVE_DEPTH = 16  # bytes
MIN_DIVISOR = 4  # below this the middle of a bit cannot be told from its edge


def check_divisor(divisor: int) -> None:
    """Raise InputError if bits of ``divisor`` clocks are too short to be sampled."""
    if divisor < MIN_DIVISOR:
        raise InputError(f"UART divisor {divisor!r} is below {MIN_DIVISOR} clocks per bit; lower the baud rate")


class UartReceiver(wiring.Component):
    """Samples each bit in its middle.

    Parameters
    ----------
    divisor : int
        Clocks per bit, at least 4.

    Members
    -------
    rx : In(1)
        The pin, asynchronous; idles at 1.
    strobe : Out(1)
        A byte has arrived. It cannot be refused.
    data, error : Out(8), Out(1)
        Valid with ``strobe``. ``error``: the stop bit was 0 (noise, wrong rate or a broken line).

    Raises
    ------
    InputError
        If the divisor is too small.
    """

    def __init__(self, divisor: int) -> None:
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "strobe": Out(1), "data": Out(8), "error": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rx = Signal(init=1)
        m.submodules.sync = cdc.FFSynchronizer(self.rx, rx, init=1)
        timer = Signal(range(self.divisor))
        index = Signal(range(8))
        tick = timer == 0

        m.d.sync += [self.strobe.eq(0), timer.eq(timer - 1)]
        with m.If(tick):
            m.d.sync += timer.eq(self.divisor - 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [timer.eq(self.divisor // 2 - 1), index.eq(0)]
                with m.If(~rx):
                    m.next = "START"
            with m.State("START"), m.If(tick):
                m.next = "DATA"
                with m.If(rx):  # a glitch, not a start bit
                    m.next = "IDLE"
            with m.State("DATA"), m.If(tick):
                m.d.sync += [self.data.eq(Cat(self.data[1:], rx)), index.eq(index + 1)]
                with m.If(index == 7):
                    m.next = "STOP"
            with m.State("STOP"), m.If(tick):
                m.d.sync += [self.strobe.eq(1), self.error.eq(~rx)]
                m.next = "RECOVER"
                with m.If(rx):
                    m.next = "IDLE"
            with m.State("RECOVER"), m.If(rx):  # a line held low is one error, not a stream of zeros
                m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Sends bytes without a gap while there are any.

    Parameters
    ----------
    divisor : int
        Clocks per bit, at least 4.

    Members
    -------
    bytes : In(byte stream)
    tx : Out(1)
        The pin, from a flip-flop; idles at 1.

    Raises
    ------
    InputError
        If the divisor is too small.
    """

    def __init__(self, divisor: int) -> None:
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"bytes": In(byte_stream()), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = Signal(10, init=0x3FF)
        timer = Signal(range(self.divisor))
        bits = Signal(range(11))
        tick = timer == 0

        m.d.comb += [self.tx.eq(shift[0]), self.bytes.ready.eq((bits == 0) | ((bits == 1) & tick))]
        with m.If(tick):
            m.d.sync += timer.eq(self.divisor - 1)
            with m.If(bits != 0):
                m.d.sync += [shift.eq(Cat(shift[1:], Const(1, 1))), bits.eq(bits - 1)]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)
        with m.If(self.bytes.valid & self.bytes.ready):
            m.d.sync += [
                shift.eq(Cat(Const(0, 1), self.bytes.payload, Const(1, 1))),
                bits.eq(10),
                timer.eq(self.divisor - 1),
            ]
        return m


class UartPhy(wiring.Component):
    """The link's bytes on a UART's pins.

    Parameters
    ----------
    divisor : int
        Clocks per bit, at least 4.
    fill : int
        Zeros after the last byte of whatever is sent, unless there is more to send.

    Members
    -------
    rx, tx : In(1), Out(1)
        Pins; 8N1, idle 1. ``rx`` may be asynchronous.
    received : Out(received bytes)
        From a FIFO. A byte for which it had no room marks the next one as damaged.
    bytes : In(byte stream)
        To be sent.

    Raises
    ------
    InputError
        If the divisor is too small.
    """

    def __init__(self, divisor: int, fill: int = BRIDGE_FILL) -> None:
        check_divisor(divisor)
        self.divisor = divisor
        self.fill = fill
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "received": Out(received_bytes()),
                "bytes": In(byte_stream()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=9, depth=RECEIVE_DEPTH)
        lost = Signal()
        m.d.comb += [
            receiver.rx.eq(self.rx),
            queue.w_en.eq(receiver.strobe),
            queue.w_data.eq(Cat(receiver.data, receiver.error | lost)),
            self.received.valid.eq(queue.r_rdy),
            self.received.payload.as_value().eq(queue.r_data),
            queue.r_en.eq(self.received.ready),
        ]
        with m.If(receiver.strobe):
            m.d.sync += lost.eq(~queue.w_rdy)

        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        left = Signal(range(self.fill + 1))
        sending = transmitter.bytes
        m.d.comb += [
            self.tx.eq(transmitter.tx),
            sending.valid.eq(self.bytes.valid | (left != 0)),
            sending.payload.eq(Mux(self.bytes.valid, self.bytes.payload, 0)),
            self.bytes.ready.eq(sending.ready),
        ]
        with m.If(sending.ready):
            with m.If(self.bytes.valid):
                m.d.sync += left.eq(self.fill)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
        return m
