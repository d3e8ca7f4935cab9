"""A cluster: some lanes that share a private copy of the beat registers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..carry import Platform
from ..contract import EVENT_VALUE_BITS, ROW_CELLS
from .masked import MaskedPairs
from .tree import AdderTree

__all__ = ["Accumulator", "BeatRegisters", "BeatValues", "Cluster", "SumLane", "lane_delay", "masked_sums"]


@dataclasses.dataclass(frozen=True)
class BeatValues:
    """One valid beat, for the models: codes (ports), weight rows (ports, bit ``lane``), first and last of a pass.

    ``keep``, ``capture``, ``cell``: of row mode, as in :class:`Beat`.
    """

    x: tuple[int, ...]
    row: tuple[int, ...]
    first: bool
    last: bool
    keep: bool = False
    capture: bool = True
    cell: int = ROW_CELLS - 1


def lane_delay(ports: int) -> int:
    """Cycles from a beat to the captured sums: beat registers, masked pairs, tree, accumulator."""
    return 1 + MaskedPairs.delay + ceil_log2(ports // 2) + 1


def masked_sums(beats: Iterable[BeatValues], lanes: int) -> list[list[int]]:
    """Masked sum per lane of every pass that ends within ``beats``."""
    passes = []
    total = [0] * lanes
    for beat in beats:
        if beat.first:
            total = [0] * lanes
        for lane in range(lanes):
            total[lane] += sum(code for code, row in zip(beat.x, beat.row, strict=True) if row >> lane & 1)
        if beat.last:
            passes.append(list(total))
    return passes


class BeatRegisters(wiring.Component):
    """First pipeline stage: codes (zero when there is no beat), and the flags, as late as the accumulators want them.

    Members
    -------
    valid, first, last : In(1)
    x : In(ArrayLayout(8, ports))
    x_out : Out(ArrayLayout(8, ports))
        One cycle later.
    clear, capture : Out(1)
        For :class:`Accumulator`.
    """

    def __init__(self, ports: int) -> None:
        self.ports = ports
        codes = data.ArrayLayout(EVENT_VALUE_BITS, ports)
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "x": In(codes),
                "x_out": Out(codes),
                "clear": Out(1),
                "capture": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        steps = lane_delay(self.ports) - 1
        # `clear` comes a cycle before the first sum: the accumulator's synchronous reset, no mask in its carry chain.
        first = Signal(steps - 1)
        last = Signal(steps)
        m.d.sync += [
            self.x_out.eq(Mux(self.valid, self.x.as_value(), 0)),
            first.eq(Cat(self.valid & self.first, first)),
            last.eq(Cat(self.valid & self.last, last)),
        ]
        m.d.comb += [self.clear.eq(first[-1]), self.capture.eq(last[-1])]
        return m


class Accumulator(wiring.Component):
    """Running sum and capture register of one lane.

    Members
    -------
    i : In(in_width)
        Sum of one beat; 0 when there is none.
    clear : In(1)
        The next ``i`` is the first of a pass.
    capture : In(1)
        ``i`` is the last of a pass; ``o`` shows the sum from the next cycle on.
    o : Out(width)
    """

    def __init__(self, in_width: int, width: int) -> None:
        self.width = width
        super().__init__({"i": In(in_width), "clear": In(1), "capture": In(1), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(self.width)
        following = Signal(self.width)
        m.d.comb += following.eq(total + self.i)
        m.d.sync += total.eq(following)
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        with m.If(self.capture):
            m.d.sync += self.o.eq(following)
        return m


class Cluster(wiring.Component):
    """``lanes`` lanes over the same events.

    Keeps its hierarchy through synthesis: flattened, yosys would merge the beat registers of all clusters into one set
    of enormous fan-out.

    Members
    -------
    valid, first, last : In(1)
    x : In(ArrayLayout(8, ports))
    row : In(ArrayLayout(lanes, ports))
    p : Out(ArrayLayout(acc_width, lanes))
        Masked sums of a pass, from ``delay`` cycles after its last beat until the next capture.
    """

    def __init__(self, ports: int, lanes: int, acc_width: int, platform: Platform = "generic") -> None:
        self.ports = ports
        self.lanes = lanes
        self.acc_width = acc_width
        self.platform: Platform = platform
        self.delay = lane_delay(ports)
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "x": In(data.ArrayLayout(EVENT_VALUE_BITS, ports)),
                "row": In(data.ArrayLayout(lanes, ports)),
                "p": Out(data.ArrayLayout(acc_width, lanes)),
            }
        )

    def model(self, beats: Iterable[BeatValues]) -> list[list[int]]:
        """Masked sum per lane of every pass that ends within ``beats``."""
        return masked_sums(beats, self.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.beat = beat = BeatRegisters(self.ports)
        rows = Signal.like(self.row)
        m.d.comb += [
            beat.valid.eq(self.valid),
            beat.first.eq(self.first),
            beat.last.eq(self.last),
            beat.x.eq(self.x),
        ]
        m.d.sync += rows.eq(self.row)
        for lane in range(self.lanes):
            m.submodules[f"pairs_{lane}"] = pairs = MaskedPairs(self.ports, self.platform)
            m.d.comb += [
                pairs.x.eq(beat.x_out),
                pairs.mask.eq(Cat(rows[port][lane] for port in range(self.ports))),
            ]
            _sum_and_capture(m, str(lane), pairs.o, beat, self.p[lane])
        return m


class SumLane(wiring.Component):
    """The lane of the unmasked sum S. Members and timing as :class:`Cluster`, without rows."""

    def __init__(self, ports: int, acc_width: int) -> None:
        self.ports = ports
        self.acc_width = acc_width
        self.delay = lane_delay(ports)
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "x": In(data.ArrayLayout(EVENT_VALUE_BITS, ports)),
                "s": Out(acc_width),
            }
        )

    @staticmethod
    def model(beats: Sequence[BeatValues]) -> list[int]:
        """Sum of all codes of every pass that ends within ``beats``."""
        passes = []
        total = 0
        for beat in beats:
            total = (0 if beat.first else total) + sum(beat.x)
            if beat.last:
                passes.append(total)
        return passes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.beat = beat = BeatRegisters(self.ports)
        pairs = Signal(data.ArrayLayout(EVENT_VALUE_BITS + 1, self.ports // 2))
        m.d.comb += [
            beat.valid.eq(self.valid),
            beat.first.eq(self.first),
            beat.last.eq(self.last),
            beat.x.eq(self.x),
        ]
        m.d.sync += [pairs[k].eq(beat.x_out[2 * k] + beat.x_out[2 * k + 1]) for k in range(self.ports // 2)]
        _sum_and_capture(m, "s", pairs, beat, self.s)
        return m


def _sum_and_capture(m: Module, name: str, pairs: data.View, beat: BeatRegisters, out: Signal) -> None:
    """Tree, accumulator and capture register behind registered pair sums."""
    count = pairs.shape().length
    m.submodules[f"tree_{name}"] = tree = AdderTree(count, EVENT_VALUE_BITS + 1)
    m.submodules[f"sum_{name}"] = total = Accumulator(EVENT_VALUE_BITS + 1 + tree.delay, len(out))
    m.d.comb += [
        tree.i.eq(pairs),
        total.i.eq(tree.o),
        total.clear.eq(beat.clear),
        total.capture.eq(beat.capture),
        out.eq(total.o),
    ]
