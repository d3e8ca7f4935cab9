"""Both sides of a stream (valid, ready, payload), with pauses; and a monitor that also checks its rules."""

from __future__ import annotations

from collections.abc import Iterable

import cocotb

from .environment import Bench
from .pauses import Pauses, never

__all__ = ["StreamMonitor", "StreamSink", "StreamSource"]


class StreamSource:
    """Drives a stream input. While it rests, ``payload`` is garbage.

    Parameters
    ----------
    bench : Bench
    prefix : str
        Of the ports: ``prefix_valid``, ``prefix_ready``, ``prefix_payload``.
    pauses : Pauses, optional
        Cycles in which nothing is offered; what has been offered stays.
    """

    def __init__(self, bench: Bench, prefix: str, pauses: Pauses | None = None) -> None:
        self._bench = bench
        self._pauses = pauses if pauses is not None else never()
        self._valid, self._ready, self._payload = (
            bench.port(f"{prefix}_{name}") for name in ("valid", "ready", "payload")
        )
        self._valid.value = 0

    async def send(self, items: Iterable[int]) -> None:
        """Until the last item has been taken."""
        for item in items:
            while next(self._pauses):
                self._valid.value = 0
                self._payload.value = self._bench.rng.getrandbits(len(self._payload))
                await self._bench.tick()
            self._payload.value = item
            self._valid.value = 1
            await self._bench.tick()
            while not int(self._ready.value):
                await self._bench.tick()
        self._valid.value = 0


class StreamSink:
    """Takes items from a stream output from its creation on.

    Attributes
    ----------
    received : list of int
    """

    def __init__(self, bench: Bench, prefix: str, pauses: Pauses | None = None) -> None:
        self._bench = bench
        self._pauses = pauses if pauses is not None else never()
        self._ready = bench.port(f"{prefix}_ready")
        self._monitor = StreamMonitor(bench, prefix)
        self._ready.value = 0
        cocotb.start_soon(self._run())

    @property
    def received(self) -> list[int]:
        return self._monitor.items

    async def _run(self) -> None:
        while True:
            self._ready.value = int(not next(self._pauses))
            await self._bench.tick()


class StreamMonitor:
    """Watches a stream.

    Parameters
    ----------
    bench : Bench
    prefix : str
    firm : bool
        An item that is offered must stay until it is taken; fails the test otherwise.

    Attributes
    ----------
    items : list of int
        All that was transferred.
    """

    def __init__(self, bench: Bench, prefix: str, *, firm: bool = True) -> None:
        self.items: list[int] = []
        self._bench = bench
        self._prefix = prefix
        self._firm = firm
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        valid, ready, payload = (self._bench.port(f"{self._prefix}_{name}") for name in ("valid", "ready", "payload"))
        waiting: int | None = None
        while True:
            await self._bench.tick()
            item = int(payload.value) if int(valid.value) else None
            if self._firm and waiting is not None:
                assert item == waiting, f"{self._prefix}: {waiting} was offered, then {item}, before it was taken"
            waiting = item
            if item is not None and int(ready.value):
                self.items.append(item)
                waiting = None
