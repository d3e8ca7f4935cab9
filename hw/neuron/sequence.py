"""Order of the neuron unit's work: which slot, which group, which step, and when it may go."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..contract import Gate
from ..signatures import LocalBus, layer_layout, slot_layout
from .accumulator import accumulate_layout
from .cursor import Cursor
from .lane import NeuronPair, row_layout

__all__ = ["SlotSequencer", "operation_layout"]

_AHEAD = 8  # slots that wait


def operation_layout(config: Config) -> data.StructLayout:
    """One cycle of work for all neuron lanes.

    ``way``: 0, 1 and so on in the cycles of a neuron update, ``update``: in all of them. ``param``: row of parameters.
    ``emit``: an entry for the emitter will follow. ``has_codes``: with activation codes. ``end``: it ends record ``t``.
    ``skip_read``, ``skip_write``: words of the skip memory. ``add``: what is read is added to the current.
    """
    return data.StructLayout(
        {
            "accumulate": accumulate_layout(config),
            "param": row_layout(config, config.param_groups),
            "group": slot_layout()["group"].shape,
            "t": layer_layout()["timesteps"].shape,
            "update": 1,
            "way": range(config.neuron_ways),
            "emit": 1,
            "has_codes": 1,
            "end": 1,
            "skip_read": range(max(1, config.skip_words)),
            "skip_write": range(max(1, config.skip_words)),
            "add": 1,
        }
    )


class SlotSequencer(wiring.Component):
    """Walks a strip, reads the slot program ahead and issues one operation per cycle at most.

    A slot is issued in one cycle. In the cycles after a final one, whose lanes are updated in two or four, only those
    that add to z are. Three things hold it back: the pass has not been captured, the run before over the same groups
    began less than the membrane's recurrence ago, the emitter has no room.

    Members
    -------
    layer, start : In
    strobe : In(1)
        A pass has been captured: operations from ``delay`` + 1 cycles later on may be of its sums. Not in the cycle
        after ``start``.
    slots : Out(range(slots + 1))
        Slots of a pass, from the cycle of ``start`` on.
    release : Out(1)
        Pulse: a queued pass has been read for the last time, or will have been before a beat that is issued from now on
        is captured.
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
    beginning = 6
    """Cycles from ``start`` to the first issue: a register, the cursor, its entry, the queue, the slot that is next."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "strobe": In(1),
                "slots": Out(range(config.slots + 1)),
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
        self._start = Signal()
        m.d.sync += self._start.eq(self.start)
        cursor = Cursor(m, self.config, self.layer)
        advance = Signal()
        entry = self._fetch(m, cursor, advance)

        tags = data.StructLayout(
            {
                "slot": cursor.slot.shape(), "t": cursor.t.shape(), "lead": 1, "marks": 1, "revisit": 1, "fresh": 1,
                "tail": 1, "end": 1, "half": 1,
                "skip": cursor.skip.shape(), "gate": cursor.gate.shape(), "origin": 1, "begins": 1,
            }
        )  # fmt: skip
        tag0, tag1, tag2 = (Signal(tags, name=f"tag{n}") for n in range(3))
        valid1, valid2 = Signal(), Signal()
        m.d.comb += [
            tag0.slot.eq(cursor.slot),
            tag0.t.eq(cursor.t),
            tag0.lead.eq(cursor.slot == 0),
            tag0.marks.eq((cursor.slot == 0) & (~cursor.around | cursor.late)),
            tag0.half.eq(cursor.half),
            tag0.revisit.eq(cursor.revisit),
            tag0.fresh.eq(cursor.fresh),
            tag0.tail.eq(cursor.slot_last),
            tag0.end.eq(cursor.end),
            tag0.skip.eq(cursor.skip),
            tag0.gate.eq(cursor.gate),
            tag0.origin.eq(cursor.origin),
            tag0.begins.eq(cursor.begins),
        ]
        with m.If(advance):
            m.d.sync += [tag1.eq(tag0), tag2.eq(tag1), valid1.eq(cursor.valid), valid2.eq(valid1)]
        with m.If(self._start):
            cursor.restart(m)
            m.d.sync += [valid1.eq(0), valid2.eq(0)]
        with m.Elif(advance & cursor.valid):
            cursor.step(m)

        go, waiting = Signal(), Signal()
        next_slot = self._ahead(m, (entry, tag2), valid2, advance, (go, waiting))
        second = self._issue(m, next_slot, go)
        m.d.comb += [
            self.busy.eq(cursor.valid | valid1 | valid2 | waiting | second),
            self.slots.eq(cursor.slots),
        ]
        return m

    def _ahead(
        self, m: Module, slot: tuple[data.View, data.View], valid: Signal, advance: Signal, state: tuple[Signal, Signal]
    ) -> data.View:
        """Slots that have been read wait in a queue, so that the walk does not hang on what holds the next one back.

        ``slot``: entry and tag. Drives ``advance``, and whether any wait, in ``state``, behind the flag that the next
        one goes. Returns the next one, with what decides on it.
        """
        go, waiting = state
        entry, tag = slot
        both = data.StructLayout({"entry": entry.shape(), "tag": tag.shape()})
        flags = dict.fromkeys(("valid", "final", "adds", "updates", "emits", "needs_sums", "settles", "uses_up"), 1)
        m.submodules.queue = queue = fifo.SyncFIFO(width=both.size, depth=_AHEAD)
        first, head = (
            data.View(both, queue.r_data),
            Signal(data.StructLayout({"slot": both, **flags}), name="next_slot"),
        )
        room, sums = Signal(init=1), Signal()
        m.d.sync += [
            room.eq(queue.level + queue.w_en < _AHEAD),  # one may be on its way
            sums.eq(self.layer.gate == Gate.SUM),
        ]
        m.d.comb += [
            advance.eq(room),
            queue.w_en.eq(advance & valid),
            queue.w_data.eq(Cat(entry, tag)),
            queue.r_en.eq(~head.valid | go),
            waiting.eq(head.valid | (queue.level != 0)),
        ]
        final = first.entry.valid & first.entry.final
        with m.If(queue.r_en):
            m.d.sync += [
                head.slot.eq(first),
                head.valid.eq(queue.r_rdy),
                head.final.eq(final),
                head.adds.eq(first.entry.valid & first.tag.fresh),
                head.updates.eq(final | first.tag.end),
                head.emits.eq(self.layer.spiking & (final | first.tag.end)),
                head.needs_sums.eq(first.tag.lead & first.tag.fresh),
                head.settles.eq(sums & first.tag.begins),
                head.uses_up.eq(first.tag.tail & first.tag.fresh),
            ]
        return head

    @staticmethod
    def distance(config: Config) -> int:
        """Cycles from the first slot of a run to that of the next over the same groups.

        The first run may have begun while lanes were still updated for a slot before it, the next one not.
        """
        return NeuronPair.recurrence + config.neuron_ways - 2

    def _fetch(self, m: Module, cursor: Cursor, advance: Signal) -> data.View:
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

    def _issue(self, m: Module, head: data.View, go: Signal) -> Signal:
        """The next slot, if it may go. Returns that an update is not in its first cycle."""
        entry, tag = head.slot.entry, head.slot.tag
        second = Signal()  # not the first cycle of an update
        way = Signal(range(self.config.neuron_ways), init=1)  # of that cycle
        waiting, any_waiting = Signal(range(self.config.captured_cells + 1)), Signal()  # captured passes
        oldest = Signal(range(self.config.captured_cells))  # of which the first sum is there
        ready = Signal()
        sums, sigmoid, gated, around = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            sums.eq(self.layer.gate == Gate.SUM),
            sigmoid.eq(self.layer.gate == Gate.SIGMOID),
            gated.eq(self.layer.gate != Gate.NONE),
            around.eq(self.layer.static_input & self.layer.repeat_passes.any()),
        ]
        # a position of a SUM leg reads what the one before it wrote
        settling, settled = Signal(range(NeuronPair.skip_recurrence)), Signal(init=1)
        with m.If(go & head.final):
            m.d.sync += [settling.eq(NeuronPair.skip_recurrence - 1), settled.eq(0)]
        with m.Elif(~settled):
            m.d.sync += [settling.eq(settling - 1), settled.eq(settling == 1)]
        no_gap = self._distance(m, go & tag.marks, around)
        m.d.comb += [
            ready.eq(
                head.valid
                & ~(second & head.updates)
                & (~head.needs_sums | any_waiting)
                & (~tag.revisit | no_gap)
                & (~head.settles | settled)
            ),
            go.eq(ready & (self.room | ~head.emits)),
            self.stall_emit.eq(ready & head.emits & ~self.room),
        ]
        last_way = self.config.neuron_ways - 1
        m.d.sync += [
            second.eq((go & head.final) | (second & (way != last_way))),
            way.eq(Mux(second & (way != last_way), way + 1, 1)),
        ]

        used_up = go & head.uses_up
        m.d.sync += self.release.eq(used_up)
        with m.If(self._start):
            m.d.sync += [waiting.eq(0), any_waiting.eq(0), oldest.eq(0)]
        with m.Else():
            m.d.sync += [
                waiting.eq(waiting + self.strobe - used_up),
                any_waiting.eq(Mux(used_up, self.strobe | (waiting != 1), self.strobe | any_waiting)),
                oldest.eq(oldest + Mux(used_up, self.slots, 0)),
            ]

        op = self.op
        skip_at, gate_at = tag.skip + entry.group, tag.gate + entry.group
        m.d.sync += [
            self.op_valid.eq(go),
            op.accumulate.cell.eq(oldest + tag.slot),
            op.accumulate.group.eq(self._cell(entry.group, around, tag.half)),
            op.accumulate.shift.eq(entry.shift),
            op.accumulate.negate.eq(entry.negate),
            op.accumulate.subtract_s.eq(entry.subtract_s),
            op.accumulate.first.eq(entry.first),
            op.accumulate.enable.eq(go & head.adds),
            op.param.way.eq(Mux(second, way, 0)),
            op.update.eq((go & head.final) | second),
            op.way.eq(Mux(second, way, 0)),
            op.emit.eq(go & head.emits),
        ]
        with m.If(~second):  # an update keeps these for its further cycles
            m.d.sync += [
                op.param.group.eq(self.layer.param_base + Mux(sigmoid, tag.t, entry.group)),
                op.group.eq(entry.group),
                op.t.eq(tag.t),
                op.has_codes.eq(head.final),
                op.end.eq(tag.end),
                op.skip_read.eq(Mux(gated, gate_at, skip_at)),
                op.skip_write.eq(Mux(sums | sigmoid, gate_at, skip_at)),
                op.add.eq(self.layer.add_skip | sigmoid | (sums & ~tag.origin)),
            ]
        return second

    def _distance(self, m: Module, mark: Value, around: Value) -> Signal:
        """The run over slots that visited the same groups last began long enough ago: it is so many runs back.

        Time stands still while the emitter holds a slot back: a stall between two slots must not eat up the distance.
        """
        distance = self.distance(self.config)
        recent = Signal(distance - 1)  # bit k: a run began k + 1 cycles ago
        back, clear = Signal(range(distance)), Signal(init=1)
        few = self.layer.repeat_passes < distance
        m.d.sync += back.eq(Mux(around, Mux(few, self.layer.repeat_passes, distance - 1), 1))
        # counted for all that may come of this cycle: what decides is late
        still, older = (sum(recent[k] for k in range(number)) for number in (distance - 1, distance - 2))
        with m.If(self.stall_emit):
            m.d.sync += clear.eq(still < back)
        with m.Else():
            m.d.sync += [recent.eq(Cat(mark, recent)), clear.eq(Mux(mark, older + 1 < back, older < back))]
        return clear

    def _cell(self, group: Value, around: Value, half: Value) -> Value:
        """Cell of z: with two positions under way, each has a half of them."""
        bits = exact_log2(self.config.z_depth)
        return Mux(around, Cat(group[: bits - 1], half), group[:bits]) if bits else group[:0]
