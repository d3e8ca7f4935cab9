"""What every bench needs inside the simulation: parameters, clock, reset, a global time-out, figures."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.handle import HierarchyObject, LogicArrayObject
from cocotb.simtime import get_sim_time
from cocotb.triggers import RisingEdge, Timer

from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config

from .runner import FIGURES, PARAMETERS

__all__ = ["PERIOD", "Bench", "pack", "pack_fields", "unpack"]

PERIOD = 10  # ns; even, for half periods


def pack(values: Iterable[int], width: int) -> int:
    """An array of unsigned elements as one word, element 0 lowest."""
    return sum(value << (width * index) for index, value in enumerate(values))


def unpack(word: int, width: int, count: int) -> list[int]:
    """Inverse of :func:`pack`."""
    mask = (1 << width) - 1
    return [word >> (width * index) & mask for index in range(count)]


def pack_fields(fields: tuple[contract.Field, ...], values: Mapping[str, int]) -> int:
    """A descriptor as the wide port that carries it."""
    return pack(contract.pack(fields, values, contract.DESCRIPTOR_WORDS), 32)


class Bench:
    """One simulated block and its parameters.

    Values that are read after :meth:`tick` are those from just before the edge; values that are set then take effect
    after it, as in a register.

    Parameters
    ----------
    dut : HierarchyObject
        The component; ports are attributes, paths joined by underscores.
    block : str
        Which one of a :class:`~reverb_fpga.sim.bench.side_by_side.SideBySide`.

    Attributes
    ----------
    parameters : dict
    rng : random.Random
        Seeded by parameter ``seed``.
    """

    def __init__(self, dut: HierarchyObject, block: str = "") -> None:
        self._dut = dut
        self._prefix = f"{block}_" if block else ""
        self.parameters: dict[str, Any] = json.loads(Path(PARAMETERS).read_text())
        self.rng = random.Random(f"{self.parameters['seed']} {block}")
        self._edge = RisingEdge(dut.clk)
        self._first = round(get_sim_time("ns"))
        self._began = time.process_time()

    @property
    def clock(self) -> LogicArrayObject:
        """The clock."""
        return self._dut.clk

    @property
    def config(self) -> Config:
        """Configuration that was passed as parameter ``config``."""
        return Config(**self.parameters["config"])

    @property
    def cycles(self) -> int:
        """Clock cycles since this object was made."""
        return (round(get_sim_time("ns")) - self._first) // PERIOD

    def port(self, name: str) -> LogicArrayObject:
        """A port of the block."""
        return getattr(self._dut, self._prefix + name)

    def set(self, **values: int) -> None:
        """Drive ports from the next edge on."""
        for name, value in values.items():
            self.port(name).value = value

    def get(self, name: str) -> int:
        """Value of a port, unsigned."""
        return int(self.port(name).value)

    async def start(self, limit: int, inputs: Sequence[str] = ()) -> None:
        """Start the clock, set ``inputs`` to 0, reset; the test fails when ``limit`` cycles have passed."""
        self.set(**dict.fromkeys(inputs, 0))
        self._dut.rst.value = 1
        Clock(self._dut.clk, PERIOD, "ns", impl="gpi").start()
        cocotb.start_soon(self._expire(limit))
        await self.tick(4)
        self._dut.rst.value = 0
        await self.tick()

    async def _expire(self, limit: int) -> None:
        await Timer(limit * PERIOD, "ns")
        raise TimeoutError(f"the bench is not done after {limit} cycles")

    async def tick(self, cycles: int = 1) -> None:
        """Until just before the next rising edge takes effect."""
        for _ in range(cycles):
            await self._edge

    async def until(self, name: str, value: int = 1) -> None:
        """Ticks, at least one, until a port was seen to have that value at an edge."""
        port = self.port(name)
        while True:
            await self._edge
            if int(port.value) == value:
                return

    async def pulse(self, name: str) -> None:
        """A port is 1 for one cycle."""
        port = self.port(name)
        port.value = 1
        await self._edge
        port.value = 0

    def record(self, **figures: float | str) -> None:
        """Report figures to the side of pytest; cycles and processor seconds add up over tests."""
        path = Path(FIGURES)
        known = json.loads(path.read_text()) if path.exists() else {"cycles": 0, "seconds": 0.0}
        known["cycles"] += self.cycles
        known["seconds"] = round(known["seconds"] + time.process_time() - self._began, 3)
        path.write_text(json.dumps(known | figures))
