"""The host's driver on the UART's pins of a simulated board."""

from __future__ import annotations

from cocotb.simtime import get_sim_time
from cocotb.task import resume
from cocotb.triggers import Event, First, Timer

from reverb_fpga.host.session import Timing
from reverb_fpga.host.transport import Transport
from reverb_fpga.sim.bench.environment import Bench
from reverb_fpga.sim.bench.uart import UartListener, UartSender

__all__ = ["TIMING", "PinTransport"]

TIMING = Timing(response=1e-3, per_byte=2e-6, run=1.0)
"""In simulated seconds, at four clocks of 10 ns per bit."""


class PinTransport(Transport):
    """Moves bytes over pins ``rx`` and ``tx``; its clock is that of the simulation.

    Its methods are blocking and work only in a thread of ``cocotb.bridge``.
    """

    name = "the simulated board"

    def __init__(self, bench: Bench, divisor: int) -> None:
        self._arrived = Event()
        self._pending = bytearray()
        self._sender = UartSender(bench, "rx", divisor)
        UartListener(bench, "tx", divisor, self._take)
        self.sent = self.received = 0

    def _take(self, byte: int) -> None:
        self._pending.append(byte)
        self.received += 1
        if byte == 0:  # frames begin and end with one; nothing in between needs anybody's attention
            self._arrived.set()

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        resume(self._sender.send)(data)

    def read(self, timeout: float) -> bytes:
        if timeout > 0 and not self._arrived.is_set():
            resume(self._wait)(timeout)
        data = bytes(self._pending)
        self._pending.clear()
        self._arrived.clear()
        return data

    async def _wait(self, timeout: float) -> None:
        await First(self._arrived.wait(), Timer(round(timeout * 1e9), "ns"))

    def clock(self) -> float:
        return get_sim_time("sec")
