"""From masked sums to the synaptic current: shift, negate, subtract S, add to z (numerics.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..carry import ControlledAdder, Platform
from ..config import Config
from ..copies import copied
from ..memory import DISTRIBUTED
from ..signatures import slot_layout
from .captured import captured_memory, chosen, store_layout
from .fixed import delayed, limits

__all__ = ["SlotAccumulator", "accumulate_layout", "offset"]


def accumulate_layout(config: Config) -> data.StructLayout:
    """What one cycle of the accumulators does, for all lanes alike.

    ``cell`` selects P; ``enable`` is 0 where nothing is added (repeats of a static input only read z).
    """
    return data.StructLayout(
        {
            "cell": range(config.captured_cells),
            "group": range(config.z_depth),
            "shift": slot_layout()["shift"].shape,
            "negate": 1,
            "subtract_s": 1,
            "first": 1,
            "enable": 1,
        }
    )


def offset(m: Module, op: data.View, store: data.View, s: Value) -> Value:
    """``offset`` of :class:`SlotAccumulator`, the same for all, when ``op`` and ``store`` go to them now.

    S is kept for every slot, as P is.
    """
    masked, total = Signal(s.shape()), Signal(signed(len(s) + 1))
    write = data.View(store.shape(), copied(m, store, "store_s"))
    held = captured_memory(m, "s", write, delayed(m, s, 1, "s"), delayed(m, op.cell, 1, "cell"))
    m.d.sync += masked.eq(Mux(delayed(m, op.subtract_s, 1, "subtract_s"), held, 0))  # cycle 2
    m.d.sync += total.eq(delayed(m, op.negate, 2, "negate") - masked)  # cycle 3
    return total


class SlotAccumulator(wiring.Component):
    """z of one neuron lane: ``z[group] = (0 if first else z[group]) + c``, one slot per cycle, back to back.

    Parameters
    ----------
    config : Config
    platform : "generic" or "ecp5"
        See :class:`~reverb_fpga.hw.carry.ControlledAdder`.

    Members
    -------
    op : In(accumulate_layout)
        Every cycle; with ``enable`` = 0, z is only read.
    p : In(ArrayLayout(acc_width, slots))
        P of this lane in each slot, in the cycle after ``store``.
    store : In(store_layout)
        One of them is kept. Operations of ``store_to_op`` cycles later see it.
    offset : In(signed(acc_width + 1))
        ``negate - S``, without S where it is not subtracted, in cycle ``offset_at``. With it, the negated P is an
        inverted one: ``-P = ~P + 1``.
    z : Out(signed(z_width))
        The new z of the group, in cycle ``delay``.
    """

    store_to_op = 2
    offset_at = 3
    delay = 6

    def __init__(self, config: Config, platform: Platform = "generic") -> None:
        self.config = config
        self.platform: Platform = platform
        super().__init__(
            {
                "op": In(accumulate_layout(config)),
                "p": In(data.ArrayLayout(config.acc_width, config.slots)),
                "store": In(store_layout(config)),
                "offset": In(signed(config.acc_width + 1)),
                "z": Out(signed(config.z_width)),
            }
        )

    @staticmethod
    def model(config: Config, z: int, p: int, s: int, entry: Mapping[str, int]) -> int:
        """Integer-exact z after one slot entry. Raises OverflowError where the compiler's proof would be broken."""
        current = p << entry["shift"]
        if entry["negate"]:
            current = -current
        if entry["subtract_s"]:
            current -= s
        total = current + (0 if entry["first"] else z)
        low, high = limits(config.z_width)
        if not (low <= current <= high and low <= total <= high):
            raise OverflowError(f"synaptic current {current}, sum {total} exceed {config.z_width} bits")
        return total

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.z_width
        # copies in every lane, for the fan-out
        op = data.View(self.op.shape(), copied(m, self.op, "op"))
        addend = copied(m, self.offset, "addend")

        write = data.View(self.store.shape(), copied(m, self.store, "store"))
        arrived = chosen(m, [self.p[slot] for slot in range(self.config.slots)], write.others)
        # Nothing in the pipeline needs a reset, and without it a masked register is one flip-flop, without a LUT.
        picked = Signal(self.config.acc_width, reset_less=True)
        m.d.sync += picked.eq(captured_memory(m, "p", write, arrived, op.cell))  # cycle 2
        # Shifters, not multipliers: those stand in few rows, and their wires were what could not be routed.
        finely = Signal(self.config.acc_width + 3, reset_less=True)
        shifted, current = Signal(signed(width), reset_less=True), Signal(signed(width), reset_less=True)
        shift, coarse = delayed(m, op.shift[:2], 1, "shift"), delayed(m, op.shift[2:], 2, "coarse")
        negate = delayed(m, op.negate, 3, "negate")
        m.d.sync += finely.eq(picked << shift)  # cycle 3
        m.d.sync += shifted.eq(finely << (coarse << 2))  # cycle 4
        enable = delayed(m, op.enable, 3, "enable")
        m.submodules.negating = negating = ControlledAdder(width, inverts=True, platform=self.platform)
        m.d.comb += [negating.a.eq(addend), negating.b.eq(shifted), negating.control.eq(negate)]
        m.d.sync += current.eq(Mux(enable, negating.o.as_signed(), 0))  # cycle 5

        group, keeps = delayed(m, op.group, 4, "group"), delayed(m, ~(op.first & op.enable), 4, "keeps")
        m.submodules.store = store = memory.Memory(
            shape=signed(width), depth=self.config.z_depth, init=[], attrs=DISTRIBUTED
        )
        read, update = store.read_port(domain="comb"), store.write_port()
        m.submodules.adding = adding = ControlledAdder(width, inverts=False, platform=self.platform)
        m.d.comb += [adding.a.eq(current), adding.b.eq(read.data), adding.control.eq(keeps)]
        m.d.comb += [
            read.addr.eq(group),
            update.addr.eq(group),
            update.data.eq(adding.o),
            update.en.eq(delayed(m, enable, 1, "update")),
        ]
        m.d.sync += self.z.eq(adding.o)
        return m
