"""Event queue of one bank: turns the table into up to two events per cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..config import Config
from .shapes import entry_layout, event_address, left_width
from .table import table_size_layout

__all__ = ["BankQueue"]


class BankQueue(wiring.Component):
    """Keeps the two entries at the head of the table in registers and replaces up to two of them per cycle.

    Port 0 takes the first event of the first entry. Port 1 takes the next event: of the same entry, or of the second if
    the first had only one left.

    Members
    -------
    size : In(ArrayLayout(table_size_layout(config), 2))
    even_addr, odd_addr : Out
    even, odd : In
        See :class:`BankTable`.
    issue : In(1)
        Issue what there is.
    update : In(1)
        ``issue``, or there is no replay.
    load, load_half : In(1)
        With ``update``: load the first entries of this half of the table, after what is issued in this cycle.
        ``load_half`` is valid whenever the current replay could end.
    begin : In(1)
        The load is good, a replay begins. Until then, loading continues.
    steal, steal_next : In(1)
        Port 1 is not available in this cycle, in the next.
    finishing : Out(1)
        With an ``issue`` in this cycle, they will have been. A register, for all banks wait for it.
    stolen : Out(1)
        ``steal`` costs an event.
    two : Out(1)
        Port 1 would be used by an issue in this cycle.
    event : Out(ArrayLayout(event_address(config), 2))
        Issued in this cycle.
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
                "load": In(1),
                "load_half": In(1),
                "begin": In(1),
                "issue": In(1),
                "update": In(1),
                "steal": In(1),
                "steal_next": In(1),
                "finishing": Out(1, init=1),
                "stolen": Out(1),
                "two": Out(1),
                "event": Out(data.ArrayLayout(event_address(config), 2)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        third, fourth = Signal(entry_layout(self.config)), Signal(entry_layout(self.config))
        take_two = self._events_left(m)
        drop_two, drop_one = self._heads(m, take_two, third, fourth)
        swap = self._read_ahead(m, drop_two, drop_one)
        m.d.comb += [
            third.eq(Mux(swap, self.odd, self.even)),
            fourth.eq(Mux(swap, self.even, self.odd)),
        ]
        return m

    # Everything below is chosen as if there were an issue; only the clock enable `update` knows whether there is one.
    # That takes the decision of all banks, the end of the longest path, out of the multiplexers.

    def _events_left(self, m: Module) -> Signal:
        """Counts down the events of the replay. Says whether two go, else one goes or, when empty, none."""
        left = Signal(left_width(self.config))
        is_left = Signal(3, init=1)  # left == 0, 1, 2, registered: everything else waits for this
        following = Signal.like(is_left)
        take_two = Signal()
        m.d.comb += [
            take_two.eq(~is_left[0] & ~is_left[1] & ~self.steal),
            self.two.eq(take_two),
            self.stolen.eq(~is_left[0] & ~is_left[1] & self.steal),
            self.event[0].valid.eq(self.issue & ~is_left[0]),
            self.event[1].valid.eq(self.issue & take_two),
            following.eq(is_left),
        ]
        m.d.sync += [
            is_left.eq(following),
            self.finishing.eq(following[0] | following[1] | (following[2] & ~self.steal_next)),
        ]
        events = Signal.like(left)
        m.d.comb += events.eq(Mux(self.load_half, self.size[1].events, self.size[0].events))
        with m.If(self.update):
            with m.If(self.load):
                m.d.sync += left.eq(events)
                m.d.comb += following.eq(Cat(events == k for k in range(3)))
            with m.Elif(take_two):
                m.d.sync += left.eq(left - 2)
                m.d.comb += following.eq(Cat(left == k + 2 for k in range(3)))
            with m.Elif(~is_left[0]):
                m.d.sync += left.eq(left - 1)
                m.d.comb += following.eq(Cat(left == k + 1 for k in range(3)))
        return take_two

    def _heads(self, m: Module, take_two: Signal, third: data.View, fourth: data.View) -> tuple[Signal, Signal]:
        """The two entries at the head, and the event ports. Says how many entries are used up in this cycle."""
        first, second = Signal(entry_layout(self.config)), Signal(entry_layout(self.config))
        drop_two, drop_one = Signal(), Signal()
        m.d.comb += [
            drop_two.eq(take_two & first.has_one & second.has_one),
            drop_one.eq(~drop_two & (first.has_one | (take_two & first.has_two))),
            self.event[0].addr.eq(first.addr),
            self.event[0].tap.eq(first.tap),
            self.event[1].addr.eq(Mux(first.has_one, second.addr, first.addr + 1)),
            self.event[1].tap.eq(Mux(first.has_one, second.tap, first.tap)),
        ]
        with m.If(self.update):
            with m.If(self.load | drop_two):
                m.d.sync += [first.eq(third), second.eq(fourth)]
            with m.Elif(drop_one):
                m.d.sync += [first.eq(second), second.eq(third)]
                with m.If(take_two & first.has_one):
                    m.d.sync += [
                        first.addr.eq(second.addr + 1),
                        first.rest.eq(second.rest - 1),
                        first.has_one.eq(second.has_two),
                        first.has_two.eq(second.rest == 2),
                    ]
            with m.Else():
                m.d.sync += [
                    first.addr.eq(first.addr + Mux(take_two, 2, 1)),
                    first.rest.eq(first.rest - Mux(take_two, 2, 1)),
                    first.has_one.eq(Mux(take_two, first.rest == 2, first.has_two)),
                    first.has_two.eq(Mux(take_two, first.rest == 3, first.rest == 2)),
                ]
        return drop_two, drop_one

    def _read_ahead(self, m: Module, drop_two: Signal, drop_one: Signal) -> Value:
        """Addresses of the third and fourth entry; of the first two of the next replay, once there is no third.

        A replay that ends in this cycle has no third entry, so that the next one can begin in the next cycle. Says
        whether the odd memory holds the earlier of the two.
        """
        config = self.config
        beyond = Signal(bits_for(config.table_entries))  # entries behind the two in the registers
        exhausted = Signal(init=1)
        half, odd_next = Signal(), Signal()
        pointer = bits_for(config.table_entries // 2 - 1)
        even, odd = Signal(pointer), Signal(pointer)
        entries = Signal.like(beyond)
        m.d.comb += [
            entries.eq(Mux(self.load_half, self.size[1].entries, self.size[0].entries)),
            self.even_addr.eq(Mux(exhausted, Cat(Const(0, pointer), self.load_half), Cat(even, half))),
            self.odd_addr.eq(Mux(exhausted, Cat(Const(0, pointer), self.load_half), Cat(odd, half))),
        ]
        with m.If(self.update):
            with m.If(self.load):
                m.d.sync += [
                    beyond.eq(entries - 2),
                    exhausted.eq(~self.begin | (entries <= 2)),
                    half.eq(self.load_half),
                    odd_next.eq(0),
                    even.eq(1),
                    odd.eq(1),
                ]
            with m.Elif(drop_two):
                m.d.sync += [beyond.eq(beyond - 2), exhausted.eq(exhausted | (beyond <= 2))]
                m.d.sync += [even.eq(even + 1), odd.eq(odd + 1)]
            with m.Elif(drop_one):
                m.d.sync += [beyond.eq(beyond - 1), exhausted.eq(exhausted | (beyond == 1)), odd_next.eq(~odd_next)]
                with m.If(odd_next):
                    m.d.sync += odd.eq(odd + 1)
                with m.Else():
                    m.d.sync += even.eq(even + 1)
        return ~exhausted & odd_next
