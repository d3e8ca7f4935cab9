"""From activation codes to stored events: one per bank and cycle, ascending; counts of finished records."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..config import Config
from ..memory import DISTRIBUTED
from ..signatures import ActWrite, CountWrite, event_layout, layer_layout, slot_layout
from .fixed import delayed, delayed_view

__all__ = ["FIFO_DEPTH", "Emitter", "entry_layout"]

FIFO_DEPTH = 16
_PIPELINE = 3  # stages from record number to address


def entry_layout(config: Config) -> data.StructLayout:
    """One neuron update of all lanes, or a bare end-of-record marker (all codes 0)."""
    return data.StructLayout(
        {
            "codes": data.ArrayLayout(contract.EVENT_VALUE_BITS, config.neuron_lanes),
            "group": slot_layout()["group"].shape,
            "t": layer_layout()["timesteps"].shape,
            "end": 1,
        }
    )


class Emitter(wiring.Component):
    """Stores the non-zero codes as events and, at the end of a record, its counts.

    Room is kept by credits: ``issued`` announces an entry that will arrive later, so nothing on the way ever stalls.

    Members
    -------
    layer, start : In
        ``start`` pulses before the strip's first entry.
    issued : In(1)
        Pulse per entry on its way.
    entry_valid, entry : In
        The entry; always accepted.
    room : Out(1)
        ``margin`` more entries may be issued.
    busy : Out(1)
        Something that arrived has not been written yet.
    outstanding, level : Out(range(FIFO_DEPTH + 1))
        Entries issued and not taken from the queue; entries in the queue.
    act_write, count_write : Out
    """

    margin = 3
    """Entries that may be issued before a fall of ``room`` takes effect."""
    delay = 2
    """Cycles from an entry's arrival to the cycle in which its first events go out, if none are before it."""
    write_delay = _PIPELINE + 1
    """Cycles from there to ``act_write`` and ``count_write``."""
    settling = write_delay
    """Cycles that ``busy`` outlasts the last event."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "issued": In(1),
                "entry_valid": In(1),
                "entry": In(entry_layout(config)),
                "room": Out(1),
                "busy": Out(1),
                "outstanding": Out(range(FIFO_DEPTH + 1)),
                "level": Out(range(FIFO_DEPTH + 1)),
                "act_write": Out(ActWrite(config)),
                "count_write": Out(CountWrite(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = entry_layout(self.config)
        queued = data.StructLayout({"entry": layout, "present": self.config.neuron_lanes})
        m.submodules.queue = queue = fifo.SyncFIFO(width=queued.size, depth=FIFO_DEPTH)
        arriving, waiting = data.View(queued, queue.w_data), data.View(queued, queue.r_data)
        head, present = waiting.entry, waiting.present
        m.d.comb += [
            queue.w_en.eq(self.entry_valid),
            arriving.entry.eq(self.entry),
            arriving.present.eq(Cat(code.any() for code in self.entry.codes)),
        ]

        outstanding = self.outstanding
        m.d.comb += self.level.eq(queue.level)
        m.d.sync += outstanding.eq(outstanding + self.issued - (queue.r_en & queue.r_rdy))
        m.d.sync += self.room.eq(outstanding < FIFO_DEPTH - self.margin)

        active, done, load = Signal(), Signal(), Signal()
        current = Signal(layout)
        m.d.comb += [load.eq(queue.r_rdy & (~active | done)), queue.r_en.eq(load)]
        with m.If(load):
            m.d.sync += [active.eq(1), current.eq(head)]
        with m.Elif(done):
            m.d.sync += active.eq(0)

        banks = [self._bank(m, bank, present, current, active, load) for bank in range(self.config.banks)]
        m.d.comb += done.eq(active & Cat(last for _, _, last in banks).all())
        counts = self._counts(m, [fire for fire, _, _ in banks], head, current, load, done)
        record = self._record(m, current, active & done)
        self._write(m, banks, counts, record, current, done)
        m.d.comb += self.busy.eq(queue.r_rdy | active | self._settling(m, active))
        return m

    def _bank(
        self, m: Module, bank: int, present: Value, current: data.View, active: Signal, load: Signal
    ) -> tuple[Signal, data.View, Signal]:
        """(an event goes out, its word, no more remain after it) of one bank."""
        config = self.config
        lanes = [bank + config.banks * n for n in range(config.channels_per_bank_group)]
        pending = Signal(len(lanes), name=f"pending_{bank}")
        fire, last = Signal(name=f"fire_{bank}"), Signal(name=f"last_{bank}")
        word = Signal(event_layout(), name=f"word_{bank}")
        lower = (pending - 1)[: len(lanes)]
        arriving, left = Signal(len(lanes), name=f"arriving_{bank}"), Signal(len(lanes), name=f"left_{bank}")
        m.d.comb += [
            fire.eq(active & pending.any()),
            arriving.eq(Cat(present[lane] for lane in lanes)),
            left.eq(pending & lower),
        ]
        # whether one event at most is left is a register, for everything in the next cycle hangs on it
        m.d.sync += [
            pending.eq(Mux(load, arriving, left)),
            last.eq(Mux(load, _one_at_most(arriving), _one_at_most(left))),
        ]
        for n in reversed(range(len(lanes))):
            with m.If(pending[n]):
                m.d.comb += [word.value.eq(current.codes[lanes[n]]), word.index.eq(current.group * len(lanes) + n)]
        return fire, word, last

    def _counts(
        self, m: Module, fires: list[Signal], head: data.View, current: data.View, load: Signal, done: Signal
    ) -> list[Signal]:
        """Events so far in the current record, per bank; those of the other steps rest in a small memory."""
        config = self.config
        bits = contract.COUNT_BITS
        m.submodules.resting = resting = memory.Memory(
            shape=bits * config.banks, depth=config.max_timesteps, init=[], attrs=DISTRIBUTED
        )
        read, write = resting.read_port(domain="comb"), resting.write_port()
        fresh = Signal(config.max_timesteps)  # steps whose record has no event yet
        counts = [Signal(bits, name=f"count_{bank}") for bank in range(config.banks)]
        following = [Signal(bits, name=f"following_{bank}") for bank in range(config.banks)]
        same = Signal()
        m.d.comb += [
            read.addr.eq(head.t),
            write.addr.eq(current.t),
            write.data.eq(Cat(following)),
            write.en.eq(done),
            same.eq(done & (head.t == current.t)),
        ]
        for bank, (count, follow, fire) in enumerate(zip(counts, following, fires, strict=True)):
            stored = Mux(fresh.bit_select(head.t, 1), 0, read.data.word_select(bank, bits))
            m.d.comb += follow.eq(count + fire)
            m.d.sync += count.eq(Mux(load, Mux(same, Mux(current.end, 0, follow), stored), follow))
        with m.If(self.start):
            m.d.sync += fresh.eq(~0)
        with m.Elif(done):
            m.d.sync += fresh.bit_select(current.t, 1).eq(current.end)
        return counts

    def _record(self, m: Module, current: data.View, done: Signal) -> Signal:
        """Record number of the current entry: position's first record plus t. Valid while the entry is current."""
        layer = self.layer
        row_base, position = Signal(layer.dst_row0.shape()), Signal(layer.dst_row0.shape())
        record = Signal(layer.dst_row0.shape())
        column = Signal(layer.cols.shape())
        last_t, last_column = Signal(layer.timesteps.shape()), Signal(layer.cols.shape())
        wrap = Signal(signed(len(layer.dst_ring) + 1))
        m.d.sync += [
            last_t.eq(layer.timesteps - 1),
            last_column.eq(layer.cols - 1),
            wrap.eq(layer.dst_row_stride - layer.dst_ring),
        ]
        wrapped, next_base = Signal(signed(len(layer.dst_ring) + 2)), Signal(layer.dst_row0.shape())
        m.d.comb += [
            record.eq(position + current.t),
            wrapped.eq(row_base + wrap),
            next_base.eq(Mux(wrapped < 0, row_base + layer.dst_row_stride, wrapped)),
        ]
        with m.If(self.start):
            m.d.sync += [row_base.eq(layer.dst_row0), position.eq(layer.dst_row0), column.eq(0)]
        with m.Elif(done & current.end & (current.t == last_t)):
            with m.If(column == last_column):
                m.d.sync += [row_base.eq(next_base), position.eq(next_base), column.eq(0)]
            with m.Else():
                m.d.sync += [position.eq(position + layer.timesteps), column.eq(column + 1)]
        return record

    def _write(
        self,
        m: Module,
        banks: list[tuple[Signal, data.View, Signal]],
        counts: list[Signal],
        record: Signal,
        current: data.View,
        done: Signal,
    ) -> None:
        """Address pipeline: record number, times slots, plus base, plus count."""
        layer = self.layer
        number, count_addr = Signal(layer.dst_row0.shape()), Signal(layer.dst_cnt_base.shape())
        offset, base = Signal(layer.dst_act_base.shape()), Signal(layer.dst_act_base.shape())
        m.d.sync += [
            number.eq(record),
            offset.eq(number * layer.dst_slots),
            base.eq(offset + layer.dst_act_base),
            count_addr.eq(delayed(m, number, 1, "number") + layer.dst_cnt_base),
        ]
        act, count = self.act_write, self.count_write
        for bank, (fire, word, _) in enumerate(banks):
            m.d.sync += [
                act.en[bank].eq(delayed(m, fire, _PIPELINE, f"fire_{bank}")),
                act.data[bank].eq(delayed_view(m, word, _PIPELINE, f"word_{bank}")),
                act.addr[bank].eq(base + delayed(m, counts[bank], _PIPELINE, f"count_{bank}")),
            ]
            m.d.sync += count.count[bank].eq(delayed(m, counts[bank] + fire, _PIPELINE, f"total_{bank}"))
        m.d.sync += [count.en.eq(delayed(m, done & current.end, _PIPELINE, "end")), count.addr.eq(count_addr)]

    def _settling(self, m: Module, active: Signal) -> Value:
        """The address pipeline still holds something."""
        trail = Signal(self.settling)
        m.d.sync += trail.eq(Cat(active, trail))
        return trail.any()


def _one_at_most(mask: Signal) -> Value:
    """At most one bit is set."""
    return (mask & (mask - 1)[: len(mask)]) == 0
