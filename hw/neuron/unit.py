"""The neuron unit: slots of a captured pass in, events and counts of finished records out."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from ..carry import Platform
from ..config import Config
from ..contract import OFFSET_BITS, PARAM_WORDS, TAU_ONE, WORD_BITS, Gate
from ..copies import copied
from ..signatures import ActWrite, Captured, CountWrite, LocalBus, layer_layout
from .accumulator import SlotAccumulator, offset
from .captured import CaptureWriter
from .emitter import Emitter, entry_layout
from .fixed import delayed, delayed_view
from .lane import LAYER_CONSTANTS, NeuronPair, row_layout
from .params import ParamMemory
from .sequence import SlotSequencer

__all__ = ["NeuronUnit"]


class NeuronUnit(wiring.Component):
    """Drains captured passes slot by slot through the neuron lanes (``docs/numerics.md`` sections 2 and 3).

    ::

        captured -> SlotAccumulator x L -> NeuronPair x L/2 -> Emitter -> act_write, count_write
                        ^ op, store         ^ ParamMemory x L
                    SlotSequencer, CaptureWriter

    Parameters
    ----------
    config : Config
    platform : "generic" or "ecp5"
        See :class:`~reverb_fpga.hw.carry.ControlledAdder`.

    Members
    -------
    layer : In(layer_layout())
        Stable from two cycles before ``start`` until ``done``; loop counts are not zero.
    start : In(1)
        Pulse: a strip begins. Passes are captured after it.
    done : Out(1)
        Level. Low from the cycle after ``start`` until the strip is drained and its events and counts are written.
    captured : In(Captured(config))
    act_write, count_write : Out
    slot_bus, param_bus, membrane_bus : In(LocalBus())
        Host-bus leaves; used only while ``done``. A write to the parameters takes effect one cycle later.
    stall_emit : Out(1)
        In the cycle before, a slot waited for the emitter.
    """

    drain = SlotAccumulator.delay + NeuronPair.write_at + 4
    """Cycles from the last operation until every membrane and entry has been written, with some to spare."""
    capturing = SlotAccumulator.store_to_op - SlotSequencer.delay - 1
    """Cycles from ``captured.strobe`` until the sequencer may know of the pass."""
    ending = 2
    """Cycles until ``done``, from the last of ``drain`` or the last in which the emitter is busy."""

    def __init__(self, config: Config, platform: Platform = "generic") -> None:
        self.config = config
        self.platform: Platform = platform
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

    @staticmethod
    def entry_delay(config: Config) -> int:
        """Cycles from the issue of a slot to its entry's arrival at the emitter, with a register of all codes."""
        return SlotSequencer.delay + SlotAccumulator.delay + NeuronPair.delay + config.neuron_ways

    @staticmethod
    def module_names(config: Config) -> list[str]:
        """Submodules with registers of their own against fan-out: synthesis must keep their hierarchy.

        The accumulators would gain as well, but yosys 0.70 fails in abc9 when they are kept.
        """
        return [f"pair_{index}" for index in range(config.neuron_lanes // config.neuron_ways)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequencer = sequencer = SlotSequencer(self.config)
        m.submodules.writer = writer = CaptureWriter(self.config)
        m.submodules.emitter = emitter = Emitter(self.config)
        connect(m, flipped(self.slot_bus), sequencer.bus)
        connect(m, flipped(self.act_write), emitter.act_write)
        connect(m, flipped(self.count_write), emitter.count_write)
        m.d.comb += [
            sequencer.layer.eq(self.layer),
            sequencer.start.eq(self.start),
            sequencer.strobe.eq(delayed(m, self.captured.strobe, self.capturing, "captured")),
            writer.start.eq(self.start),
            writer.strobe.eq(self.captured.strobe),
            writer.slots.eq(sequencer.slots),
            sequencer.room.eq(emitter.room),
            self.captured.release.eq(sequencer.release),
            emitter.layer.eq(self.layer),
            emitter.start.eq(self.start),
            emitter.issued.eq(sequencer.op.emit),
        ]
        m.d.sync += self.stall_emit.eq(sequencer.stall_emit)
        self._lanes(m, sequencer.op, writer.store, emitter)
        self._done(m, sequencer.busy, emitter.busy)
        return m

    def _lanes(self, m: Module, op: data.View, store: data.View, emitter: Emitter) -> None:
        config = self.config
        z_at, read_at, write_at = SlotAccumulator.delay, NeuronPair.read_at, NeuronPair.write_at
        stores = self.layer.store_skip  # a leg: its current, neither integrated nor leaked, is what comes out
        access = Signal(data.StructLayout({"en": 1, "clear": 1, "row": row_layout(config, config.layer_groups)}))
        m.d.comb += [
            access.en.eq(op.update & ~stores),
            access.clear.eq((op.t == 0) | stores),
            access.row.way.eq(op.way),
            access.row.group.eq(op.group),
        ]
        read = delayed_view(m, access, z_at + read_at, "read")
        write = delayed_view(m, read, write_at - read_at, "write")
        way = delayed(m, op.way, z_at - 1, "way")

        host = self.membrane_bus
        asked = data.View(_membrane_address(config), host.addr)
        r_addr = Mux(host.r_en, Cat(asked.way, asked.group), read.row)

        zs = self._accumulators(m, op.accumulate, store)
        words = self._params(m, op.param)
        codes, membranes, pairs = [], [], []
        ways = config.neuron_ways
        for index in range(config.neuron_lanes // ways):
            m.submodules[f"pair_{index}"] = pair = NeuronPair(config)
            m.d.comb += [
                pair.way.eq(way),
                pair.word0.eq(words[index][0]),
                pair.word1.eq(words[index][1]),
                pair.r_addr.eq(r_addr),
                pair.r_clear.eq(read.clear & ~host.r_en),
                pair.w_addr.eq(write.row),
                pair.w_en.eq(write.en),
            ]
            constants = {name: self.layer[name] for name in LAYER_CONSTANTS}
            constants["tau_q"] = Mux(stores, TAU_ONE, self.layer.tau_q)
            m.d.comb += [getattr(pair, name).eq(value) for name, value in constants.items()]
            m.d.comb += [pair.z[n].eq(zs[ways * index + n]) for n in range(ways)]
            pairs.append(pair)
            codes += [delayed(m, pair.code, ways - 1 - n, f"code_{index}_{n}") for n in range(ways)]
            membranes.append(pair.membrane)

        host_pair = delayed(m, asked.pair, 2, "host_pair")
        m.d.sync += host.r_data.eq(_select(membranes, host_pair))
        if config.skip_words:
            self._skip(m, op, pairs)
        self._enter(m, op, codes, emitter)

    def _skip(self, m: Module, op: data.View, pairs: list[NeuronPair]) -> None:
        """Addresses of the skip memory. Gates to be applied are read later than what is added."""
        begin, read_at = SlotAccumulator.delay, NeuronPair.skip_read_at
        access = data.StructLayout({"en": 1, "row": row_layout(self.config, self.config.skip_words)})
        adds, stores = Signal(access), Signal(access)
        m.d.comb += [
            adds.en.eq(op.add),
            adds.row.way.eq(op.way),
            adds.row.group.eq(op.skip_read),
            stores.en.eq(op.update & self.layer.store_skip),
            stores.row.way.eq(op.way),
            stores.row.group.eq(op.skip_write),
        ]
        read = delayed_view(m, adds, begin + read_at, "skip_read")
        late = delayed_view(m, read, NeuronPair.gate_read_at - read_at, "gate_read")
        write = delayed_view(m, stores, begin + NeuronPair.skip_write_at, "skip_write")
        apply = self.layer.gate == Gate.APPLY
        for pair in pairs:
            m.d.comb += [
                pair.apply.eq(apply),
                pair.sigmoid.eq(self.layer.gate == Gate.SIGMOID),
                pair.skip_add.eq(read.en),
                pair.skip_r_addr.eq(Mux(apply, late.row, read.row)),
                pair.skip_w_addr.eq(write.row),
                pair.skip_w_en.eq(write.en),
            ]

    def _accumulators(self, m: Module, op: data.View, store: data.View) -> list[Value]:
        """z of every lane, of each further lane of a datapath one cycle later."""
        config, ways = self.config, self.config.neuron_ways
        common = offset(m, op, store, self.captured.s)
        ops = [delayed(m, op, n, f"op_{n}") for n in range(ways)]
        offsets = [delayed(m, common, n, f"offset_{n}") for n in range(ways)]
        zs = []
        for index in range(config.neuron_lanes):
            m.submodules[f"accumulator_{index}"] = accumulator = SlotAccumulator(config, self.platform)
            m.d.comb += [
                accumulator.op.as_value().eq(ops[index % ways]),
                accumulator.store.eq(store),
                accumulator.offset.eq(offsets[index % ways]),
            ]
            for slot in range(config.slots):
                m.d.comb += accumulator.p[slot].eq(self.captured.p[slot * config.neuron_lanes + index])
            zs.append(accumulator.z)
        return zs

    def _params(self, m: Module, row: data.View) -> list[list[Signal]]:
        """Both parameter words of every pair, each in the cycle in which the pair wants it."""
        bus = self.param_bus
        asked = data.View(_param_address(self.config), bus.addr)
        ahead = SlotAccumulator.delay - ParamMemory.delay
        rows = [delayed(m, row, ahead + at - 1, f"row{at}") for at in (NeuronPair.word0_at, NeuronPair.word1_at)]
        words: list[list[Signal]] = []
        answer: Value = Const(0, WORD_BITS)
        for index in range(self.config.neuron_lanes // self.config.neuron_ways):
            # the host's request in registers of each pair, loaded only for it: the pairs lie all over the device
            here = Cat((asked.pair == index) & (asked.word == n) for n in range(PARAM_WORDS))
            host_row = Signal(row_layout(self.config, self.config.param_groups), name=f"host_row_{index}")
            host_data = Signal(WORD_BITS, name=f"host_data_{index}")
            reads = delayed(m, Mux(bus.r_en, here, 0), 1, f"reads_{index}")
            writes = delayed(m, Mux(bus.w_en, here, 0), 1, f"writes_{index}")
            with m.If((asked.pair == index) & (bus.r_en | bus.w_en)):
                m.d.sync += [host_row.way.eq(asked.way), host_row.group.eq(asked.group), host_data.eq(bus.w_data)]
            words.append([])
            early = []
            for n, common_row in enumerate(rows):
                m.submodules[f"params_{index}_{n}"] = params = ParamMemory(self.config)
                pair_row = copied(m, common_row, f"pair_row_{index}_{n}")
                m.d.comb += [
                    params.r_addr.eq(Mux(reads[n], host_row, pair_row)),
                    params.w_addr.eq(host_row),
                    params.w_data.eq(host_data),
                    params.w_en.eq(writes[n]),
                ]
                words[-1].append(params.word)
                early.append(params.early)
            # picked and masked beside each pair: a multiplexer of all words in one place draws too many wires there
            picked = Signal(WORD_BITS, name=f"picked_{index}")
            was_read = delayed(m, reads, 1, f"was_read_{index}")
            m.d.sync += picked.eq(Mux(was_read[0], early[0], 0) | Mux(was_read[1], early[1], 0))
            answer = answer | picked
        m.d.comb += bus.r_data.eq(answer)
        return words

    def _enter(self, m: Module, op: data.View, codes: list[Value], emitter: Emitter) -> None:
        """One register between the lanes and the emitter; codes of a bare end-of-record marker are cleared."""
        ahead = self.entry_delay(self.config) - SlotSequencer.delay - 1
        entry = Signal(entry_layout(self.config))
        for name in ("end", "t", "group"):
            m.d.sync += entry[name].eq(delayed(m, op[name], ahead, name))
        has_codes, valid = delayed(m, op.has_codes, ahead, "has_codes"), delayed(m, op.emit, ahead + 1, "emit")
        for index, code in enumerate(codes):
            m.d.sync += entry.codes[index].eq(Mux(has_codes, code, 0))
        m.d.comb += [emitter.entry_valid.eq(valid), emitter.entry.eq(entry)]

    def _done(self, m: Module, issuing: Value, emitting: Value) -> None:
        running = Signal()
        drain = Signal(range(self.drain + 1))
        m.d.comb += self.done.eq(~running)
        with m.If(self.start):
            m.d.sync += [running.eq(1), drain.eq(self.drain)]
        with m.Elif(issuing):
            m.d.sync += drain.eq(self.drain)
        with m.Elif(drain != 0):
            m.d.sync += drain.eq(drain - 1)
        with m.Elif(~emitting):
            m.d.sync += running.eq(0)


def _membrane_address(config: Config) -> data.StructLayout:
    """Offset in region MEMBRANE."""
    ways, pairs = config.neuron_ways, exact_log2(config.neuron_lanes // config.neuron_ways)
    return data.StructLayout({"way": range(ways), "pair": pairs, "group": OFFSET_BITS - pairs - exact_log2(ways)})


def _param_address(config: Config) -> data.StructLayout:
    """Offset in region PARAM."""
    ways, pairs = config.neuron_ways, exact_log2(config.neuron_lanes // config.neuron_ways)
    groups = OFFSET_BITS - pairs - exact_log2(ways) - 1
    return data.StructLayout({"way": range(ways), "pair": pairs, "word": range(PARAM_WORDS), "group": groups})


def _select(values: list[Signal], index: Value) -> Value:
    """``values[index]``."""
    return Array(values)[index] if len(values) > 1 else values[0]
