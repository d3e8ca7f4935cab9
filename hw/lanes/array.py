"""The lane array: clusters of lanes, the lane of S, and the capture strobe."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..carry import Platform
from ..config import Config
from ..signatures import Beat, Captured
from .cluster import BeatValues, Cluster, SumLane, lane_delay, masked_sums
from .row import RowCluster, RowSumLane, row_sums

__all__ = ["LaneArray", "array_delay"]


def array_delay(config: Config) -> int:
    """Cycles from the last beat of a pass to ``strobe``, a cycle before its sums."""
    return lane_delay(config.ports) - 1


class LaneArray(wiring.Component):
    """Adds the events of a beat to N lanes, and captures the sums of a pass.

    Parameters
    ----------
    config : Config
    platform : "generic" or "ecp5"
        See :class:`~reverb_fpga.hw.lanes.MaskedPairs`.

    Members
    -------
    beat : In(Beat(config))
    captured : Out(Captured(config))
        ``strobe`` pulses ``delay`` cycles after the last beat of a pass. ``release`` is not used here: whoever issues
        beats must not issue the last beat of a pass before the sums of the pass before have been released.
    busy : Out(1)
        A beat is on its way; 0 from the cycle after ``strobe``.
    """

    def __init__(self, config: Config, platform: Platform = "generic") -> None:
        self.config = config
        self.platform: Platform = platform
        self.delay = array_delay(config)
        super().__init__(
            {
                "beat": In(Beat(config)),
                "captured": Out(Captured(config)),
                "busy": Out(1),
            }
        )

    @staticmethod
    def module_names(config: Config) -> list[str]:
        """Submodules with registers of their own against fan-out: synthesis must keep their hierarchy."""
        return [f"lane_cluster_{number}" for number in (*range(config.clusters), "s")]

    def model(self, beats: Sequence[BeatValues]) -> list[tuple[list[int], int]]:
        """``(P, S)`` of every pass that ends within ``beats``."""
        sums, totals = masked_sums(beats, self.config.lanes), SumLane.model(beats)
        if self.config.taps == 1:
            return list(zip(sums, totals, strict=True))
        half = self.config.row_lanes
        channels = [list(row_sums(beats, [tuple(one[lane::half]) for one in sums])) for lane in range(half)]
        finished = [[values[tap] for tap in range(3) for values in one] for one in zip(*channels, strict=True)]
        total = [s for s, _, _ in row_sums(beats, [(one,) * 3 for one in totals])]
        return list(zip(finished, total, strict=True))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        if config.taps > 1:
            return self._row_mode(m)
        size = config.lanes_per_cluster
        *names, sum_name = self.module_names(config)
        for number, name in enumerate(names):
            cluster = Cluster(config.ports, size, config.acc_width, self.platform)
            m.submodules[name] = cluster
            m.d.comb += [
                cluster.valid.eq(self.beat.valid),
                cluster.first.eq(self.beat.first),
                cluster.last.eq(self.beat.last),
                cluster.x.eq(self.beat.x),
            ]
            for port in range(config.ports):
                m.d.comb += cluster.row[port].eq(self.beat.row[port].word_select(number, size))
            for lane in range(size):
                m.d.comb += self.captured.p[number * size + lane].eq(cluster.p[lane])

        m.submodules[sum_name] = total = SumLane(config.ports, config.acc_width)
        m.d.comb += [
            total.valid.eq(self.beat.valid),
            total.first.eq(self.beat.first),
            total.last.eq(self.beat.last),
            total.x.eq(self.beat.x),
            self.captured.s.eq(total.s),
        ]

        self._strobe(m, self.beat.valid & self.beat.last)
        return m

    def _strobe(self, m: Module, captured: Value) -> None:
        valid, last = Signal(self.delay), Signal(self.delay)
        m.d.sync += [
            valid.eq(Cat(self.beat.valid, valid)),
            last.eq(Cat(captured, last)),
        ]
        m.d.comb += [self.captured.strobe.eq(last[-1]), self.busy.eq(self.beat.valid | valid.any())]

    def _row_mode(self, m: Module) -> Module:
        """Clusters of three lanes a channel; the lanes of a tap follow each other over all clusters."""
        config, beat = self.config, self.beat
        size = config.lanes_per_cluster
        *names, sum_name = self.module_names(config)
        blocks: list[RowCluster | RowSumLane] = []
        for number, name in enumerate(names):
            m.submodules[name] = cluster = RowCluster(config.ports, size, config.acc_width, self.platform)
            blocks.append(cluster)
            at = [tap * config.row_lanes + number * size + lane for tap in range(config.taps) for lane in range(size)]
            for port in range(config.ports):
                m.d.comb += cluster.row[port].eq(Cat(beat.row[port][lane] for lane in at))
            m.d.comb += [self.captured.p[lane].eq(cluster.p[index]) for index, lane in enumerate(at)]
        m.submodules[sum_name] = total = RowSumLane(config.ports, config.acc_width, self.platform)
        m.d.comb += self.captured.s.eq(total.s)
        for block in (*blocks, total):
            m.d.comb += [
                getattr(block, name).eq(getattr(beat, name))
                for name in ("valid", "first", "last", "x", "keep", "capture", "cell")
            ]
        self._strobe(m, beat.valid & beat.last & beat.capture)
        return m
