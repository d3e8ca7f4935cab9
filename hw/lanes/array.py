"""The lane array: clusters of lanes, the lane of S, and the capture strobe."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..signatures import Beat, Captured
from .cluster import BeatValues, Cluster, SumLane, lane_delay, masked_sums
from .masked import Platform

__all__ = ["LaneArray"]


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
        self.delay = lane_delay(config.ports)
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
        return list(zip(masked_sums(beats, self.config.lanes), SumLane.model(beats), strict=True))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
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

        valid, last = Signal(self.delay), Signal(self.delay)
        m.d.sync += [
            valid.eq(Cat(self.beat.valid, valid)),
            last.eq(Cat(self.beat.valid & self.beat.last, last)),
        ]
        m.d.comb += [self.captured.strobe.eq(last[-1]), self.busy.eq(self.beat.valid | valid.any())]
        return m
