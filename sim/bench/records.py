"""Watches the write ports through which blocks store events and counts."""

from __future__ import annotations

import cocotb

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import COUNT_BITS

from .environment import Bench, unpack

__all__ = ["RecordMonitor"]

EVENT_BITS = 16


class RecordMonitor:
    """Collects what ``act_write`` and ``count_write`` of a block store.

    Parameters
    ----------
    bench : Bench
    config : Config

    Attributes
    ----------
    act : dict of (bank, address) to event word
    counts : dict of address to list of counts (banks)
    overwritten : int
        Events and counts that were stored at an address that had been stored before.
    """

    def __init__(self, bench: Bench, config: Config) -> None:
        self._bench = bench
        self._banks = config.banks
        self.clear()
        cocotb.start_soon(self._run())

    def clear(self) -> None:
        """Begin anew."""
        self.act: dict[tuple[int, int], int] = {}
        self.counts: dict[int, list[int]] = {}
        self.overwritten = 0

    async def _run(self) -> None:
        port = self._bench.port
        act_en, count_en = port("act_write_en"), port("count_write_en")
        while True:
            await self._bench.tick()
            if enabled := int(act_en.value):
                self._events(enabled)
            if int(count_en.value):
                address = int(port("count_write_addr").value)
                self.overwritten += address in self.counts
                self.counts[address] = unpack(int(port("count_write_count").value), COUNT_BITS, self._banks)

    def _events(self, enabled: int) -> None:
        address, event = self._bench.port("act_write_addr"), self._bench.port("act_write_data")
        addresses = unpack(int(address.value), len(address) // self._banks, self._banks)
        events = unpack(int(event.value), EVENT_BITS, self._banks)
        for bank in range(self._banks):
            if enabled >> bank & 1:
                self.overwritten += (bank, addresses[bank]) in self.act
                self.act[bank, addresses[bank]] = events[bank]
