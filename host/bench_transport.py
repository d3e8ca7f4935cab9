"""A simulated link as a transport, with the simulation's clock as the clock of all time-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .transport import Transport

if TYPE_CHECKING:
    from reverb_fpga.sim.link_bench import LinkBench, UsbLinkBench

__all__ = ["BenchTransport"]


class BenchTransport(Transport):
    """Bytes to and from a :class:`~reverb_fpga.sim.link_bench.LinkBench`; the host itself takes no time.

    Parameters
    ----------
    bench : LinkBench or UsbLinkBench
        Not closed with the transport.
    """

    def __init__(self, bench: LinkBench | UsbLinkBench) -> None:
        self.name = "link bench"
        self.bench = bench
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        self._pending += data

    def read(self, timeout: float) -> bytes:
        data = bytes(self._pending)
        self._pending.clear()
        return self.bench.exchange(data, max(1, round(timeout * self.bench.clock_hz)))

    def clock(self) -> float:
        return self.bench.seconds
