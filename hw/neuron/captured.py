"""Captured sums on their way to the accumulators: a pass arrives at once and is kept slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..memory import DISTRIBUTED
from .fixed import delayed

__all__ = ["CaptureWriter", "captured_memory", "chosen", "store_layout"]


def store_layout(config: Config) -> data.StructLayout:
    """The sum of one slot is kept in a ``cell``, if ``en``; ``others``: a bit per slot, 0 for that one."""
    return data.StructLayout({"en": 1, "others": config.slots, "cell": range(config.captured_cells)})


def chosen(m: Module, sums: Sequence[Value], others: Value) -> Value:
    """The sum of the slot that is 0 in ``others``, a cycle later.

    The wide nets from the lane array end in registers, of which all but one are held in reset: choosing takes no more
    than an OR.
    """
    registers = []
    for slot, value in enumerate(sums):
        register = Signal(len(value), name=f"slot_{slot}", reset_less=True)
        m.d.sync += register.eq(Mux(others[slot], 0, value))
        registers.append(register)
    return reduce(or_, registers)


def captured_memory(m: Module, name: str, write: data.View, value: Value, cell: Value) -> Value:
    """A memory of ``captured_cells`` sums: ``value``, a cycle after ``write``, is stored; the one in ``cell``.

    Operations ``SlotAccumulator.store_to_op`` cycles after ``write`` see it.
    """
    m.submodules[f"{name}_cells"] = cells = memory.Memory(
        shape=len(value), depth=1 << len(write.cell), init=[], attrs=DISTRIBUTED
    )
    port, read = cells.write_port(), cells.read_port(domain="comb")
    m.d.comb += [
        port.addr.eq(delayed(m, write.cell, 1, f"{name}_cell")),
        port.en.eq(delayed(m, write.en, 1, f"{name}_en")),
        port.data.eq(value),
        read.addr.eq(cell),
    ]
    return read.data


class CaptureWriter(wiring.Component):
    """Where the sums of a pass go: the first slot in the cycle of ``strobe``, the others in those after it.

    A ring of ``captured_cells``: memories as wide as one slot, not as all of them, at the price of a cycle per slot,
    which the neuron unit takes, too.

    Members
    -------
    slots : In(range(slots + 1))
        Slots of a pass.
    start : In(1)
        Pulse: the ring is empty.
    strobe : In(1)
        Of :class:`~reverb_fpga.hw.signatures.Captured`.
    store : Out(store_layout(config))
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "slots": In(range(config.slots + 1)),
                "start": In(1),
                "strobe": In(1),
                "store": Out(store_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        cell, slot, following = Signal.like(self.store.cell), Signal(config.slots), Signal(config.slots)
        wanted = Cat(number < self.slots for number in range(config.slots))
        m.d.comb += [
            slot.eq(following | self.strobe),
            self.store.en.eq(slot.any()),
            self.store.others.eq(~slot),
            self.store.cell.eq(cell),
        ]
        m.d.sync += following.eq((slot << 1) & wanted)
        with m.If(self.start):
            m.d.sync += cell.eq(0)
        with m.Else():
            m.d.sync += cell.eq(cell + self.store.en)
        return m
