"""Masked adder: pairs of activation codes, each counted only where its weight bit is 1."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..carry import NOTHING, Platform, carry_chain
from ..contract import EVENT_VALUE_BITS
from ..errors import InputError

__all__ = ["MaskedPairs"]

# LUT4 of a CCU2C: (A & B) ^ (C & D). Its lower four bits, A & B, are the carry where that is 0, i.e. where both or
# neither masked bit is 1. So one LUT per bit masks two operands and adds them.
_MASKED_ADD = 0x7888
_PAIRS_OF_CHAIN = 2


class MaskedPairs(wiring.Component):
    """Sums ``x[2k] * mask[2k] + x[2k+1] * mask[2k+1]`` of one lane.

    Parameters
    ----------
    ports : int
        Number of codes, even.
    platform : "generic" or "ecp5"
        Plain operators, or carry chain primitives of the ECP5. They compute the same (``tests/test_hw_lanes.py``).

    Members
    -------
    x : In(ArrayLayout(8, ports))
    mask : In(ports)
    o : Out(ArrayLayout(9, ports // 2))
        ``delay`` cycles later.
    """

    delay = 1

    def __init__(self, ports: int, platform: Platform = "generic") -> None:
        if ports % 2:
            raise InputError(f"masked adder: {ports} ports, must be even")
        if platform not in ("generic", "ecp5"):
            raise InputError(f"masked adder: no mapping for {platform!r}; there are: generic, ecp5")
        self.ports = ports
        self.platform = platform
        super().__init__(
            {
                "x": In(data.ArrayLayout(EVENT_VALUE_BITS, ports)),
                "mask": In(ports),
                "o": Out(data.ArrayLayout(EVENT_VALUE_BITS + 1, ports // 2)),
            }
        )

    @staticmethod
    def model(x: Sequence[int], mask: Sequence[int]) -> list[int]:
        """What ``o`` is, ``delay`` cycles after codes ``x`` and mask bits ``mask``."""
        values = [code * bit for code, bit in zip(x, mask, strict=True)]
        return [a + b for a, b in zip(values[::2], values[1::2], strict=True)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sums = self._chain(m) if self.platform == "ecp5" else self._operators()
        m.d.sync += [self.o[k].eq(value) for k, value in enumerate(sums)]
        return m

    def _operators(self) -> list[Value]:
        masked = [Mux(self.mask[k], self.x[k], 0) for k in range(self.ports)]
        return [masked[k] + masked[k + 1] for k in range(0, self.ports, 2)]

    def _chain(self, m: Module) -> list[Value]:
        """A carry chain for every two pairs; a zero bit after each shows its carry and starts the next with none.

        One through all pairs would save a cell, but the way along it is part of the longest paths.
        """
        step = EVENT_VALUE_BITS + 1
        found: list[Value] = []
        for first in range(0, self.ports, 2 * _PAIRS_OF_CHAIN):
            bits: list[tuple[Value, ...]] = []
            for k in range(first, min(first + 2 * _PAIRS_OF_CHAIN, self.ports), 2):
                bits += [
                    (self.x[k][bit], self.mask[k], self.x[k + 1][bit], self.mask[k + 1]) for bit in range(step - 1)
                ]
                bits.append(NOTHING)
            sums = carry_chain(m, _MASKED_ADD, bits, f"pairs_{first // 2}")
            found += [Cat(sums[k : k + step]) for k in range(0, len(bits), step)]
        return found
