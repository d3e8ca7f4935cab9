"""Counters of the descriptor that runs, and the memory that keeps those of the others."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..config import Config
from ..contract import COUNTERS, PC_BITS, WORD_BITS, Counter
from ..signatures import LocalBus

__all__ = ["Activity", "Counters"]


class Activity(data.StructLayout):
    """What the data path did in a cycle: ``events`` is a number, the others are flags named as in :class:`Counter`."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "beats": 1,
                "events": bits_for(config.ports),
                "passes": 1,
                "stall_table": 1,
                "stall_drain": 1,
                "stall_steal": 1,
                "stall_emit": 1,
            }
        )


class Counters(wiring.Component):
    """Counts while ``run``; on ``store`` writes the counters of one descriptor to the memory.

    Members
    -------
    activity : In(Activity)
    clear : In(1)
        Pulse.
    run : In(1)
        Level; its cycles are ``Counter.CYCLES``. ``activity`` counts after ``clear`` either way.
    store : In(1)
        Pulse, at least three cycles after the last activity.
    descriptor : In(16)
        Stable from ``store`` until ``busy`` falls.
    busy : Out(1)
        High from the cycle after ``store`` until all is written.
    bus : In(LocalBus())
        Region COUNTER, read only. A read while ``busy`` is answered as any other.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "activity": In(Activity(config)),
                "clear": In(1),
                "run": In(1),
                "store": In(1),
                "descriptor": In(PC_BITS),
                "busy": Out(1),
                "bus": In(LocalBus()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = [Signal(WORD_BITS, name=f"count_{counter.name.lower()}") for counter in Counter]
        held = Signal(Activity(self.config))
        run = Signal()
        m.d.sync += [held.eq(self.activity), run.eq(self.run)]
        for counter, value in zip(Counter, values, strict=True):
            amount: Value = run if counter is Counter.CYCLES else held[counter.name.lower()]
            m.d.sync += value.eq(Mux(self.clear, 0, value + amount))

        at = Signal(range(COUNTERS))
        with m.If(self.store):
            m.d.sync += [self.busy.eq(1), at.eq(0)]
        with m.Elif(self.busy):
            m.d.sync += [at.eq(at + 1), self.busy.eq(at != COUNTERS - 1)]

        depth = self.config.descriptors * COUNTERS
        m.submodules.store_memory = store = memory.Memory(shape=WORD_BITS, depth=depth, init=[])
        read, write = store.read_port(), store.write_port()
        m.d.comb += [
            read.addr.eq(self.bus.addr),
            write.addr.eq(Cat(at, self.descriptor)),
            write.data.eq(Array(values)[at]),
            write.en.eq(self.busy),
        ]
        m.d.sync += self.bus.r_data.eq(read.data)
        return m
