"""Row mode: the three columns that a pass adds to, and what of their sums waits for the next pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..carry import ControlledAdder, Platform, carry_chain
from ..contract import EVENT_VALUE_BITS, ROW_CELLS, ROW_TAPS
from ..copies import copied
from ..memory import DISTRIBUTED
from .cluster import BeatRegisters, BeatValues, lane_delay
from .masked import MaskedPairs
from .tree import AdderTree

__all__ = ["EitherAdder", "RowCluster", "RowFlags", "RowLanes", "RowSumLane", "row_sums"]

# LUT4 of a CCU2C: A ^ (D ? B : C). Its lower four bits are A, the carry where A and what is added to it are alike.
_ADD_EITHER = 0x665A


def row_sums(beats: Iterable[BeatValues], columns: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Sums of one channel, finished column first, of every captured pass.

    ``columns``: its three sums of every pass that ends within ``beats``. In gather mode they are what is captured. In
    row mode the first two get what the two columns before left in their cell.
    """
    waiting: dict[int, tuple[int, int]] = {}
    for beat, (last, middle, first) in zip((beat for beat in beats if beat.last), columns, strict=True):
        begun, grown = waiting.get(beat.cell, (0, 0)) if beat.keep else (0, 0)
        if beat.keep:
            waiting[beat.cell] = (first, begun + middle)
        if beat.capture:
            yield grown + last, begun + middle, first


class RowFlags(wiring.Component):
    """The flags of a beat, one cycle before the accumulators add its sums: each channel has copies, for the fan-out.

    Members
    -------
    valid, first, last, keep, capture, cell : In
        Of :class:`Beat`.
    more_out, keep_out, capture_out, cell_out : Out
        ``more_out`` is ``first`` inverted. ``keep_out`` and ``capture_out`` are 0 in all cycles but that of the last
        beat of a pass.
    """

    def __init__(self, ports: int) -> None:
        self.delay = lane_delay(ports) - 2
        cell = range(ROW_CELLS)
        flags = {name: In(1) for name in ("valid", "first", "last", "keep", "capture")}
        outs = {name: Out(1) for name in ("more_out", "keep_out", "capture_out")}
        super().__init__({**flags, **outs, "cell": In(cell), "cell_out": Out(cell)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ends = self.valid & self.last
        now = Cat(~(self.valid & self.first), self.keep & ends, self.capture & ends, self.cell)
        for step in range(self.delay):
            later = Signal(len(now), name=f"flags_{step}")
            m.d.sync += later.eq(now)
            now = later
        m.d.comb += Cat(self.more_out, self.keep_out, self.capture_out, self.cell_out).eq(now)
        return m


class EitherAdder(wiring.Component):
    """``i + (own ? a : b)``, without a register; one LUT per bit on ECP5.

    Members
    -------
    i : In(in_width)
    a, b : In(width)
    own : In(1)
    o : Out(width)
    """

    def __init__(self, in_width: int, width: int, platform: Platform = "generic") -> None:
        self.width = width
        self.platform: Platform = platform
        super().__init__({"i": In(in_width), "a": In(width), "b": In(width), "own": In(1), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.platform == "generic":
            m.d.comb += self.o.eq(self.i + Mux(self.own, self.a, self.b))
            return m
        i = Cat(self.i, Const(0, self.width))
        bits = [(i[k], self.a[k], self.b[k], self.own) for k in range(self.width)]
        m.d.comb += self.o.eq(carry_chain(m, _ADD_EITHER, bits))
        return m


class RowLanes(wiring.Component):
    """The three accumulators of a channel: a filter of three taps in transposed form.

    The sums of a pass are those of the taps 2, 1 and 0, for the output columns x - 2, x - 1 and x of a source column x.
    Each begins with what the column has grown to in the passes before, which waits in a cell of distributed RAM, and
    which is what its other neighbour left there. Whatever a row begins with has gone when its first column is finished,
    so nothing is ever cleared. In gather mode all three begin with a cell that is never written and holds 0.

    Parameters
    ----------
    in_width, width : int
        Bits of the sum of a beat, and of the accumulators.
    platform : "generic" or "ecp5"
        Plain operators, or the carry chain that adds either of two numbers (``tests/test_hw_lanes.py``).

    Members
    -------
    i : In(ArrayLayout(in_width, 3))
        Sums of a beat; 0 when there is none.
    more : In(1)
        Not the first beat of a pass.
    keep, capture, cell : In
        See :class:`RowFlags`.
    p : Out(ArrayLayout(width, 3))
        From the cycle after ``capture`` on: the finished column; in gather mode all three sums.
    """

    def __init__(self, in_width: int, width: int, platform: Platform = "generic") -> None:
        self.width = width
        self.platform: Platform = platform
        super().__init__(
            {
                "i": In(data.ArrayLayout(in_width, ROW_TAPS)),
                "more": In(1),
                "keep": In(1),
                "capture": In(1),
                "cell": In(range(ROW_CELLS)),
                "p": Out(data.ArrayLayout(width, ROW_TAPS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        waiting = data.StructLayout({"begun": self.width, "grown": self.width})
        m.submodules.waiting = store = memory.Memory(shape=waiting, depth=ROW_CELLS, init=[], attrs=DISTRIBUTED)
        read, write = store.read_port(domain="comb"), store.write_port()
        following = []
        for tap, begin in enumerate((read.data.grown, read.data.begun)):
            total = Signal(self.width, name=f"total_{tap}")
            m.submodules[f"add_{tap}"] = either = EitherAdder(len(self.i[tap]), self.width, self.platform)
            m.d.comb += [either.i.eq(self.i[tap]), either.own.eq(self.more), either.a.eq(total), either.b.eq(begin)]
            m.d.sync += total.eq(either.o)
            following.append(either.o)
        # the last one begins with nothing: a constant in place of b would need a wire
        first = Signal(self.width, name="total_2")
        m.submodules.add_2 = alone = ControlledAdder(self.width, inverts=False, platform=self.platform)
        m.d.comb += [alone.a.eq(self.i[2]), alone.b.eq(first), alone.control.eq(self.more)]
        m.d.sync += first.eq(alone.o)
        following.append(alone.o)
        m.d.comb += [
            read.addr.eq(self.cell),
            write.addr.eq(self.cell),
            write.en.eq(self.keep),
            write.data.begun.eq(following[2]),
            write.data.grown.eq(following[1]),
        ]
        with m.If(self.capture):
            m.d.sync += [self.p[tap].eq(value) for tap, value in enumerate(following)]
        return m


def _beat_members(ports: int) -> dict[str, In]:
    """What clusters and the lane of S are told alike."""
    flags = {name: In(1) for name in ("valid", "first", "last", "keep", "capture")}
    return {**flags, "cell": In(range(ROW_CELLS)), "x": In(data.ArrayLayout(EVENT_VALUE_BITS, ports))}


class RowCluster(wiring.Component):
    """A cluster whose ``lanes`` channels have three lanes each: of three columns, or of three channels in gather mode.

    Keeps its hierarchy through synthesis, as :class:`Cluster` does. Members as there, those of :class:`RowFlags`, and

    Members
    -------
    row : In(ArrayLayout(3 * lanes, ports))
        Bit ``tap * lanes + lane``; the tap of the column that is finished first.
    p : Out(ArrayLayout(acc_width, 3 * lanes))
        In the same order.
    """

    def __init__(self, ports: int, lanes: int, acc_width: int, platform: Platform = "generic") -> None:
        self.ports = ports
        self.lanes = lanes
        self.acc_width = acc_width
        self.platform: Platform = platform
        self.delay = lane_delay(ports)
        super().__init__(
            {
                **_beat_members(ports),
                "row": In(data.ArrayLayout(ROW_TAPS * lanes, ports)),
                "p": Out(data.ArrayLayout(acc_width, ROW_TAPS * lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        codes, flags = _beat_registers(m, self, self.ports)
        rows = Signal.like(self.row)
        m.d.sync += rows.eq(self.row)
        for channel in range(self.lanes):
            sums = []
            lanes = [tap * self.lanes + channel for tap in range(ROW_TAPS)]
            for lane in lanes:
                m.submodules[f"pairs_{lane}"] = pairs = MaskedPairs(self.ports, self.platform)
                m.d.comb += [pairs.x.eq(codes), pairs.mask.eq(Cat(rows[port][lane] for port in range(self.ports)))]
                sums.append(_tree(m, f"tree_{lane}", pairs.o))
            finished = _lanes(m, f"channel_{channel}", sums, flags, self.acc_width, self.platform)
            m.d.comb += [self.p[lane].eq(finished.p[tap]) for tap, lane in enumerate(lanes)]
        return m


class RowSumLane(wiring.Component):
    """The lane of the unmasked sum S. Members and timing as :class:`RowCluster`, without rows."""

    def __init__(self, ports: int, acc_width: int, platform: Platform = "generic") -> None:
        self.ports = ports
        self.acc_width = acc_width
        self.platform: Platform = platform
        super().__init__({**_beat_members(ports), "s": Out(acc_width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        codes, flags = _beat_registers(m, self, self.ports)
        pairs = Signal(data.ArrayLayout(EVENT_VALUE_BITS + 1, self.ports // 2))
        m.d.sync += [pairs[k].eq(codes[2 * k] + codes[2 * k + 1]) for k in range(self.ports // 2)]
        total = _tree(m, "tree", pairs)
        finished = _lanes(m, "lanes", [total] * ROW_TAPS, flags, self.acc_width, self.platform)
        m.d.comb += self.s.eq(finished.p[0])
        return m


def _beat_registers(m: Module, block: RowCluster | RowSumLane, ports: int) -> tuple[data.View, RowFlags]:
    """Codes one cycle late, and the flags for the accumulators."""
    m.submodules.beat = beat = BeatRegisters(ports)
    m.submodules.flags = flags = RowFlags(ports)
    m.d.comb += [getattr(beat, name).eq(getattr(block, name)) for name in ("valid", "first", "last", "x")]
    m.d.comb += [
        getattr(flags, name).eq(getattr(block, name)) for name in ("valid", "first", "last", "keep", "capture", "cell")
    ]
    return beat.x_out, flags


def _tree(m: Module, name: str, pairs: data.View) -> Value:
    m.submodules[name] = tree = AdderTree(pairs.shape().length, EVENT_VALUE_BITS + 1)
    m.d.comb += tree.i.eq(pairs)
    return tree.o


def _lanes(m: Module, name: str, sums: list[Value], flags: RowFlags, width: int, platform: Platform) -> RowLanes:
    m.submodules[name] = lanes = RowLanes(len(sums[0]), width, platform)
    m.d.comb += [lanes.i[tap].eq(value) for tap, value in enumerate(sums)]
    m.d.comb += [
        getattr(lanes, flag).eq(copied(m, getattr(flags, f"{flag}_out"), f"{name}_{flag}"))
        for flag in ("more", "keep", "capture", "cell")
    ]
    return lanes
