"""A transport that damages what passes through it: how the link's promises are put to the test."""

from __future__ import annotations

import enum
import random
from collections import Counter

from .transport import Transport

__all__ = ["Direction", "Fault", "FaultyTransport", "PacketFault", "UnrulyTransport"]


class Direction(enum.Enum):
    """Which way the bytes go."""

    TO_DEVICE = "to device"
    TO_HOST = "to host"


class Fault(enum.Enum):
    """What can happen to a byte."""

    FLIP = "flipped bit"
    LOSE = "lost byte"
    DUPLICATE = "duplicated byte"
    INSERT = "inserted byte"


class FaultyTransport(Transport):
    """Passes bytes to and from another transport and damages some.

    Parameters
    ----------
    inner : Transport
    rate : float
        Probability that something happens to a byte on its way to the device.
    seed : int
    host_rate : float, optional
        The same on its way to the host; by default ``rate``.

    Attributes
    ----------
    enabled : bool
        No byte is damaged while it is False.
    rate : dict of Direction to float
        May be changed.
    counts : Counter of (Direction, Fault)
        Faults so far.
    """

    def __init__(self, inner: Transport, rate: float, seed: int, host_rate: float | None = None) -> None:
        self.inner = inner
        self.name = inner.name
        self.rate = {Direction.TO_DEVICE: rate, Direction.TO_HOST: rate if host_rate is None else host_rate}
        self.enabled = True
        self.counts: Counter[tuple[Direction, Fault]] = Counter()
        self._rng = random.Random(seed)

    @property
    def faults(self) -> int:
        """Faults so far, of all kinds."""
        return self.counts.total()

    def write(self, data: bytes) -> None:
        self.inner.write(self._damage(data, Direction.TO_DEVICE))

    def read(self, timeout: float) -> bytes:
        return self._damage(self.inner.read(timeout), Direction.TO_HOST)

    def clock(self) -> float:
        return self.inner.clock()

    def discard(self) -> None:
        self.inner.discard()

    def close(self) -> None:
        self.inner.close()

    def _damage(self, data: bytes, direction: Direction) -> bytes:
        if not self.enabled:
            return data
        out = bytearray()
        for byte in data:
            if self._rng.random() >= self.rate[direction]:
                out.append(byte)
                continue
            fault = self._rng.choice(list(Fault))
            self.counts[direction, fault] += 1
            out += self._apply(fault, byte)
        return bytes(out)

    def _apply(self, fault: Fault, byte: int) -> bytes:
        if fault is Fault.FLIP:
            return bytes([byte ^ 1 << self._rng.randrange(8)])
        if fault is Fault.LOSE:
            return b""
        if fault is Fault.DUPLICATE:
            return bytes([byte, byte])
        # A zero ends a frame: the worst byte to insert, so it comes more often than chance would have it.
        inserted = 0 if self._rng.random() < 0.25 else self._rng.randrange(256)
        return bytes([inserted, byte])


class PacketFault(enum.Enum):
    """What can happen to all that was written, or has arrived, at once."""

    LOSE = "lost packet"
    REPEAT = "repeated packet"
    SWAP = "swapped packets"


class UnrulyTransport(Transport):
    """Passes packets to and from another transport and loses, repeats or swaps some.

    Parameters
    ----------
    inner : Transport
    rate : float
        Probability that something happens to a packet.
    seed : int

    Attributes
    ----------
    enabled : bool
    counts : Counter of (Direction, PacketFault)
        Faults so far.
    """

    def __init__(self, inner: Transport, rate: float, seed: int) -> None:
        self.inner = inner
        self.name = inner.name
        self.enabled = True
        self.rate = rate
        self.counts: Counter[tuple[Direction, PacketFault]] = Counter()
        self._rng = random.Random(seed)
        self._late = dict.fromkeys(Direction, b"")

    @property
    def faults(self) -> int:
        """Faults so far, of all kinds."""
        return self.counts.total()

    def write(self, data: bytes) -> None:
        self.inner.write(self._disturb(data, Direction.TO_DEVICE))

    def read(self, timeout: float) -> bytes:
        return self._disturb(self.inner.read(timeout), Direction.TO_HOST)

    def clock(self) -> float:
        return self.inner.clock()

    def close(self) -> None:
        self.inner.close()

    def _disturb(self, data: bytes, direction: Direction) -> bytes:
        late = self._late[direction] if data or not self.enabled else b""
        if late:
            self._late[direction] = b""
        if not data or not self.enabled or self._rng.random() >= self.rate:
            return data + late
        fault = self._rng.choice(list(PacketFault))
        self.counts[direction, fault] += 1
        if fault is PacketFault.LOSE:
            return late
        if fault is PacketFault.REPEAT:
            return data + late + data
        self._late[direction] = data
        return late
