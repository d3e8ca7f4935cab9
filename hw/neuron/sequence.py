"""Order of the neuron unit's work: which slot, which group, which step, and when it may go."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..config import Config
from ..contract import Gate
from ..signatures import CAPTURED_PASSES, LocalBus, layer_layout, slot_layout
from .accumulator import accumulate_layout
from .lane import NeuronPair, row_layout

__all__ = ["SlotSequencer", "operation_layout"]


def operation_layout(config: Config) -> data.StructLayout:
    """One cycle of work for all neuron lanes.

    ``way``: 0 and 1 in the two cycles of a neuron update, ``update``: in both. ``param``: row of parameters.
    ``emit``: an entry for the emitter will follow. ``has_codes``: with activation codes. ``end``: it ends record ``t``.
    ``skip_read``, ``skip_write``: words of the skip memory. ``add``: what is read is added to the current.
    """
    return data.StructLayout(
        {
            "accumulate": accumulate_layout(config),
            "param": row_layout(config.param_groups),
            "group": slot_layout()["group"].shape,
            "t": layer_layout()["timesteps"].shape,
            "update": 1,
            "way": 1,
            "emit": 1,
            "has_codes": 1,
            "end": 1,
            "skip_read": range(max(1, config.skip_words)),
            "skip_write": range(max(1, config.skip_words)),
            "add": 1,
        }
    )


class _Cursor:
    """Counters of the walk: slot fastest, then t and pass (pass before t for a static input), then column and row.

    ``skip`` and ``gate`` are where the groups of this position and step begin in the skip memory, and their gates.
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
        row = config.taps > 1
        few = [layer.n_passes < -(-NeuronPair.recurrence // slots) for slots in (config.slots, config.row_slots)]
        m.d.sync += self._few.eq(Mux(layer.row_passes.any(), few[1], few[0]) if row else few[0])
        m.d.sync += self._static.eq(layer.static_input)
        self._slots: Value | int = config.slots
        last_slot: Value | int = config.slots - 1
        if row:  # one of three columns is finished: the first slots
            self._slots, last_slot = Signal(range(config.slots + 1), name="slots"), Signal.like(self.slot)
            chosen = Mux(layer.row_passes.any(), config.row_slots, config.slots)
            m.d.sync += [self._slots.eq(chosen), last_slot.eq(chosen - 1)]
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
        ]

    def step(self, m: Module) -> None:
        """Statements of one step."""
        m.d.sync += self.slot.eq(Mux(self.slot_last, 0, self.slot + 1))
        with m.If(self.slot_last & (self._static | self._pass_last)):
            m.d.sync += self.t.eq(Mux(self._t_last, 0, self.t + 1))
            m.d.sync += self.skip.eq(Mux(self._t_last & ~self._pass_last, self._skip_again, self._skip_next))
            m.d.sync += self.gate.eq(Mux(self._t_last, self._layer.gate_base, self.gate + self._layer.skip_groups))
        with m.If(self.slot_last & (~self._static | self._t_last)):
            m.d.sync += [
                self._pass.eq(Mux(self._pass_last, 0, self._pass + 1)),
                self._base.eq(Mux(self._pass_last, self._layer.slot_base, self._base + self._slots)),
            ]
        with m.If(self.slot_last & self._t_last & self._pass_last):
            m.d.sync += self._skip_again.eq(self._skip_next)
            m.d.sync += self._column.eq(Mux(self._column_last, 0, self._column + 1))
            with m.If(self._column_last):
                m.d.sync += self._row.eq(self._row + 1)
                with m.If(self._row_last):
                    m.d.sync += self.valid.eq(0)


class SlotSequencer(wiring.Component):
    """Walks a strip, reads the slot program ahead and issues one operation per cycle at most.

    A slot is issued in one cycle, or in two if it is final. Three things hold it back: the pass has not been captured,
    the run before over the same groups began less than the membrane's recurrence ago, the emitter has no room.

    Members
    -------
    layer, start : In
    strobe : In(1)
        P and S of a pass have been captured.
    tail : Out(range(CAPTURED_PASSES))
        Place in the queue of the next pass to be captured.
    release : Out(1)
        Pulse: a queued pass has been read for the last time, or will have been before another one can be captured.
    room : In(1)
        The emitter takes three more entries.
    op, op_valid : Out
        Operation; ``op`` means nothing while ``op_valid`` is 0, except that parameter words are read.
    busy : Out(1)
        Slots remain to be issued.
    stall_emit : Out(1)
        Held back by the emitter alone.
    bus : In(LocalBus())
        Slot program, one entry per word.
    """

    delay = 1
    """Cycles from the issue of a slot to its operation, and to ``release``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "strobe": In(1),
                "tail": Out(range(CAPTURED_PASSES)),
                "release": Out(1),
                "room": In(1),
                "op": Out(operation_layout(config)),
                "op_valid": Out(1),
                "busy": Out(1),
                "stall_emit": Out(1),
                "bus": In(LocalBus()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cursor = _Cursor(m, self.config, self.layer)
        advance = Signal()
        entry = self._fetch(m, cursor, advance)

        tags = data.StructLayout(
            {
                "slot": cursor.slot.shape(), "t": cursor.t.shape(), "lead": 1, "revisit": 1, "fresh": 1, "tail": 1,
                "end": 1,
                "skip": cursor.skip.shape(), "gate": cursor.gate.shape(), "origin": 1, "begins": 1,
            }
        )  # fmt: skip
        tag0, tag1, tag2 = (Signal(tags, name=f"tag{n}") for n in range(3))
        valid1, valid2 = Signal(), Signal()
        m.d.comb += [
            tag0.slot.eq(cursor.slot),
            tag0.t.eq(cursor.t),
            tag0.lead.eq(cursor.slot == 0),
            tag0.revisit.eq(cursor.revisit),
            tag0.fresh.eq(cursor.fresh),
            tag0.tail.eq(cursor.slot_last),
            tag0.end.eq(cursor.end),
            tag0.skip.eq(cursor.skip),
            tag0.gate.eq(cursor.gate),
            tag0.origin.eq(cursor.origin),
            tag0.begins.eq(cursor.begins),
            self.busy.eq(cursor.valid | valid1 | valid2),
        ]
        with m.If(advance):
            m.d.sync += [tag1.eq(tag0), tag2.eq(tag1), valid1.eq(cursor.valid), valid2.eq(valid1)]
        with m.If(self.start):
            cursor.restart(m)
            m.d.sync += [valid1.eq(0), valid2.eq(0)]
        with m.Elif(advance & cursor.valid):
            cursor.step(m)

        self._issue(m, entry, tag2, valid2, advance)
        return m

    def _fetch(self, m: Module, cursor: _Cursor, advance: Signal) -> data.View:
        """The slot program: entry of the cursor, two advances later; also the host's port."""
        shape = slot_layout()
        used = max(f.offset + f.width for _, f in shape)
        m.submodules.store = store = memory.Memory(shape=used, depth=self.config.slot_entries, init=[])
        read, write = store.read_port(), store.write_port()
        entry = Signal(shape)
        m.d.comb += [
            write.addr.eq(self.bus.addr),
            write.data.eq(self.bus.w_data),
            write.en.eq(self.bus.w_en),
            read.addr.eq(Mux(self.bus.r_en, self.bus.addr, cursor.address)),
            read.en.eq(advance),
            self.bus.r_data.eq(entry),
        ]
        with m.If(advance):
            m.d.sync += entry.as_value().eq(read.data)
        return entry

    def _issue(self, m: Module, entry: data.View, tag: data.View, valid: Signal, advance: Signal) -> None:
        second, emits = Signal(), Signal()
        waiting, queued = (
            Signal(range(CAPTURED_PASSES + 1)),
            Signal(range(CAPTURED_PASSES)),
        )  # passes captured; the oldest of them
        any_waiting = Signal()
        gap, no_gap = Signal(range(NeuronPair.recurrence)), Signal(init=1)
        final, fresh = Signal(), Signal()
        ready, go = Signal(), Signal()
        sums, sigmoid, gated = Signal(), Signal(), Signal()
        m.d.sync += [
            sums.eq(self.layer.gate == Gate.SUM),
            sigmoid.eq(self.layer.gate == Gate.SIGMOID),
            gated.eq(self.layer.gate != Gate.NONE),
        ]
        # a position of a SUM leg reads what the one before it wrote
        settling, settled = Signal(range(NeuronPair.skip_recurrence)), Signal(init=1)
        with m.If(go & final):
            m.d.sync += [settling.eq(NeuronPair.skip_recurrence - 1), settled.eq(0)]
        with m.Elif(~settled):
            m.d.sync += [settling.eq(settling - 1), settled.eq(settling == 1)]
        m.d.comb += [
            final.eq(entry.valid & entry.final),
            fresh.eq(entry.valid & tag.fresh),
            emits.eq(self.layer.spiking & (final | tag.end)),
            ready.eq(
                valid
                & ~second
                & (~(tag.lead & tag.fresh) | any_waiting)
                & (~tag.revisit | no_gap)
                & (~(sums & tag.begins) | settled)
            ),
            go.eq(ready & (self.room | ~emits)),
            self.stall_emit.eq(ready & emits & ~self.room),
            advance.eq(~valid | second | (go & ~final)),
        ]
        m.d.sync += second.eq(go & final)
        with m.If(go & tag.lead):
            m.d.sync += [gap.eq(NeuronPair.recurrence - 1), no_gap.eq(0)]
        with m.Elif(~no_gap & ~self.stall_emit):  # a stall between two slots must not eat up the distance
            m.d.sync += [gap.eq(gap - 1), no_gap.eq(gap == 1)]

        used_up = go & tag.tail & tag.fresh
        m.d.sync += self.release.eq(used_up)
        with m.If(self.start):
            m.d.sync += [waiting.eq(0), any_waiting.eq(0), queued.eq(0), self.tail.eq(0)]
        with m.Else():
            m.d.sync += [
                waiting.eq(waiting + self.strobe - used_up),
                any_waiting.eq(Mux(used_up, self.strobe | (waiting != 1), self.strobe | any_waiting)),
                queued.eq(queued + used_up),
                self.tail.eq(self.tail + self.strobe),
            ]

        op = self.op
        skip_at, gate_at = tag.skip + entry.group, tag.gate + entry.group
        m.d.sync += [
            self.op_valid.eq(go),
            op.accumulate.queued.eq(queued),
            op.accumulate.slot.eq(tag.slot),
            op.accumulate.group.eq(entry.group),
            op.accumulate.shift.eq(entry.shift),
            op.accumulate.negate.eq(entry.negate),
            op.accumulate.subtract_s.eq(entry.subtract_s),
            op.accumulate.first.eq(entry.first),
            op.accumulate.enable.eq(go & fresh),
            op.param.way.eq(second),
            op.param.group.eq(self.layer.param_base + Mux(sigmoid, tag.t, entry.group)),
            op.group.eq(entry.group),
            op.t.eq(tag.t),
            op.update.eq((go & final) | second),
            op.way.eq(second),
            op.emit.eq(go & emits),
            op.has_codes.eq(final),
            op.end.eq(tag.end),
            op.skip_read.eq(Mux(gated, gate_at, skip_at)),
            op.skip_write.eq(Mux(sums | sigmoid, gate_at, skip_at)),
            op.add.eq(self.layer.add_skip | sigmoid | (sums & ~tag.origin)),
        ]
