"""Event queue of one bank: turns the table into up to two events per cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..config import Config
from .shapes import entry_layout, left_width, pair_layout
from .table import table_size_layout

__all__ = ["BankQueue"]


class BankQueue(wiring.Component):
    """Keeps the first even and the first odd entry of the table that are left, and replaces both of them in a cycle.

    Port 0 takes the first event of the first entry. Port 1 takes the next event: of the same entry, or of the second if
    the first had only one left.

    Members
    -------
    size : In(ArrayLayout(table_size_layout(config), 2))
    even_addr, odd_addr : Out
    even, odd : In
        See :class:`BankTable`.
    active : In(1)
        A replay is under way. Until then what is loaded is loaded again.
    last : In(1)
        With a beat in this cycle, all banks will have issued all events.
    update : In(1)
        A beat is issued, or there is no replay: go on.
    load_half : In(1)
        Half of the table that is replayed next. Valid whenever the current replay could end.
    steal : In(1)
        Port 1 is not available in this cycle.
    finishing : Out(1)
        With a beat in this cycle, all events will have been issued.
    stolen : Out(1)
        ``steal`` costs an event.
    pair : Out(pair_layout(config))
        What there is to issue in this cycle.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        addr = bits_for(config.table_entries - 1)
        super().__init__(
            {
                "size": In(data.ArrayLayout(table_size_layout(config), 2)),
                "even_addr": Out(addr),
                "odd_addr": Out(addr),
                "even": In(entry_layout(config)),
                "odd": In(entry_layout(config)),
                "load_half": In(1),
                "active": In(1),
                "last": In(1),
                "update": In(1),
                "steal": In(1),
                "finishing": Out(1),
                "stolen": Out(1),
                "pair": Out(pair_layout(config)),
            }
        )

    # Everything below is chosen as if there were a beat; only the clock enable `update` knows whether there is one.
    # That takes the decision of all banks, the end of the longest path, out of the multiplexers. Nor does anything wait
    # for the end of the replay: a bank that is finishing has no more use for what it holds, and loads the next table.

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = Signal(table_size_layout(self.config))
        m.d.comb += size.eq(Mux(self.load_half, self.size[1].as_value(), self.size[0].as_value()))
        take_two = self._events_left(m, size)
        self._heads(m, size, take_two)
        return m

    def _events_left(self, m: Module, size: data.View) -> Signal:
        """Counts down the events of the replay. Says whether two go, else one goes or, when empty, none."""
        left = Signal(left_width(self.config))
        is_left = Signal(3, init=1)  # left == 0, 1, 2, registered: everything else waits for this
        take_two = Signal()
        m.d.comb += [
            take_two.eq(~is_left[0] & ~is_left[1] & ~self.steal),
            self.stolen.eq(~is_left[0] & ~is_left[1] & self.steal),
            self.finishing.eq(is_left[0] | is_left[1] | (is_left[2] & ~self.steal)),
            self.pair.valid[0].eq(~is_left[0]),
            self.pair.valid[1].eq(take_two),
        ]
        with m.If(self.update):
            with m.If(self.finishing | ~self.active):
                m.d.sync += left.eq(size.events)
                m.d.sync += is_left.eq(Mux(self.last | ~self.active, Cat(size.none, size.one, size.two), 1))
            with m.Elif(take_two):
                m.d.sync += [left.eq(left - 2), is_left.eq(Cat(left == k + 2 for k in range(3)))]
            with m.Else():
                m.d.sync += [left.eq(left - 1), is_left.eq(Cat(left == k + 1 for k in range(3)))]
        return take_two

    def _heads(self, m: Module, size: data.View, take_two: Signal) -> None:
        """The two entries at the head: what is issued of them, and how they go on."""
        layout = entry_layout(self.config)
        even, odd = Signal(layout, name="even_head"), Signal(layout, name="odd_head")
        odd_first, alone, drop_two, drop_first = Signal(), Signal(), Signal(), Signal()
        load, fresh = self.finishing | ~self.active, self.last | ~self.active
        second_alone = Mux(odd_first, even.has_one, odd.has_one)
        m.d.comb += [
            alone.eq(Mux(odd_first, odd.has_one, even.has_one)),
            drop_two.eq(take_two & alone & second_alone),
            drop_first.eq(alone | (take_two & Mux(odd_first, odd.has_two, even.has_two))),
        ]
        for head, place in ((even, self.pair.even), (odd, self.pair.odd)):
            m.d.comb += [place.addr.eq(head.addr), place.tap.eq(head.tap)]
        m.d.comb += [self.pair.odd_first.eq(odd_first), self.pair.alone.eq(alone)]
        with m.If(self.update):
            m.d.sync += odd_first.eq(~load & (odd_first ^ (drop_first & ~drop_two)))

        half = Signal()
        with m.If(self.update & load):
            m.d.sync += half.eq(self.load_half)
        parities = (
            ("even", even, self.even, self.even_addr, ~odd_first, size.even, size.entries - 1),
            ("odd", odd, self.odd, self.odd_addr, odd_first, size.odd, size.entries - 2),
        )
        for name, head, stored, addr, first, more, behind in parities:
            pop, one, two = (Signal(name=f"{name}_{what}") for what in ("pop", "one", "two"))
            m.d.comb += [
                pop.eq(Mux(first, drop_first, drop_two)),
                two.eq(first & take_two),
                one.eq(Mux(first, ~take_two, take_two & alone)),
            ]
            with m.If(self.update):
                with m.If(load | pop):
                    m.d.sync += head.eq(stored)
                with m.Else():
                    m.d.sync += self._after(head, one, two)
            m.d.comb += addr.eq(self._read_ahead(m, name, (load, pop), more & fresh, behind[1:], half))

    @staticmethod
    def _after(head: data.View, one: Signal, two: Signal) -> list[Any]:
        """One or two events of an entry, or none, have been issued, but not all."""
        number = Cat(one, two)
        return [
            head.addr.eq(head.addr + number),
            head.rest.eq(head.rest - number),
            head.has_one.eq(Mux(two, head.rest == 2, Mux(one, head.has_two, head.has_one))),
            head.has_two.eq(Mux(two, head.rest == 3, Mux(one, head.rest == 2, head.has_two))),
        ]

    def _read_ahead(
        self, m: Module, name: str, events: tuple[Value, Signal], more: Value, behind: Value, half: Signal
    ) -> Value:
        """Address of the next entry of one parity; of the first of the next replay, once there is none.

        ``events``: a table is loaded, the head is used up. ``more``, ``behind``: whether, and how many, there are
        behind the first of a replay that begins.
        """
        pointer, left = (
            Signal(bits_for(self.config.table_entries // 2 - 1), name=f"{name}_{w}") for w in ("next", "left")
        )
        any_left = Signal(name=f"{name}_any_left")
        load, pop = events
        with m.If(self.update):
            with m.If(load):
                m.d.sync += [pointer.eq(1), left.eq(behind), any_left.eq(more)]
            with m.Elif(pop):
                m.d.sync += [pointer.eq(pointer + 1), left.eq(left - 1), any_left.eq(any_left & (left != 1))]
        within = any_left & self.active
        return Cat(Mux(within, pointer, 0), Mux(within, half, self.load_half))
