"""Balanced, pipelined adder tree."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["AdderTree"]


class AdderTree(wiring.Component):
    """Sum of ``inputs`` unsigned numbers, one register per level.

    Members
    -------
    i : In(ArrayLayout(width, inputs))
    o : Out(width + ceil(log2(inputs)))
        The sum, ``delay`` cycles later. Exact.
    """

    def __init__(self, inputs: int, width: int) -> None:
        self.inputs = inputs
        self.width = width
        self.delay = ceil_log2(inputs)
        super().__init__(
            {
                "i": In(data.ArrayLayout(width, inputs)),
                "o": Out(width + self.delay),
            }
        )

    @staticmethod
    def model(values: Sequence[int]) -> int:
        """What ``o`` is, ``delay`` cycles after ``i`` was ``values``."""
        return sum(values)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        level: list[Value] = [self.i[k] for k in range(self.inputs)]
        depth = 0
        while len(level) > 1:
            sums: list[Value] = []
            for k in range(0, len(level), 2):
                pair = level[k : k + 2]
                node = Signal(self.width + depth + 1, name=f"sum_{depth}_{k // 2}")
                m.d.sync += node.eq(pair[0] + pair[1] if len(pair) == 2 else pair[0])
                sums.append(node)
            level = sums
            depth += 1
        m.d.comb += self.o.eq(level[0])
        return m
