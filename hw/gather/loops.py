"""Nested loops of the walker: counters, and values that step with them. No multiplications."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LOOPS", "LoopCounters", "Step", "stepped", "stepped_value"]

LOOPS = ("oy", "ox", "t", "py", "px", "ky", "kx")
"""Outermost first."""

_COUNTER_BITS = 10


class LoopCounters(wiring.Component):
    """Seven nested down counters; one step of the innermost per cycle. All flags are registers.

    Members
    -------
    trips : In(StructLayout)
        Trip counts, not zero; stable from one cycle before ``start`` while walking.
    start : In(1)
        Begin; the first iteration shows from the next cycle on.
    step : In(1)
        Go to the next iteration. Not together with ``start``.
    last : Out(StructLayout)
        The loop is in its last trip.
    done : Out(StructLayout)
        All loops inside this one are in their last trips: it advances at the next step, or begins again if it is in its
        last trip itself.
    """

    def __init__(self) -> None:
        flags = data.StructLayout(dict.fromkeys(LOOPS, 1))
        super().__init__(
            {
                "trips": In(data.StructLayout(dict.fromkeys(LOOPS, _COUNTER_BITS))),
                "start": In(1),
                "step": In(1),
                "last": Out(flags),
                "done": Out(flags),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first: Value = Const(1)  # whether all loops inside are in their last trips at the start,
        following: Value = Const(1)  # and after a step
        for name in reversed(LOOPS):
            with m.If(self.start):
                m.d.sync += self.done[name].eq(first)
            with m.Elif(self.step):
                m.d.sync += self.done[name].eq(following)
            one_trip, last = self._loop(m, name)
            first, following = first & one_trip, following & last
        return m

    def _loop(self, m: Module, name: str) -> tuple[Signal, Signal]:
        """One counter. Whether its loop has one trip, and whether it will be in its last trip after a step."""
        trips, last, done = self.trips[name], self.last[name], self.done[name]
        left = Signal(_COUNTER_BITS, name=f"left_{name}")
        two_left, one_trip, two_trips = (
            Signal(name=f"{what}_{name}") for what in ("two_left", "one_trip", "two_trips")
        )
        will_be_last = Signal(name=f"will_be_last_{name}")
        m.d.comb += will_be_last.eq(Mux(done, Mux(last, one_trip, two_left), last))
        m.d.sync += [one_trip.eq(trips == 1), two_trips.eq(trips == 2)]
        with m.If(self.start):
            m.d.sync += last.eq(one_trip)
        with m.Elif(self.step):
            m.d.sync += last.eq(will_be_last)
        with m.If(self.start | (self.step & done & last)):
            m.d.sync += [left.eq(trips), two_left.eq(two_trips)]
        with m.Elif(self.step & done):
            m.d.sync += [left.eq(left - 1), two_left.eq(left == 3)]
        return one_trip, will_be_last


@dataclasses.dataclass(frozen=True)
class Step:
    """A value grows by ``amount`` whenever loop ``loop`` advances; modulo ``ring``, if that is given.

    ``wrapped`` is ``amount - ring``, registered ahead so that the sum and the reduced sum are computed side by side.
    """

    loop: str
    amount: Value
    wrapped: Value | None = None


def stepped(value: Signal, step: Step) -> Value:
    """``value`` after one step. Modulo a ring, value and step must both be below it."""
    if step.wrapped is None:
        return value + step.amount
    reduced = value + step.wrapped  # signed
    return Mux(reduced[-1], value + step.amount, reduced)


def stepped_value(m: Module, name: str, counters: LoopCounters, initial: Value, steps: list[Step]) -> Signal:
    """A value that starts at ``initial`` and follows the loops; ``steps`` from the outermost loop to the innermost.

    Keeps one register per step: the value at which the loops inside begin again.
    """
    outer_next: Value = initial
    registers: list[Signal] = []
    for step in steps:
        done, last = counters.done[step.loop], counters.last[step.loop]
        register = Signal.like(initial, name=f"{name}_{step.loop}")
        following = Signal.like(register, name=f"{name}_{step.loop}_next")
        m.d.comb += following.eq(
            Mux(counters.start | (done & last), outer_next, Mux(done, stepped(register, step), register))
        )
        with m.If(counters.start | counters.step):
            m.d.sync += register.eq(following)
        outer_next = following
        registers.append(register)
    return registers[-1]
