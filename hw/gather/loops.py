"""Nested loops of the walker: counters, and values that step with them. No multiplications."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LOOPS", "LoopCounters", "Step", "stepped", "stepped_value"]

LOOPS = ("oy", "ox", "t", "py", "px", "ky", "kx")
"""Outermost first."""

_COUNTER_BITS = 10


class LoopCounters(wiring.Component):
    """Seven nested down counters; one step of the innermost per cycle.

    Members
    -------
    trips : In(StructLayout)
        Trip counts, not zero; stable while walking.
    start : In(1)
        Begin; the first iteration shows from the next cycle on.
    step : In(1)
        Go to the next iteration. Not together with ``start``.
    advance : Out(StructLayout)
        One-hot: the loop that advances at the next step; those inside it begin again. Zero in the very last iteration.
    last : Out(StructLayout)
        The loop is in its last trip.
    """

    def __init__(self) -> None:
        flags = data.StructLayout(dict.fromkeys(LOOPS, 1))
        super().__init__(
            {
                "trips": In(data.StructLayout(dict.fromkeys(LOOPS, _COUNTER_BITS))),
                "start": In(1),
                "step": In(1),
                "advance": Out(flags),
                "last": Out(flags),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        inner_last: Value | int = 1
        inside_done = []  # every loop inside this one is in its last trip
        for name in reversed(LOOPS):
            last = self.last[name]
            m.d.comb += self.advance[name].eq(inner_last & ~last)
            inside_done.append((name, inner_last))
            inner_last = inner_last & last
        for name, done in inside_done:
            left = Signal(_COUNTER_BITS, name=f"left_{name}")
            flag = Signal(name=f"last_{name}")
            m.d.comb += self.last[name].eq(flag)
            begin = Signal(name=f"begin_{name}")
            m.d.comb += begin.eq(self.start | (self.step & done & flag))
            with m.If(begin):
                m.d.sync += [left.eq(self.trips[name]), flag.eq(self.trips[name] == 1)]
            with m.Elif(self.step & done):
                m.d.sync += [left.eq(left - 1), flag.eq(left == 2)]
        return m


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
        register = Signal.like(initial, name=f"{name}_{step.loop}")
        outside = [counters.advance[loop] for loop in LOOPS[: LOOPS.index(step.loop)]]
        restart: Value | int = 0
        for flag in outside:
            restart = restart | flag
        following = Signal.like(register, name=f"{name}_{step.loop}_next")
        m.d.comb += following.eq(
            Mux(
                counters.start | restart,
                outer_next,
                Mux(counters.advance[step.loop], stepped(register, step), register),
            )
        )
        with m.If(counters.start | counters.step):
            m.d.sync += register.eq(following)
        outer_next = following
        registers.append(register)
    return registers[-1]
