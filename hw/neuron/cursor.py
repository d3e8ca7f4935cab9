"""Walk over slots, passes, steps and positions: which slot of which pass the neuron unit looks at next."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.utils import bits_for

from ..config import Config
from ..signatures import drained_slots
from .lane import NeuronPair

__all__ = ["Cursor"]


class Cursor:
    """Counters of the walk: slot fastest, then t and pass (pass before t for a static input), then column and row.

    ``skip`` and ``gate`` are where the groups of this position and step begin in the skip memory, and their gates.

    With ``repeat_passes`` (`around`) the further steps of a position, which only read z, come late: when the next one
    has all but its last passes. What they wait for, the membranes of the step before, has been written meanwhile.
    """

    def __init__(self, m: Module, config: Config, layer: data.View) -> None:
        self.valid = Signal()
        self.address = Signal(bits_for(config.slot_entries - 1))
        self._base = Signal.like(self.address)
        self.slot = Signal(range(config.slots) if config.slots > 1 else 1)
        self.t = Signal(layer.timesteps.shape())
        self._pass = Signal(layer.n_passes.shape())
        self._column = Signal(layer.cols.shape())
        self._row = Signal(layer.rows.shape())
        self.skip = Signal(range(max(1, config.skip_words)))
        self._skip_next = Signal.like(self.skip)
        self._skip_again = Signal.like(self.skip)  # of step 0
        self.gate = Signal.like(self.skip)
        m.d.comb += self._skip_next.eq(self.skip + layer.skip_groups)
        self._layer = layer
        # limits are registered: the layer is stable from one cycle before start
        limits = {}
        for name in ("timesteps", "n_passes", "cols", "rows"):
            limits[name] = Signal(layer[name].shape(), name=f"last_{name}")
            m.d.sync += limits[name].eq(layer[name] - 1)
        self._static, self._few = Signal(), Signal()
        self.around, self.late = Signal(), Signal()  # ... of the passes that are repeated
        self._head, self._before, self._headless = Signal.like(self._pass), Signal.like(self._pass), Signal()
        self._late_base = Signal.like(self._base)
        self._owed, self._ending, self._odd = Signal(), Signal(), Signal()
        m.d.sync += [
            self.around.eq(layer.static_input & layer.repeat_passes.any()),
            self._head.eq(layer.n_passes - layer.repeat_passes),
            self._before.eq(layer.n_passes - layer.repeat_passes - 1),
            self._headless.eq(layer.n_passes == layer.repeat_passes),
        ]
        m.d.sync += self._static.eq(layer.static_input)
        self.slots, last_slot = Signal(range(config.slots + 1), name="slots"), Signal.like(self.slot)
        drained = drained_slots(layer, config)
        m.d.sync += [self.slots.eq(drained), last_slot.eq(drained - 1)]
        with m.Switch(drained):  # all slots of a step take less time than the way to the membranes and back
            for slots in range(1, config.slots + 1):
                with m.Case(slots):
                    m.d.sync += self._few.eq(layer.n_passes < -(-NeuronPair.recurrence // slots))
        self.slot_last = self.slot == last_slot
        self._t_last = self.t == limits["timesteps"]
        self._pass_last = self._pass == limits["n_passes"]
        self._column_last = self._column == limits["cols"]
        self._row_last = self._row == limits["rows"]
        m.d.comb += self.address.eq(self._base + self.slot)

    @property
    def fresh(self) -> Value:
        """P and S are added: not a repeat of a static input."""
        return ~self._static | (self.t == 0)

    @property
    def end(self) -> Value:
        """Last slot of the last pass of a step."""
        return self.slot_last & self._pass_last

    @property
    def revisit(self) -> Value:
        """A run over slots begins that may read membranes too soon after they were read for the step before.

        The first step reads none. A repeat visits the groups of the run before; otherwise, all other slots of the layer
        come in between, one cycle each at least.
        """
        return (self.slot == 0) & (self.t != 0) & (self._static | (self._few & (self._pass == 0)))

    @property
    def half(self) -> Value:
        """Half of the cells of z that this position has, where two are under way."""
        return self._odd ^ (self.t != 0)

    @property
    def origin(self) -> Value:
        """The first position of the strip."""
        return (self._row == 0) & (self._column == 0)

    @property
    def begins(self) -> Value:
        """First slot of a position."""
        return (self.slot == 0) & (self.t == 0) & (self._pass == 0)

    def restart(self, m: Module) -> None:
        """Statements of ``start``."""
        m.d.sync += [
            self.valid.eq(1),
            self._base.eq(self._layer.slot_base),
            self.slot.eq(0),
            self.t.eq(0),
            self._pass.eq(0),
            self._column.eq(0),
            self._row.eq(0),
            self.skip.eq(0),
            self._skip_again.eq(0),
            self.gate.eq(self._layer.gate_base),
            self.late.eq(self._headless),
            self._late_base.eq(self._layer.slot_base),
            self._owed.eq(0),
            self._ending.eq(0),
            self._odd.eq(0),
        ]

    def step(self, m: Module) -> None:
        """Statements of one step."""
        m.d.sync += self.slot.eq(Mux(self.slot_last, 0, self.slot + 1))
        with m.If(self.around):
            self._step_around(m)
        with m.Else():
            self._step_through(m)

    def _step_around(self, m: Module) -> None:
        """With ``repeat_passes``."""
        fresh, repeats, follows = Signal(), Signal(), Signal()
        whole = self._column_last & self._row_last
        m.d.comb += fresh.eq(self.t == 0)
        with m.If(self.slot_last & fresh & self._pass_last):
            m.d.comb += repeats.eq(whole | self._headless)
            m.d.sync += [self._odd.eq(~self._odd), self._owed.eq(1), self._ending.eq(whole)]
            m.d.sync += [self._pass.eq(0), self._base.eq(self._layer.slot_base), self.late.eq(0)]
            self._next_column(m)
        with m.Elif(self.slot_last & fresh & self._owed & (self._pass == self._before)):
            m.d.comb += repeats.eq(1)
        with m.Elif(self.slot_last & ~self._pass_last):
            m.d.sync += [self._pass.eq(self._pass + 1), self._base.eq(self._base + self.slots)]
            with m.If(self._pass == self._before):
                m.d.sync += [self.late.eq(1), self._late_base.eq(self._base + self.slots)]
        with m.Elif(self.slot_last):  # the end of a repeat
            m.d.comb += follows.eq(1)
            m.d.sync += self.t.eq(Mux(self._t_last, 0, self.t + 1))
            with m.If(self._t_last):
                m.d.sync += self._owed.eq(0)
                with m.If(self._ending):
                    m.d.sync += self.valid.eq(0)
        with m.If(repeats):
            m.d.sync += self.t.eq(1)
        with m.If(repeats | follows):
            m.d.sync += [self._pass.eq(self._head), self._base.eq(self._late_base), self.late.eq(1)]

    def _next_column(self, m: Module) -> None:
        m.d.sync += self._column.eq(Mux(self._column_last, 0, self._column + 1))
        with m.If(self._column_last):
            m.d.sync += self._row.eq(self._row + 1)

    def _step_through(self, m: Module) -> None:
        """Without."""
        with m.If(self.slot_last & (self._static | self._pass_last)):
            m.d.sync += self.t.eq(Mux(self._t_last, 0, self.t + 1))
            m.d.sync += self.skip.eq(Mux(self._t_last & ~self._pass_last, self._skip_again, self._skip_next))
            m.d.sync += self.gate.eq(Mux(self._t_last, self._layer.gate_base, self.gate + self._layer.skip_groups))
        with m.If(self.slot_last & (~self._static | self._t_last)):
            m.d.sync += [
                self._pass.eq(Mux(self._pass_last, 0, self._pass + 1)),
                self._base.eq(Mux(self._pass_last, self._layer.slot_base, self._base + self.slots)),
            ]
        with m.If(self.slot_last & self._t_last & self._pass_last):
            m.d.sync += self._skip_again.eq(self._skip_next)
            self._next_column(m)
            with m.If(self._column_last & self._row_last):
                m.d.sync += self.valid.eq(0)
