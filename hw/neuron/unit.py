"""The neuron unit: slots of a captured pass in, events and counts of finished records out."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from ..config import Config
from ..signatures import ActWrite, Captured, CountWrite, LocalBus, layer_layout
from .accumulator import SlotAccumulator, subtrahend
from .emitter import Emitter, entry_layout
from .fixed import delayed
from .lane import NeuronLane
from .params import ParamMemory
from .sequence import SlotSequencer

__all__ = ["NeuronUnit"]

_DRAIN = SlotAccumulator.delay + NeuronLane.write_at + 4
"""Cycles from the last operation until every membrane and every emitter entry has been written, with some to spare."""


class NeuronUnit(wiring.Component):
    """Drains captured passes slot by slot through the neuron lanes (``docs/numerics.md`` sections 2 and 3).

    ::

        captured -> SlotAccumulator x L -> NeuronLane x L -> Emitter -> act_write, count_write
                        ^ op                ^ ParamMemory x L
                    SlotSequencer

    Parameters
    ----------
    config : Config

    Members
    -------
    layer : In(layer_layout())
        Stable from one cycle before ``start`` until ``done``; loop counts are not zero.
    start : In(1)
        Pulse: a strip begins. Passes are captured after it.
    done : Out(1)
        Level. Low from the cycle after ``start`` until the strip is drained and its events and counts are written.
    captured : In(Captured(config))
    act_write, count_write : Out
    slot_bus, param_bus, membrane_bus : In(LocalBus())
        Host-bus leaves; used only while ``done``.
    stall_emit : Out(1)
        In this cycle a slot waits for the emitter.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(layer_layout()),
                "start": In(1),
                "done": Out(1),
                "captured": In(Captured(config)),
                "act_write": Out(ActWrite(config)),
                "count_write": Out(CountWrite(config)),
                "slot_bus": In(LocalBus()),
                "param_bus": In(LocalBus()),
                "membrane_bus": In(LocalBus()),
                "stall_emit": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequencer = sequencer = SlotSequencer(self.config)
        m.submodules.emitter = emitter = Emitter(self.config)
        connect(m, flipped(self.slot_bus), sequencer.bus)
        connect(m, flipped(self.act_write), emitter.act_write)
        connect(m, flipped(self.count_write), emitter.count_write)
        m.d.comb += [
            sequencer.layer.eq(self.layer),
            sequencer.start.eq(self.start),
            sequencer.strobe.eq(self.captured.strobe),
            sequencer.room.eq(emitter.room),
            self.captured.release.eq(sequencer.release),
            self.stall_emit.eq(sequencer.stall_emit),
            emitter.layer.eq(self.layer),
            emitter.start.eq(self.start),
            emitter.issued.eq(sequencer.op.emit),
        ]
        self._lanes(m, sequencer.op, emitter)
        self._done(m, sequencer.busy, emitter.busy)
        return m

    def _lanes(self, m: Module, op: data.View, emitter: Emitter) -> None:
        config, layer = self.config, self.layer
        z_at = SlotAccumulator.delay
        group_of = Signal(range(config.layer_groups) if config.layer_groups > 1 else 1)
        m.d.comb += group_of.eq(op.group)
        control = Cat(op.final, op.t == 0, group_of)

        # membrane addresses: read_at and write_at count from z; the host reads between runs
        read = delayed(m, control, z_at + NeuronLane.read_at, "read")
        write = delayed(m, read, NeuronLane.write_at - NeuronLane.read_at, "write")
        host = self.membrane_bus
        lane_bits = exact_log2(config.neuron_lanes)
        r_addr = Mux(host.r_en, host.addr[lane_bits:], read[2:])
        r_clear = read[1] & ~host.r_en

        minus_s = subtrahend(m, config, op.accumulate, self.captured.s)
        words = self._params(m, delayed(m, op.param, z_at - ParamMemory.delay, "param"))
        codes, membranes = [], []
        for index in range(config.neuron_lanes):
            accumulator, lane = SlotAccumulator(config), NeuronLane(config)
            m.submodules[f"accumulator_{index}"] = accumulator
            m.submodules[f"lane_{index}"] = lane
            m.d.comb += [
                accumulator.op.eq(op.accumulate),
                accumulator.subtrahend.eq(minus_s),
                lane.z.eq(accumulator.z),
                lane.word.eq(words[index]),
                lane.r_shift.eq(layer.r_shift),
                lane.tau_q.eq(layer.tau_q),
                lane.code_max.eq(layer.code_max),
                lane.spiking.eq(layer.spiking),
                lane.r_addr.eq(r_addr),
                lane.r_clear.eq(r_clear),
                lane.w_addr.eq(write[2:]),
                lane.w_en.eq(write[0]),
            ]
            for slot in range(config.slots):
                m.d.comb += accumulator.p[slot].eq(self.captured.p[slot * config.neuron_lanes + index])
            codes.append(lane.code)
            membranes.append(lane.membrane)

        self._host_read(m, host, membranes)
        self._enter(m, op, codes, emitter)

    def _params(self, m: Module, row: Value) -> list[Signal]:
        """Parameter memories; words two cycles after ``row``."""
        bus = self.param_bus
        lane_bits = exact_log2(self.config.neuron_lanes)
        words = []
        for index in range(self.config.neuron_lanes):
            m.submodules[f"params_{index}"] = params = ParamMemory(self.config)
            m.d.comb += [
                params.r_addr.eq(Mux(bus.r_en, bus.addr[lane_bits:], row)),
                params.w_addr.eq(bus.addr[lane_bits:]),
                params.w_data.eq(bus.w_data),
                params.w_en.eq(bus.w_en & (bus.addr[:lane_bits] == index)),
            ]
            words.append(params.word)
        self._host_read(m, bus, words)
        return words

    def _host_read(self, m: Module, bus: wiring.PureInterface, lanes: list[Signal]) -> None:
        """``r_data`` from per-lane registers that are valid two cycles after ``r_en``."""
        lane_bits = exact_log2(self.config.neuron_lanes)
        lane = delayed(m, bus.addr[:lane_bits], 2, "host_lane")
        m.d.comb += bus.r_data.eq(Array(lanes)[lane] if lane_bits else lanes[0])

    def _enter(self, m: Module, op: data.View, codes: list[Signal], emitter: Emitter) -> None:
        """One register between the lanes and the emitter; codes of a bare end-of-record marker are cleared."""
        layout = entry_layout(self.config)
        tag = Cat(op.emit, op.has_codes, op.end, op.t, op.group)
        tag = delayed(m, tag, SlotAccumulator.delay + NeuronLane.delay, "tag")
        entry, valid = Signal(layout), Signal()
        m.d.sync += [valid.eq(tag[0]), entry.end.eq(tag[2]), entry.t.eq(tag[3:8]), entry.group.eq(tag[8:])]
        for index, code in enumerate(codes):
            m.d.sync += entry.codes[index].eq(Mux(tag[1], code, 0))
        m.d.comb += [emitter.entry_valid.eq(valid), emitter.entry.eq(entry)]

    def _done(self, m: Module, issuing: Value, emitting: Value) -> None:
        running = Signal()
        drain = Signal(range(_DRAIN + 1))
        m.d.comb += self.done.eq(~running)
        with m.If(self.start):
            m.d.sync += [running.eq(1), drain.eq(_DRAIN)]
        with m.Elif(issuing):
            m.d.sync += drain.eq(_DRAIN)
        with m.Elif(drain != 0):
            m.d.sync += drain.eq(drain - 1)
        with m.Elif(~emitting):
            m.d.sync += running.eq(0)
