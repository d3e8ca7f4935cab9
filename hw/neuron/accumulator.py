"""From masked sums to the synaptic current: shift, negate, subtract S, add to z (numerics.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .fixed import delayed, limits

__all__ = ["Z_DEPTH", "SlotAccumulator", "accumulate_layout", "subtrahend"]

Z_DEPTH = 16
"""Groups that may be between their first and their final slot; z is addressed by ``group % Z_DEPTH``."""


def accumulate_layout(config: Config) -> data.StructLayout:
    """What one cycle of the accumulators does, for all lanes alike.

    ``slot`` selects P; ``enable`` is 0 where nothing is added (repeats of a static input only read z).
    """
    return data.StructLayout(
        {
            "slot": range(config.slots) if config.slots > 1 else 1,
            "group": range(Z_DEPTH),
            "shift": 4,
            "negate": 1,
            "subtract_s": 1,
            "first": 1,
            "enable": 1,
        }
    )


def subtrahend(m: Module, config: Config, op: data.View, s: Signal) -> Signal:
    """``negate - (S if subtract_s else 0)``, for all lanes; ``SlotAccumulator.subtrahend_at`` cycles after ``op``.

    ``-X - S = ~X + (1 - S)``: the one of the two's complement is added here, once, instead of in every lane.
    """
    masked = Signal(config.acc_width)
    negate = delayed(m, op.negate, 2, "negate")
    total = Signal(signed(config.acc_width + 2))
    register = Signal(signed(config.z_width))
    # S is read in the same cycle as P: one after the operation
    m.d.sync += masked.eq(Mux(delayed(m, op.subtract_s, 1, "subtract_s"), s, 0))
    m.d.sync += total.eq(negate - masked)
    m.d.sync += register.eq(total)
    return register


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
        P of this lane in each slot; read one cycle after ``op``.
    subtrahend : In(signed(z_width))
        See :func:`subtrahend`.
    z : Out(signed(z_width))
        The new z of the group, ``delay`` cycles after ``op``.
    """

    delay = 6
    subtrahend_at = 4

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "op": In(accumulate_layout(config)),
                "p": In(data.ArrayLayout(config.acc_width, config.slots)),
                "subtrahend": In(signed(config.z_width)),
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
        # a copy of the control bits in every lane, for the fan-out
        op = Signal(self.op.shape())
        m.d.sync += op.eq(self.op)

        picked = Signal(self.config.acc_width)
        coarse = Signal(width)
        fine = Signal(width)
        current = Signal(signed(width))
        choices = Array([self.p[slot] for slot in range(self.config.slots)])
        m.d.sync += picked.eq(choices[op.slot] if self.config.slots > 1 else choices[0])
        shift = delayed(m, op.shift, 1, "shift")
        shift_low = delayed(m, shift[:2], 1, "shift_low")
        negate = delayed(m, op.negate, 2, "negate")
        with m.Switch(shift[2:]):
            for n in range(4):
                with m.Case(n):
                    m.d.sync += coarse.eq(picked << (4 * n))
        with m.Switch(shift_low):
            for n in range(4):
                with m.Case(n):
                    m.d.sync += fine.eq(Cat(coarse << n)[:width] ^ negate.replicate(width))

        late = Signal(self.op.shape())
        m.d.comb += late.as_value().eq(delayed(m, op, 4, "op"))
        enable_early = delayed(m, op.enable, 3, "enable")
        m.d.sync += current.eq(Mux(enable_early, fine.as_signed() + self.subtrahend, 0))

        m.submodules.store = store = memory.Memory(shape=signed(width), depth=Z_DEPTH, init=[])
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
