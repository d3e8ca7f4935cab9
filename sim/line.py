"""The line between host and simulated board: its rate, and the manners of a USB-serial bridge."""

from __future__ import annotations

import dataclasses

__all__ = ["Line"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Clock and line of a simulated board.

    Parameters
    ----------
    divisor : int
        Clocks per bit. The default is as few as the UART can do, for a simulated clock is a slow one.
    clock_hz : int
        Clocks of a second, for the bridge's timer and for whoever asks for seconds.
    latency_ms : float
        Latency timer of a bridge with packets of 64 bytes, as of an FT231X (16, or 1 in low-latency mode); 0: there is
        no bridge.
    """

    divisor: int = 4
    clock_hz: int = 50_000_000
    latency_ms: float = 0.0

    @property
    def baud(self) -> float:
        """Bits per second."""
        return self.clock_hz / self.divisor

    @property
    def latency_us(self) -> int:
        """The timer, as the harnesses take it."""
        return round(1000 * self.latency_ms)
