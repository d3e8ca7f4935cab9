"""Dispatcher: replays each table once per pass, all banks in step."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..contract import COUNT_BITS, ROW_CELLS
from ..signatures import drained_slots, layer_layout
from .queue import BankQueue
from .shapes import pair_layout, row_addr_width, source_layout
from .table import BankTable

__all__ = ["Dispatcher"]

_PASS_BITS = 10


class Dispatcher(wiring.Component):
    """Fills the tables from the walker and issues events from them.

    Members
    -------
    layer, start : In
    valid, source, count : In
        A source record with its number of events in each bank, from walker and count memory.
    table_free : Out(1)
        Pulse: a table has been used up.
    steal : In(banks)
        The second port of a bank is taken in this cycle.
    spare : Out(banks)
        The second port of a bank is not used in this cycle, nor would it be if there were a beat.
    release : In(1)
        Pulse: one more pass may end. There are as many such credits to begin with as ``config.captured_passes`` says.
    done : Out(1)
        Level: the last pass of the last position has been issued; low from ``start``.
    beat, first, last : Out(1)
        A beat is issued in this cycle; it is the first, the last of its pass.
    pair : Out(ArrayLayout(pair_layout(config), banks))
        The events of the beat. ``valid`` is 0 without a beat.
    pass_base : Out
        Weight row of tap 0, index 0 in this pass.
    keep, capture, cell : Out
        Only with row mode; of this pass, as in :class:`Beat`.
    stall_table, stall_drain, stall_steal : Out(1)
        No table is ready; a last beat waits for a credit, or for the sums before to leave; a beat issues less than it
        could because of ``steal``.
    """

    filling = 2
    """Cycles from a table's last source until it is ready: the tables of all banks have stored it."""
    crediting = 1
    """Cycles from ``release`` until a pass may end with it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        row_mode = {"keep": Out(1), "capture": Out(1), "cell": Out(range(ROW_CELLS))}
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "valid": In(1),
                "source": In(source_layout(config)),
                "count": In(data.ArrayLayout(COUNT_BITS, config.banks)),
                "table_free": Out(1),
                "steal": In(config.banks),
                "spare": Out(config.banks),
                "release": In(1),
                "done": Out(1),
                "beat": Out(1),
                "first": Out(1),
                "last": Out(1),
                "pair": Out(data.ArrayLayout(pair_layout(config), config.banks)),
                "pass_base": Out(row_addr_width(config)),
                **(row_mode if config.taps > 1 else {}),
                "stall_table": Out(1),
                "stall_drain": Out(1),
                "stall_steal": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        update, load_half = Signal(), Signal()
        finishing, stolen = Signal(self.config.banks), Signal(self.config.banks)
        fill_half = Signal()
        with m.If(self.valid & self.source.last):
            m.d.sync += fill_half.eq(~fill_half)
        active = self._control(m, load_half, fill_half, finishing.all())
        m.d.comb += update.eq(~active | self.beat)
        for bank in range(self.config.banks):
            m.submodules[f"table_{bank}"] = table = BankTable(self.config)
            m.submodules[f"queue_{bank}"] = queue = BankQueue(self.config)
            m.d.comb += [
                table.valid.eq(self.valid),
                table.source.eq(self.source),
                table.count.eq(self.count[bank]),
                table.half.eq(fill_half),
                table.even_addr.eq(queue.even_addr),
                table.odd_addr.eq(queue.odd_addr),
                queue.size.eq(table.size),
                queue.even.eq(table.even),
                queue.odd.eq(table.odd),
                queue.load_half.eq(load_half),
                queue.active.eq(active),
                queue.last.eq(self.last),
                queue.update.eq(update),
                queue.steal.eq(self.steal[bank]),
                finishing[bank].eq(queue.finishing),
                stolen[bank].eq(queue.stolen),
                self.pair[bank].eq(queue.pair),
                self.pair[bank].valid.eq(Mux(self.beat, queue.pair.valid, 0)),
                self.spare[bank].eq(~(active & queue.pair.valid[1])),
            ]
        m.d.comb += self.stall_steal.eq(self.beat & stolen.any())
        return m

    def _control(self, m: Module, load_half: Signal, fill_half: Signal, finishing: Value) -> Signal:
        """Passes, tables and credits. Returns that a replay is under way."""
        ready, strip_last = Signal(2), Signal(2)  # per half of the table
        active, half, begin = Signal(), Signal(), Signal()
        busy = Signal()
        last_pass = Signal()
        passes_left = Signal(_PASS_BITS)
        ends, ends_table = Signal(), Signal()
        passes = self._row_mode(m)
        may_end = self._may_end(m, ends)
        m.d.comb += [
            self.beat.eq(active & (~finishing | may_end)),
            self.last.eq(finishing),
            ends.eq(active & finishing & may_end),
            ends_table.eq(ends & last_pass),
            self.table_free.eq(ends_table),
            begin.eq(Mux(active, ends & (~last_pass | ready.bit_select(~half, 1)), ready.bit_select(half, 1))),
            self.done.eq(~busy & ~self.start),
            self.stall_drain.eq(active & finishing & ~may_end),
            self.stall_table.eq(busy & ~active),
        ]

        of_half = self._mark_tables(m, ready, strip_last, fill_half)
        with m.If(ends_table):
            m.d.sync += [ready.bit_select(half, 1).eq(0), half.eq(~half)]
            with m.If(strip_last.bit_select(half, 1)):
                m.d.sync += busy.eq(0)
        with m.If(self.start):
            m.d.sync += busy.eq(1)

        new_table = ~active | last_pass
        becomes_last = Mux(new_table, passes == 1, passes_left == 2)
        # half ^ (active & last_pass), a register: the addresses of all tables begin with it
        m.d.sync += load_half.eq(half ^ ends_table ^ Mux(begin, becomes_last, ~ends & active & last_pass))
        with m.If(begin):
            m.d.sync += [active.eq(1), self.first.eq(1), last_pass.eq(becomes_last)]
            with m.If(new_table):
                m.d.sync += [
                    passes_left.eq(passes),
                    self.pass_base.eq(self.layer.w_base),
                ]
                if self.config.taps > 1:
                    chosen = Mux(half ^ active, of_half[1], of_half[0])  # of the table that begins
                    m.d.sync += Cat(self.capture, self._first_cell).eq(chosen)
                    m.d.sync += self._number.eq(0)
            with m.Else():
                m.d.sync += [
                    passes_left.eq(passes_left - 1),
                    self.pass_base.eq(self.pass_base + self.layer.w_pass_stride),
                ]
                if self.config.taps > 1:
                    m.d.sync += self._number.eq(self._number + 1)
        with m.Elif(ends):
            m.d.sync += active.eq(0)
        with m.Elif(self.beat):
            m.d.sync += self.first.eq(0)
        return active

    def _may_end(self, m: Module, ends: Signal) -> Value:
        """A pass may end: its sums have room, and those of the captured one before have left, a cycle for each slot."""
        config = self.config
        credits, credit = Signal(range(config.captured_cells + 1)), Signal(init=1)
        most = Signal.like(credits)
        left = Signal(range(config.slots))  # slots that have not left
        others, alone = Signal.like(left), Signal()  # slots of a pass but one
        takes = ends
        if config.taps > 1:
            takes = Signal()
            m.d.comb += takes.eq(ends & self.capture)
        drained = drained_slots(self.layer, config)
        m.d.sync += [others.eq(drained - 1), alone.eq(drained == 1)]
        with m.Switch(drained):
            for slots in range(1, config.slots + 1):
                with m.Case(slots):
                    m.d.sync += most.eq(config.captured_passes(slots))
        m.d.sync += [
            credits.eq(credits - takes + self.release),
            left.eq(Mux(takes, others, Mux(left == 0, 0, left - 1))),
            credit.eq(
                Mux(takes, alone & (self.release | (credits > 1)), (left <= 1) & (self.release | (credits != 0)))
            ),
        ]
        with m.If(self.start):
            m.d.sync += credits.eq(most)
        return credit | ~self.capture if config.taps > 1 else credit

    def _row_mode(self, m: Module) -> Value:
        """Passes of a table."""
        if self.config.taps == 1:
            return self.layer.n_passes
        self._first_cell, self._number = Signal(range(ROW_CELLS)), Signal(range(ROW_CELLS))
        row, passes = Signal(), Signal(_PASS_BITS)
        m.d.sync += [
            row.eq(self.layer.row_passes.any()),
            passes.eq(Mux(row, self.layer.row_passes, self.layer.n_passes)),
        ]
        m.d.comb += [
            self.keep.eq(row),
            self.cell.eq(Mux(row, self._first_cell + self._number, ROW_CELLS - 1)),
        ]
        return passes

    def _mark_tables(self, m: Module, ready: Signal, strip_last: Signal, fill_half: Signal) -> list[Signal]:
        """A half is ready two cycles after its last source, when the tables of all banks have stored it.

        Returns capture flag and cell of both halves; with row mode only.
        """
        filled = Signal()
        filled_half, filled_strip_last = Signal(), Signal()
        m.d.sync += [
            filled.eq(self.valid & self.source.last),
            filled_half.eq(fill_half),
            filled_strip_last.eq(self.source.strip_last),
        ]
        with m.If(filled):
            m.d.sync += [
                ready.bit_select(filled_half, 1).eq(1),
                strip_last.bit_select(filled_half, 1).eq(filled_strip_last),
            ]
        of_half: list[Signal] = []
        if self.config.taps > 1:
            arrived = Cat(self.source.capture, self.source.cell)
            with m.If(self.valid & self.source.last):
                for number in range(2):
                    held = Signal(len(arrived), name=f"row_mode_{number}")
                    with m.If(fill_half == number):
                        m.d.sync += held.eq(arrived)
                    of_half.append(held)
        return of_half
