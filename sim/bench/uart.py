"""A UART's pins, bit by bit: 8N1."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cocotb
from cocotb.triggers import FallingEdge, Timer

from .environment import PERIOD, Bench

__all__ = ["UartListener", "UartSender", "levels"]


def levels(data: bytes, stop: int = 1) -> list[int]:
    """Levels of the line, one per bit: start bit, eight data bits from the lowest, stop bit."""
    return [bit for byte in data for bit in (0, *(byte >> n & 1 for n in range(8)), stop)]


class UartSender:
    """Drives a pin, in the middle of clock cycles.

    Parameters
    ----------
    bench : Bench
    pin : str
    divisor : int
        Clocks per bit of the receiver.
    skew : float
        The sender's bit time over the receiver's.
    """

    def __init__(self, bench: Bench, pin: str, divisor: int, skew: float = 1.0) -> None:
        self._pin = bench.port(pin)
        self._clock_falls = FallingEdge(bench.clock)
        self._bit_ns = divisor * PERIOD * skew
        self._pin.value = 1

    async def send(self, data: bytes, stop: int = 1) -> None:
        """Whole bytes without gaps; the line rests at 1 afterwards."""
        await self._clock_falls
        sent, at = 0, 0
        for level, run in itertools.groupby(levels(data, stop)):
            self._pin.value = level
            sent += len(list(run))
            step = round(sent * self._bit_ns) - at
            await Timer(step, "ns")
            at += step
        self._pin.value = 1


class UartListener:
    """Receives from a pin from its creation on.

    Parameters
    ----------
    bench : Bench
    pin : str
    divisor : int
    arrived : callable, optional
        Called with every byte.

    Attributes
    ----------
    received : bytearray
    """

    def __init__(self, bench: Bench, pin: str, divisor: int, arrived: Callable[[int], None] | None = None) -> None:
        self.received = bytearray()
        self._pin = bench.port(pin)
        self._divisor = divisor
        self._arrived = arrived if arrived is not None else self.received.append
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        falls = FallingEdge(self._pin)
        bit = Timer(self._divisor * PERIOD, "ns")
        first = Timer(self._divisor * PERIOD + self._divisor // 2 * PERIOD + PERIOD // 2, "ns")
        while True:
            await falls
            await first
            byte = 0
            for number in range(8):
                byte |= int(self._pin.value) << number
                await bit
            assert int(self._pin.value) == 1, "a stop bit is 0"
            self._arrived(byte)
