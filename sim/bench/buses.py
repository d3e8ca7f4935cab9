"""Both buses of the core: initiators for a leaf and for the host bus, and a memory that answers a host bus."""

from __future__ import annotations

from collections.abc import Iterable

import cocotb
from cocotb.triggers import RisingEdge

from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.signatures import READ_CYCLES

from .environment import Bench
from .pauses import Pauses, never

__all__ = ["HostBusMemory", "HostInitiator", "LeafInitiator"]


class LeafInitiator:
    """Drives the ``LocalBus`` of a region.

    Parameters
    ----------
    bench : Bench
    prefix : str
    region : Region
    """

    def __init__(self, bench: Bench, prefix: str, region: Region) -> None:
        self._bench = bench
        self._read_cycles = READ_CYCLES[region]
        names = ("addr", "w_en", "w_data", "r_en", "r_data")
        self._addr, self._w_en, self._w_data, self._r_en, self._r_data = (
            bench.port(f"{prefix}_{name}") for name in names
        )
        for port in (self._addr, self._w_en, self._w_data, self._r_en):
            port.value = 0

    async def write(self, offset: int, words: Iterable[int]) -> None:
        """Consecutive words, one per cycle."""
        self._w_en.value = 1
        for number, word in enumerate(words):
            self._addr.value = offset + number
            self._w_data.value = word
            await self._bench.tick()
        self._w_en.value = 0

    async def read(self, offset: int) -> int:
        """One word, as late as the bus promises it."""
        self._addr.value = offset
        self._r_en.value = 1
        await self._bench.tick()
        self._r_en.value = 0
        self._addr.value = 0
        await self._bench.tick(self._read_cycles)
        return int(self._r_data.value)


class HostInitiator:
    """Drives a ``HostBus``.

    Parameters
    ----------
    bench : Bench
    prefix : str
    pauses : Pauses, optional
        Cycles between requests.
    """

    def __init__(self, bench: Bench, prefix: str = "bus", pauses: Pauses | None = None) -> None:
        self._bench = bench
        self._pauses = pauses if pauses is not None else never()
        self._valid, self._write, self._addr, self._w_data = (
            bench.port(f"{prefix}_{name}") for name in ("valid", "write", "addr", "w_data")
        )
        self._ready, self._r_data = bench.port(f"{prefix}_ready"), bench.port(f"{prefix}_r_data")
        self._answered = RisingEdge(bench.port(f"{prefix}_r_valid"))
        self._valid.value = 0

    async def _request(self, address: int, write: bool, word: int = 0) -> None:
        while next(self._pauses):
            await self._bench.tick()
        self._addr.value = address
        self._w_data.value = word
        self._write.value = int(write)
        self._valid.value = 1
        await self._bench.tick()
        while not int(self._ready.value):
            await self._bench.tick()
        self._valid.value = 0

    async def write(self, address: int, words: Iterable[int]) -> None:
        """Consecutive words."""
        for number, word in enumerate(words):
            await self._request(address + number, True, word)

    async def read(self, address: int, count: int) -> list[int]:
        """Consecutive words."""
        words = []
        for number in range(count):
            await self._request(address + number, False)
            await self._answered
            words.append(int(self._r_data.value))
        return words


class HostBusMemory:
    """Answers a ``HostBus`` with a memory that takes its time. Words that were never written are 0.

    Parameters
    ----------
    bench : Bench
    prefix : str
    pauses : Pauses, optional
        Cycles in which no request is taken.

    Attributes
    ----------
    words : dict of int to int
    writes : list of (address, word)
        In their order.
    dead : bool
        Takes nothing.
    """

    def __init__(self, bench: Bench, prefix: str = "bus", pauses: Pauses | None = None) -> None:
        self.words: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []
        self.dead = False
        self._bench = bench
        self._prefix = prefix
        self._pauses = pauses if pauses is not None else never()
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        bench = self._bench
        names = ("valid", "ready", "write", "addr", "w_data", "r_valid", "r_data")
        valid, ready, write, addr, w_data, r_valid, r_data = (bench.port(f"{self._prefix}_{name}") for name in names)
        r_valid.value = 0
        requested = RisingEdge(valid)
        while True:
            open_ = not self.dead and not next(self._pauses)
            ready.value = int(open_)
            if not int(valid.value):
                await requested  # ready, or not, before there is a request; and no work for Python in every cycle
            await bench.tick()
            if not (open_ and int(valid.value)):
                continue
            ready.value = 0
            address = int(addr.value)
            if int(write.value):
                self.words[address] = int(w_data.value)
                self.writes.append((address, self.words[address]))
                await bench.tick()
                continue
            await bench.tick(1 + bench.rng.randrange(5))
            r_valid.value, r_data.value = 1, self.words.get(address, 0)
            await bench.tick()
            r_valid.value, r_data.value = 0, bench.rng.getrandbits(32)
