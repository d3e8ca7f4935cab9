"""The gather: everything between a layer descriptor and the beats of the lane array."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..config import Config
from ..contract import COUNT_BITS, ROW_CELLS
from ..memory import DualReadMemory
from ..signatures import ActWrite, Beat, CountWrite, LocalBus, event_layout, layer_layout
from .dispatcher import Dispatcher
from .host import HostLeaf
from .path import BankPath, word_bits
from .shapes import act_addr_width, count_addr_width, row_addr_width
from .sources import SourceQueue
from .walker import Walker
from .writes import WriteQueue

__all__ = ["Gather"]


class Gather(wiring.Component):
    """Walker, tables, dispatcher, and the activation, count and weight memories of all banks.

    Parameters
    ----------
    config : Config

    Members
    -------
    layer : In(layer_layout())
        Stable from two cycles before ``start`` until ``done`` and the last beat has come out.
    start : In(1)
        Pulse: gather the strip. Only when ``done``.
    done : Out(1)
        Level: all passes of all positions have been issued; low from ``start``. A beat comes ``delay`` cycles after its
        issue.
    beat : Out(Beat(config))
    release : In(1)
        Pulse: the sums of a pass have been read. At most one last beat more than there were pulses is issued.
    act_write, count_write : In
        Records of the layer that is being computed. Counts are written two cycles later, events when the second port of
        their bank is spare, a few cycles later at most; never to a record that is being gathered.
    act_bus, count_bus, weight_bus : In(LocalBus())
        Only while ``done`` and nothing is being written; a write takes effect one cycle later.
    stall_table, stall_drain, stall_steal : Out(1)
        In the cycle before: no table was ready; a last beat waited (:class:`Dispatcher`); a beat was smaller because of
        a write.
    n_events : Out
        Events issued, and
    pass_end : Out(1)
        the end of a pass; both two cycles after the issue.
    """

    delay = BankPath.delay
    steal_delay = 1
    """Cycles from a write to the first in which it may take a second port."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "done": Out(1),
                "beat": Out(Beat(config)),
                "release": In(1),
                "act_write": In(ActWrite(config)),
                "count_write": In(CountWrite(config)),
                "act_bus": In(LocalBus()),
                "count_bus": In(LocalBus()),
                "weight_bus": In(LocalBus()),
                "stall_table": Out(1),
                "stall_drain": Out(1),
                "stall_steal": Out(1),
                "n_events": Out(bits_for(config.ports)),
                "pass_end": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = Walker(self.config)
        m.submodules.sources = sources = SourceQueue(self.config)
        m.submodules.dispatcher = dispatcher = Dispatcher(self.config)
        m.d.comb += [
            walker.layer.eq(self.layer),
            walker.start.eq(self.start),
            walker.room.eq(sources.room),
            sources.step.eq(walker.step),
            sources.valid.eq(walker.valid),
            sources.source.eq(walker.source),
            sources.table_free.eq(dispatcher.table_free),
            dispatcher.layer.eq(self.layer),
            dispatcher.start.eq(self.start),
            dispatcher.valid.eq(sources.out_valid),
            dispatcher.source.eq(sources.out_source),
            dispatcher.count.eq(sources.out_count),
            dispatcher.release.eq(self.release),
            self.done.eq(dispatcher.done),
        ]
        # registered here: the wire to the counters must not be part of the paths that decide on a beat
        m.d.sync += [
            self.stall_table.eq(dispatcher.stall_table),
            self.stall_drain.eq(dispatcher.stall_drain),
            self.stall_steal.eq(dispatcher.stall_steal),
        ]
        self._counts(m, walker, sources)
        self._paths(m, dispatcher)
        self._beats(m, dispatcher)
        self._events(m, dispatcher)
        return m

    def _counts(self, m: Module, walker: Walker, sources: SourceQueue) -> None:
        config = self.config
        m.submodules.count_leaf = leaf = HostLeaf(config.banks, 1, count_addr_width(config), COUNT_BITS)
        wiring.connect(m, leaf.bus, wiring.flipped(self.count_bus))
        for bank in range(config.banks):
            m.submodules[f"counts_{bank}"] = memory = DualReadMemory(COUNT_BITS, config.count_words)
            host = leaf.port[bank]
            m.d.sync += [
                memory.b_addr.eq(Mux(host.active, host.addr, self.count_write.addr)),
                memory.w_en.eq(host.w_en | self.count_write.en),
                memory.w_data.eq(Mux(host.active, host.w_data, self.count_write.count[bank])),
            ]
            m.d.comb += [
                memory.a_en.eq(walker.count_en),
                memory.a_addr.eq(walker.count_addr),
                sources.count[bank].eq(memory.a_data),
                leaf.r_data[bank].eq(memory.b_data),
            ]

    def _paths(self, m: Module, dispatcher: Dispatcher) -> None:
        config = self.config
        words = config.weight_words
        m.submodules.act_leaf = act = HostLeaf(config.banks, 1, act_addr_width(config), event_layout().size)
        m.submodules.weight_leaf = weight = HostLeaf(config.banks, words, row_addr_width(config), word_bits(config))
        wiring.connect(m, act.bus, wiring.flipped(self.act_bus))
        wiring.connect(m, weight.bus, wiring.flipped(self.weight_bus))
        for bank in range(config.banks):
            m.submodules[f"path_{bank}"] = path = BankPath(config)
            m.submodules[f"writes_{bank}"] = writes = WriteQueue(config)
            m.d.comb += [
                writes.en.eq(self.act_write.en[bank]),
                writes.addr.eq(self.act_write.addr[bank]),
                writes.data.eq(self.act_write.data[bank]),
                writes.spare.eq(dispatcher.spare[bank]),
                dispatcher.steal[bank].eq(writes.force),
                path.pair.eq(dispatcher.pair[bank]),
                path.pass_base.eq(dispatcher.pass_base),
                path.w_en.eq(writes.w_en),
                path.w_addr.eq(writes.w_addr),
                path.w_data.eq(writes.w_data),
                path.host_act.eq(act.port[bank]),
                path.host_weight.eq(weight.port[bank]),
                act.r_data[bank].eq(path.act_data),
            ]
            for word in range(words):
                m.d.comb += weight.r_data[bank * words + word].eq(path.weight_data[word])
            for port in range(2):
                m.d.comb += [
                    self.beat.x[2 * bank + port].eq(path.x[port]),
                    self.beat.row[2 * bank + port].eq(path.row[port]),
                ]

    def _beats(self, m: Module, dispatcher: Dispatcher) -> None:
        """Flags of the beat, as late as its data."""
        row_mode = {"keep": 1, "capture": 1, "cell": range(ROW_CELLS)} if self.config.taps > 1 else {}
        flags = data.StructLayout({"valid": 1, "first": 1, "last": 1, **row_mode})
        now = Signal(flags)
        m.d.comb += [now.valid.eq(dispatcher.beat), now.first.eq(dispatcher.first), now.last.eq(dispatcher.last)]
        m.d.comb += [now[name].eq(getattr(dispatcher, name)) for name in row_mode]
        for k in range(self.delay):
            later = Signal(flags, name=f"flags_{k}")
            m.d.sync += later.eq(now)
            now = later
        m.d.comb += [self.beat.valid.eq(now.valid), self.beat.first.eq(now.first), self.beat.last.eq(now.last)]
        m.d.comb += [getattr(self.beat, name).eq(now[name]) for name in row_mode]

    def _events(self, m: Module, dispatcher: Dispatcher) -> None:
        valid = Signal(self.config.ports)
        ended = Signal()
        events = [dispatcher.pair[bank].valid for bank in range(self.config.banks)]
        m.d.sync += [
            valid.eq(Cat(*events)),
            ended.eq(dispatcher.beat & dispatcher.last),
            self.n_events.eq(sum(valid[k] for k in range(self.config.ports))),
            self.pass_end.eq(ended),
        ]
