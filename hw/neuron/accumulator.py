"""From masked sums to the synaptic current: shift, negate, subtract S, add to z (numerics.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..copies import copied
from ..memory import DISTRIBUTED
from ..signatures import CAPTURED_PASSES, slot_layout
from .fixed import delayed, limits

__all__ = ["SlotAccumulator", "accumulate_layout", "offset"]


def accumulate_layout(config: Config) -> data.StructLayout:
    """What one cycle of the accumulators does, for all lanes alike.

    ``queued`` and ``slot`` select P; ``enable`` is 0 where nothing is added (repeats of a static input only read z).
    """
    return data.StructLayout(
        {
            "queued": range(CAPTURED_PASSES),
            "slot": range(config.slots) if config.slots > 1 else 1,
            "group": range(config.z_depth),
            "shift": slot_layout()["shift"].shape,
            "negate": 1,
            "subtract_s": 1,
            "first": 1,
            "enable": 1,
        }
    )


def _queue(m: Module, name: str, strobe: Value, tail: Value, queued: Value, value: Value) -> Value:
    """Values at a strobe, kept at place ``tail`` of CAPTURED_PASSES; the one at place ``queued``.

    Everything is registered first, in each user of its own, so that the wide nets from the lane array end here.
    """
    late_strobe, late_tail = (
        copied(m, signal, f"{name}_{what}") for what, signal in (("strobe", strobe), ("tail", tail))
    )
    late_value = delayed(m, value, 1, f"{name}_value")
    m.submodules[f"{name}_queue"] = store = memory.Memory(
        shape=len(value), depth=CAPTURED_PASSES, init=[], attrs=DISTRIBUTED
    )
    write, read = store.write_port(), store.read_port(domain="comb")
    m.d.comb += [write.addr.eq(late_tail), write.data.eq(late_value), write.en.eq(late_strobe), read.addr.eq(queued)]
    return read.data


def offset(m: Module, op: data.View, strobe: Value, tail: Value, s: Value) -> Value:
    """``offset`` of :class:`SlotAccumulator`, the same for all, when ``op``, ``strobe`` and ``tail`` go to them now."""
    masked, total = Signal(s.shape()), Signal(signed(len(s) + 1))
    held = _queue(m, "s", strobe, tail, delayed(m, op.queued, 1, "queued"), s)
    m.d.sync += masked.eq(Mux(delayed(m, op.subtract_s, 1, "subtract_s"), held, 0))  # cycle 2
    m.d.sync += total.eq(delayed(m, op.negate, 2, "negate") - masked)  # cycle 3
    return total


class SlotAccumulator(wiring.Component):
    """z of one neuron lane: ``z[group] = (0 if first else z[group]) + c``, one slot per cycle, back to back.

    Parameters
    ----------
    config : Config

    Members
    -------
    op : In(accumulate_layout)
        Every cycle; with ``enable`` = 0, z is only read.
    p : In(ArrayLayout(acc_width, slots))
        P of this lane in each slot.
    strobe : In(1)
        P is that of a new pass, which is queued. It may come every cycle; operations of ``strobe_to_op`` cycles later
        see the pass.
    tail : In(range(CAPTURED_PASSES))
        Its place in the queue.
    offset : In(signed(acc_width + 1))
        ``negate - S``, without S where it is not subtracted, in cycle ``offset_at``. With it, the negated P is an
        inverted one: ``-P = ~P + 1``.
    z : Out(signed(z_width))
        The new z of the group, in cycle ``delay``.
    """

    strobe_to_op = 1
    offset_at = 3
    delay = 6

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "op": In(accumulate_layout(config)),
                "p": In(data.ArrayLayout(config.acc_width, config.slots)),
                "strobe": In(1),
                "tail": In(range(CAPTURED_PASSES)),
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

        picked = Signal(self.config.acc_width)
        held = _queue(m, "p", self.strobe, self.tail, op.queued, self.p.as_value())
        choices = Array(held.word_select(slot, self.config.acc_width) for slot in range(self.config.slots))
        m.d.sync += picked.eq(choices[op.slot] if self.config.slots > 1 else choices[0])  # cycle 2
        # Shifters, not multipliers: those stand in few rows, and their wires were what could not be routed.
        finely, shifted = Signal(self.config.acc_width + 3), Signal(signed(width))
        shift, coarse = delayed(m, op.shift[:2], 1, "shift"), delayed(m, op.shift[2:], 2, "coarse")
        negate = delayed(m, op.negate, 2, "negate")
        m.d.sync += finely.eq(picked << shift)  # cycle 3
        m.d.sync += shifted.eq((finely << (coarse << 2)) ^ negate.replicate(width))  # cycle 4
        enable_early = delayed(m, op.enable, 3, "enable")
        current = Signal(signed(width))
        m.d.sync += current.eq(Mux(enable_early, shifted + addend, 0))  # cycle 5

        late = Signal(self.op.shape())
        m.d.comb += late.as_value().eq(delayed(m, op, 4, "op"))
        m.submodules.store = store = memory.Memory(
            shape=signed(width), depth=self.config.z_depth, init=[], attrs=DISTRIBUTED
        )
        read = store.read_port(domain="comb")
        write = store.write_port()
        total = Signal(signed(width))
        m.d.comb += [
            read.addr.eq(late.group),
            total.eq(current + Mux(late.first & late.enable, 0, read.data)),
            write.addr.eq(late.group),
            write.data.eq(total),
            write.en.eq(late.enable),
        ]
        m.d.sync += self.z.eq(total)
        return m
