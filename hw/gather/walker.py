"""Walker: the source records of every output position of a strip, one per cycle."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..contract import POSITION_BITS, ROW_CELLS
from ..memory import DualReadMemory
from ..signatures import layer_layout
from .loops import LoopCounters, Step, stepped_value
from .shapes import act_addr_width, count_addr_width, row_addr_width, source_layout

__all__ = ["Walker"]

_RECORD_BITS = 16


class Walker(wiring.Component):
    """Walks oy, ox, t, py, px, ky, kx and computes where the records are (``docs/numerics.md``, section 1).

    In row mode oy, ox, t, px, py, ky: a table holds the records of one source column. Every row begins with the columns
    that the first output column reads to its left; the loops of py and px change places, and that of kx is gone.

    Members
    -------
    layer : In(layer_layout())
        Stable from two cycles before ``start``.
    start : In(1)
    room : In(1)
        It may step in this cycle: what follows takes one more source.
    step : Out(1)
        It does.
    count_en, count_addr : Out
        Read of the count memory, whose answer comes DualReadMemory.delay cycles later, together with
    valid, source : Out(1), Out(source_layout(config))
        the source record that the counts are of.
    """

    delay = 2 + DualReadMemory.delay
    """Cycles from the step to a source to its ``valid``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "room": In(1),
                "step": Out(1),
                "count_en": Out(1),
                "count_addr": Out(count_addr_width(config)),
                "valid": Out(1),
                "source": Out(source_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.counters = counters = LoopCounters()
        self._layer = layer = Signal.like(self.layer, reset_less=True)  # near what it is added to
        m.d.sync += layer.eq(self.layer)
        self._row = Const(0)
        if self.config.taps > 1:
            self._row = Signal(name="row_mode")
            m.d.sync += self._row.eq(self.layer.row_passes.any())
        m.d.comb += [
            counters.trips.oy.eq(layer.rows),
            counters.trips.ox.eq(self._either(layer.cols, layer.cols + Mux(layer.n_pool_x == 1, 2, 1))),
            counters.trips.t.eq(Mux(layer.static_input, 1, layer.timesteps)),
            counters.trips.py.eq(self._either(layer.n_pool_y, layer.n_pool_x)),
            counters.trips.px.eq(self._either(layer.n_pool_x, layer.n_pool_y)),
            counters.trips.ky.eq(layer.n_tap_y),
            counters.trips.kx.eq(self._either(layer.n_tap_x, 1)),
            counters.start.eq(self.start),
        ]
        self._table_end = self._either(counters.done.t, counters.done.py)
        first = self._control(m, counters)
        y, x = self._position(m, counters)
        record = self._record(m, counters)
        tap = self._tap(m, counters)
        self._pipeline(m, counters, first, (y, x), record, tap)
        return m

    def _either(self, gather: Value | int, row: Value | int) -> Value | int:
        """What holds in gather mode, in row mode."""
        return Mux(self._row, row, gather) if self.config.taps > 1 else gather

    def _control(self, m: Module, counters: LoopCounters) -> Signal:
        """Steps while there is room. Returns the flag `first source of its table`."""
        running, first = Signal(), Signal()
        m.d.comb += [counters.step.eq(running & self.room), self.step.eq(counters.step)]
        with m.If(counters.step):
            m.d.sync += first.eq(self._table_end)
            with m.If(counters.done.oy & counters.last.oy):
                m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += [running.eq(1), first.eq(1)]
        return first

    def _position(self, m: Module, counters: LoopCounters) -> tuple[Signal, Signal]:
        layer = self._layer
        y0, x0 = Signal(signed(POSITION_BITS)), Signal(signed(POSITION_BITS))
        m.d.comb += [y0.eq(layer.iy0), x0.eq(layer.ix0)]
        y_steps = [Step("oy", layer.y_step), *self._pool_steps(m, "y", layer.y_pool), Step("ky", layer.y_tap)]
        x_steps = [Step("ox", layer.x_step), *self._pool_steps(m, "x", layer.x_pool), Step("kx", layer.x_tap)]
        return stepped_value(m, "y", counters, y0, y_steps), stepped_value(m, "x", counters, x0, x_steps)

    def _pool_steps(self, m: Module, axis: str, amount: Value, ring: Value | None = None) -> list[Step]:
        """The steps of an axis's pooling, which has the other's loop in row mode."""
        own, other = (f"p{axis}", "px" if axis == "y" else "py")
        if self.config.taps == 1:
            return [Step(own, amount, self._wrapped(m, own, amount, ring))]
        amounts = {own: Mux(self._row, 0, amount), other: Mux(self._row, amount, 0)}
        steps = []
        for loop in ("py", "px"):
            what = "record" if ring is not None else "amount"
            held = Signal(len(amount), name=f"{axis}_{loop}_{what}", reset_less=True)
            m.d.sync += held.eq(amounts[loop])
            steps.append(Step(loop, held, self._wrapped(m, loop, amounts[loop], ring)))
        return steps

    def _wrapped(self, m: Module, loop: str, amount: Value, ring: Value | None) -> Signal | None:
        """``amount - ring``, registered."""
        if ring is None:
            return None
        wrapped = Signal(signed(_RECORD_BITS + 1), name=f"wrapped_{loop}")
        m.d.sync += wrapped.eq(amount - ring)
        return wrapped

    def _record(self, m: Module, counters: LoopCounters) -> Value:
        """Record number, where the source is inside the image."""
        layer = self._layer
        ring = layer.src_ring
        row_steps = [
            Step("oy", layer.src_row_step, self._wrapped(m, "oy", layer.src_row_step, ring)),
            *self._pool_steps(m, "y", layer.src_row_pool, ring),
            Step("ky", layer.src_row_tap, self._wrapped(m, "ky", layer.src_row_tap, ring)),
        ]
        per_step = Signal()  # the source has a record per time step
        m.d.sync += per_step.eq((layer.t_src > 1) & ~layer.static_input)
        col_steps = [
            Step("ox", layer.src_col_step),
            Step("t", per_step),
            *self._pool_steps(m, "x", layer.src_col_pool),
            Step("kx", layer.src_col_tap),
        ]
        row0, col0 = Signal(_RECORD_BITS), Signal(signed(_RECORD_BITS))
        m.d.comb += [row0.eq(layer.src_row0), col0.eq(layer.src_col0)]
        row = stepped_value(m, "row", counters, row0, row_steps)
        col = stepped_value(m, "col", counters, col0, col_steps)
        return (row + col)[:_RECORD_BITS]

    def _tap(self, m: Module, counters: LoopCounters) -> Signal:
        """``tap * src_slots``: begins again for every pooled position."""
        tap = Signal(row_addr_width(self.config))
        window_last = counters.done.ky & counters.last.ky
        with m.If(counters.start):
            m.d.sync += tap.eq(0)
        with m.Elif(counters.step):
            m.d.sync += tap.eq(Mux(window_last, 0, tap + self._layer.src_slots))
        return tap

    def _pipeline(
        self,
        m: Module,
        counters: LoopCounters,
        first: Signal,
        position: tuple[Signal, Signal],
        record: Value,
        tap: Signal,
    ) -> None:
        """Image border, count address, activation address; then a delay that matches the count memory."""
        layer = self._layer
        source = source_layout(self.config)
        found, found_valid = Signal(source), Signal()
        number, inside_y, inside_x = Signal(_RECORD_BITS), Signal(), Signal()
        m.d.sync += [
            found_valid.eq(counters.step),
            found.first.eq(first),
            found.last.eq(self._table_end),
            found.strip_last.eq(counters.done.oy & counters.last.oy),
            found.tap.eq(tap),
            number.eq(record),
            # As unsigned numbers, negative positions are larger than any image.
            inside_y.eq(position[0].as_unsigned() < layer.in_height),
            inside_x.eq(position[1].as_unsigned() < layer.in_width),
        ]

        if self.config.taps > 1:
            capture, cell = self._columns(m, counters)
            m.d.sync += [found.capture.eq(capture), found.cell.eq(cell)]

        asked, asked_valid, pad = Signal(source), Signal(), Signal()
        offset = Signal(act_addr_width(self.config))
        m.d.sync += [
            asked_valid.eq(found_valid),
            asked.eq(found),
            asked.push.eq((inside_y & inside_x) | layer.pad_record),
            pad.eq(~(inside_y & inside_x)),
            offset.eq(number * layer.src_slots),
            self.count_addr.eq(Mux(inside_y & inside_x, layer.src_cnt_base + number, layer.pad_cnt_base)),
        ]
        m.d.comb += self.count_en.eq(asked_valid & asked.push)

        stages = [Signal(source, name=f"counting_{k}") for k in range(DualReadMemory.delay)]
        valids = [Signal(name=f"counting_valid_{k}") for k in range(DualReadMemory.delay)]
        m.d.sync += [
            valids[0].eq(asked_valid),
            stages[0].eq(asked),
            stages[0].addr.eq(Mux(pad, layer.pad_act_base, layer.src_act_base + offset)),
        ]
        for k in range(1, DualReadMemory.delay):
            m.d.sync += [valids[k].eq(valids[k - 1]), stages[k].eq(stages[k - 1])]
        m.d.comb += [self.valid.eq(valids[-1]), self.source.eq(stages[-1])]

    def _columns(self, m: Module, counters: LoopCounters) -> tuple[Value, Value]:
        """Of row mode: whether the source column finishes an output column; the cell of its first pass."""
        lead = Signal(2)  # ox iterations before the first output column
        leading = Signal(2)
        m.d.comb += leading.eq(Mux(self._layer.n_pool_x == 1, 2, 1))
        with m.If(counters.start | (counters.step & counters.done.ox & counters.last.ox)):
            m.d.sync += lead.eq(leading)
        with m.Elif(counters.step & counters.done.ox & (lead != 0)):
            m.d.sync += lead.eq(lead - 1)
        cell = stepped_value(m, "cell", counters, Const(0, range(ROW_CELLS)), [Step("t", self._layer.row_passes)])
        return (lead == 0) | ~self._row, cell
