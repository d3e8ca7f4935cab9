"""Gather table of one bank: two halves, of which one is filled while the other is replayed."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..config import Config
from ..contract import COUNT_BITS
from ..copies import copied
from ..memory import DISTRIBUTED
from .shapes import entry_layout, left_width, source_layout

__all__ = ["BankTable", "table_size_layout"]


def table_size_layout(config: Config) -> data.StructLayout:
    """Entries of a table, and events of all its entries.

    ``none``, ``one``, ``two``: that is how many events there are. ``even``, ``odd``: there are entries of that parity
    behind the first two. Stored, for the dispatcher's longest paths begin there.
    """
    flags = dict.fromkeys(("none", "one", "two", "even", "odd"), 1)
    return data.StructLayout({"entries": bits_for(config.table_entries), "events": left_width(config), **flags})


class BankTable(wiring.Component):
    """Entries with at least one event, in the order in which they came.

    Two memories hold the even and the odd entries, so that two consecutive entries are read at once without storing
    anything twice.

    Members
    -------
    valid, source, count, half : In
        One source record with its number of events in this bank, and the half of the table it goes to. Readable two
        cycles later.
    size : Out(ArrayLayout(table_size_layout(config), 2))
        Of each half.
    even_addr, odd_addr : In(log2(table_entries))
        ``half * table_entries/2 + entry // 2``.
    even, odd : Out(entry_layout(config))
        The entries there, in the same cycle.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        addr = bits_for(config.table_entries - 1)
        super().__init__(
            {
                "valid": In(1),
                "source": In(source_layout(config)),
                "count": In(COUNT_BITS),
                "half": In(1),
                "size": Out(data.ArrayLayout(table_size_layout(config), 2)),
                "even_addr": In(addr),
                "odd_addr": In(addr),
                "even": Out(entry_layout(config)),
                "odd": Out(entry_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry = Signal(entry_layout(self.config))
        push = Signal()
        clear = copied(m, self.valid & self.source.first, "clear")
        half = copied(m, self.half, "half")
        count = Signal(COUNT_BITS)
        m.d.sync += [
            push.eq(self.valid & self.source.push & (self.count != 0)),
            count.eq(self.count),
            entry.addr.eq(self.source.addr),
            entry.rest.eq(self.count - 1),
            entry.tap.eq(self.source.tap),
            entry.has_one.eq(self.count == 1),
            entry.has_two.eq(self.count == 2),
        ]
        number = Signal(bits_for(self.config.table_entries))  # where the entry goes
        for k in range(2):
            size = self.size[k]
            entries = Mux(clear, 0, size.entries)
            events = Mux(clear, 0, size.events)
            none, one, two = clear | size.none, ~clear & size.one, ~clear & size.two
            with m.If(half == k):
                m.d.comb += number.eq(entries)
                m.d.sync += [
                    size.entries.eq(entries + push),
                    size.events.eq(events + Mux(push, count, 0)),
                    size.none.eq(none & ~push),
                    size.one.eq(Mux(push, none & entry.has_one, one)),
                    size.two.eq(Mux(push, (none & entry.has_two) | (one & entry.has_one), two)),
                    size.even.eq(~clear & (size.even | (push & (size.entries == 2)))),
                    size.odd.eq(~clear & (size.odd | (push & (size.entries == 3)))),
                ]
        words = self.config.table_entries  # both halves of every second entry
        for parity, addr, out in ((0, self.even_addr, self.even), (1, self.odd_addr, self.odd)):
            m.submodules[f"table_{parity}"] = memory = Memory(
                shape=entry_layout(self.config), depth=words, init=[], attrs=DISTRIBUTED
            )
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(Cat(number[1 : len(number) - 1], half)),
                write.data.eq(entry),
                write.en.eq(push & (number[0] == parity)),
                read.addr.eq(addr),
                out.eq(read.data),
            ]
        return m
