"""Row mode: the three columns that a pass adds to, and what of their sums waits for the next pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..contract import EVENT_VALUE_BITS, ROW_CELLS, ROW_TAPS
from .cluster import BeatValues, Cluster, SumLane, lane_delay
from .masked import Platform

__all__ = ["RowCluster", "RowFlags", "RowSumLane", "TapCarry", "row_sums"]

_DISTRIBUTED = {"ram_style": "distributed"}


def row_sums(beats: Iterable[BeatValues], columns: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Sums of one channel, finished column first, of every captured pass.

    ``columns``: its three sums of every pass that ends within ``beats``. In gather mode they are what is captured. In
    row mode the first gets what the two columns before left in its cell.
    """
    waiting: dict[int, tuple[int, int]] = {}
    for beat, (last, middle, first) in zip((beat for beat in beats if beat.last), columns, strict=True):
        begun, grown = waiting.get(beat.cell, (0, 0)) if beat.keep else (0, 0)
        if beat.keep:
            waiting[beat.cell] = (first, begun + middle)
        if beat.capture:
            yield grown + last, middle, first


class RowFlags(wiring.Component):
    """The flags of a beat as late as the sums of its pass.

    Members
    -------
    valid, last, keep, capture, cell : In
        Of :class:`Beat`.
    keep_out, capture_out, cell_out : Out
        When the accumulators show the sums; ``keep_out`` and ``capture_out`` are 0 in all other cycles.
    """

    def __init__(self, ports: int) -> None:
        self.delay = lane_delay(ports)
        cell = range(ROW_CELLS)
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "keep": In(1),
                "capture": In(1),
                "cell": In(cell),
                "keep_out": Out(1),
                "capture_out": Out(1),
                "cell_out": Out(cell),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ends = self.valid & self.last
        now = Cat(self.keep & ends, self.capture & ends, self.cell)
        for step in range(self.delay):
            later = Signal(len(now), name=f"flags_{step}")
            m.d.sync += later.eq(now)
            now = later
        m.d.comb += Cat(self.keep_out, self.capture_out, self.cell_out).eq(now)
        return m


class TapCarry(wiring.Component):
    """Adds to a column what the two columns before it have left for it: a filter of three taps in transposed form.

    The sums of a pass are those of the taps 2, 1 and 0, for the output columns x - 2, x - 1 and x of a source column x.
    Whatever a row begins with has gone when its first column is finished, so nothing is ever cleared.

    Members
    -------
    column : In(ArrayLayout(width, 3))
        Sums of a pass.
    keep, capture, cell : In
        See :class:`RowFlags`. The last cell is never kept in: it holds 0, for gather mode.
    p : Out(ArrayLayout(width, 3))
        From the cycle after ``capture`` on: the finished column; in gather mode all three sums.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        columns = data.ArrayLayout(width, ROW_TAPS)
        super().__init__(
            {
                "column": In(columns),
                "keep": In(1),
                "capture": In(1),
                "cell": In(range(ROW_CELLS)),
                "p": Out(columns),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        waiting = data.StructLayout({"begun": self.width, "grown": self.width})
        m.submodules.waiting = store = memory.Memory(shape=waiting, depth=ROW_CELLS, init=[], attrs=_DISTRIBUTED)
        read, write = store.read_port(domain="comb"), store.write_port()
        m.d.comb += [
            read.addr.eq(self.cell),
            write.addr.eq(self.cell),
            write.en.eq(self.keep),
            write.data.begun.eq(self.column[2]),
            write.data.grown.eq(read.data.begun + self.column[1]),
        ]
        with m.If(self.capture):
            m.d.sync += [
                self.p[0].eq(read.data.grown + self.column[0]),
                self.p[1].eq(self.column[1]),
                self.p[2].eq(self.column[2]),
            ]
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
        self.delay = lane_delay(ports) + 1
        super().__init__(
            {
                **_beat_members(ports),
                "row": In(data.ArrayLayout(ROW_TAPS * lanes, ports)),
                "p": Out(data.ArrayLayout(acc_width, ROW_TAPS * lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lanes = lanes = Cluster(self.ports, ROW_TAPS * self.lanes, self.acc_width, self.platform)
        m.d.comb += [getattr(lanes, name).eq(getattr(self, name)) for name in ("valid", "first", "last", "x", "row")]
        m.submodules.flags = flags = row_flags(m, self, self.ports)
        for lane in range(self.lanes):
            m.submodules[f"carry_{lane}"] = carry = carried(m, flags, self.acc_width)
            for tap in range(ROW_TAPS):
                at = tap * self.lanes + lane
                m.d.comb += [carry.column[tap].eq(lanes.p[at]), self.p[at].eq(carry.p[tap])]
        return m


class RowSumLane(wiring.Component):
    """The lane of the unmasked sum S. Members and timing as :class:`RowCluster`, without rows."""

    def __init__(self, ports: int, acc_width: int) -> None:
        self.ports = ports
        self.acc_width = acc_width
        super().__init__(
            {
                **_beat_members(ports),
                "s": Out(acc_width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lane = lane = SumLane(self.ports, self.acc_width)
        m.d.comb += [getattr(lane, name).eq(getattr(self, name)) for name in ("valid", "first", "last", "x")]
        m.submodules.flags = flags = row_flags(m, self, self.ports)
        m.submodules.carry = carry = carried(m, flags, self.acc_width)
        m.d.comb += [carry.column[tap].eq(lane.s) for tap in range(ROW_TAPS)]
        m.d.comb += self.s.eq(carry.p[0])
        return m


def row_flags(m: Module, block: RowCluster | RowSumLane, ports: int) -> RowFlags:
    """Delayed flags of a block's beats."""
    flags = RowFlags(ports)
    m.d.comb += [getattr(flags, name).eq(getattr(block, name)) for name in ("valid", "last", "keep", "capture", "cell")]
    return flags


def carried(m: Module, flags: RowFlags, width: int) -> TapCarry:
    """A carry that follows the flags."""
    carry = TapCarry(width)
    m.d.comb += [getattr(carry, name).eq(getattr(flags, f"{name}_out")) for name in ("keep", "capture", "cell")]
    return carry
