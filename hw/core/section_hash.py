"""CRC-32 of the loaded sections, read back over the internal bus."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .. import contract
from ..bus import HostBus
from ..contract import CRC_WORD, DESCRIPTOR_WORDS, Region
from ..crc import crc32
from ..signatures import field_layout

__all__ = ["SECTIONS", "SectionHash"]

SECTIONS = {
    Region.DESC: None,  # n_descriptors * DESCRIPTOR_WORDS
    Region.SLOT: "n_slot_entries",
    Region.PARAM: "n_param_words",
    Region.WEIGHT: "n_weight_words",
    Region.ACT: "n_act_words",
    Region.COUNT: "n_count_words",
}
"""Hashed regions in order, and the PROGRAM field that holds their length in words."""


class SectionHash(wiring.Component):
    """Reads every section, a word in about six cycles, and takes the CRC-32 over little-endian words, as ``zlib`` does.

    Everything that decides a result is in it, descriptor 0 too; only the word that holds the CRC counts as 0.

    Members
    -------
    program : In(layout of PROGRAM_FIELDS)
        Stable from start to done; ``n_descriptors`` at least 1.
    start : In(1)
    bus : Out(HostBus())
    done : Out(1)
        Pulse; ``crc32`` is valid from then on until the next start.
    crc32 : Out(32)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "program": In(field_layout(contract.PROGRAM_FIELDS, DESCRIPTOR_WORDS)),
                "start": In(1),
                "bus": Out(HostBus()),
                "done": Out(1),
                "crc32": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = unit = crc32(contract.WORD_BITS)
        m.d.comb += self.crc32.eq(unit.crc)

        section = Signal(range(len(SECTIONS) + 1))
        offset, end = Signal(contract.OFFSET_BITS + 1), Signal(contract.OFFSET_BITS + 1)
        word, valid = Signal(contract.WORD_BITS), Signal()
        of_word = Signal(exact_log2(DESCRIPTOR_WORDS), name="zero")
        ends = [
            Cat(of_word, self.program.n_descriptors) if field is None else self.program[field]
            for field in SECTIONS.values()
        ]
        regions = Array(int(region) for region in SECTIONS)
        m.d.comb += [
            self.bus.addr.eq(Cat(offset[: contract.OFFSET_BITS], regions[section])),
            unit.start.eq(self.start),
            unit.valid.eq(valid),
            unit.data.eq(word),
        ]
        own = Signal()  # the CRC itself
        m.d.comb += own.eq((section == 0) & (offset == CRC_WORD))
        m.d.sync += [valid.eq(0), word.eq(Mux(own, 0, self.bus.r_data))]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += section.eq(0)
                with m.If(self.start):
                    m.next = "SECTION"
            with m.State("SECTION"):
                m.d.sync += [end.eq(Array(ends)[section]), offset.eq(0)]
                m.next = "COMPARE"
                with m.If(section == len(SECTIONS)):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("COMPARE"):
                m.next = "READ"
                with m.If(offset == end):
                    m.d.sync += section.eq(section + 1)
                    m.next = "SECTION"
            with m.State("READ"):
                m.d.comb += self.bus.valid.eq(1)
                with m.If(self.bus.ready):
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(self.bus.r_valid):
                m.d.sync += [valid.eq(1), offset.eq(offset + 1)]
                m.next = "COMPARE"
        return m
