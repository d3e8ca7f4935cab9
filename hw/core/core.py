"""The overlay without its link: bus decode, sequencer and data path."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import contract
from ..bus import HostBus
from ..carry import Platform
from ..config import Config
from ..copies import copied
from ..gather import Gather
from ..lanes import LaneArray
from ..neuron import InputEncoder, NeuronUnit
from ..signatures import byte_stream
from .bus import BusDecoder
from .resets import distribute
from .sequencer import Sequencer

__all__ = ["Core"]


class Core(wiring.Component):
    """Runs programs (``docs/architecture.md``).

    Parameters
    ----------
    config : Config
    platform : "generic" or "ecp5"
        Technology of the lanes' adders (:class:`~reverb_fpga.hw.lanes.LaneArray`) and of the data path's reset.

    Members
    -------
    reset : In(1)
        Restarts the core as the reset of its clock domain does; for boards whose domain has none. It reaches the
        sequencer and the bus, and these reset the data path.
    bus : In(HostBus())
        A request is taken within 40 cycles, a read answered ten cycles later at most, in every state.
    input : In(byte stream)
        Input codes; taken in state INPUT only.
    state : Out(4)
        :class:`contract.State`.
    input_bytes : Out(32)
        Input bytes taken since the image began.
    """

    starting = 1
    """Cycles from the sequencer's ``start`` to that of the gather and the neuron unit."""

    def __init__(self, config: Config, platform: Platform = "generic") -> None:
        self.config = config
        self.platform: Platform = platform
        super().__init__(
            {
                "reset": In(1),
                "bus": In(HostBus()),
                "input": In(byte_stream()),
                "state": Out(contract.STATE_BITS),
                "input_bytes": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        decoder, sequencer = BusDecoder(), Sequencer(config)
        restart = ResetInserter(self.reset)
        m.submodules.decoder = restart(decoder)
        m.submodules.sequencer = restart(sequencer)
        gather, neuron, encoder = Gather(config), NeuronUnit(config, self.platform), InputEncoder(config)
        reset = ResetInserter(distribute(m, "datapath_reset", sequencer.datapath_reset, self.platform))
        m.submodules.gather = reset(gather)
        m.submodules.neuron = reset(neuron)
        m.submodules.encoder = reset(encoder)
        # Not reset: its pipeline is empty before the reset of the others ends.
        m.submodules.lanes = lanes = LaneArray(config, self.platform)

        connect(m, flipped(self.bus), decoder.host)
        connect(m, sequencer.check, decoder.check)
        for leaf, target in (
            (decoder.csr, sequencer.csr),
            (decoder.desc, sequencer.desc),
            (decoder.counter, sequencer.counter),
            (decoder.slot, neuron.slot_bus),
            (decoder.param, neuron.param_bus),
            (decoder.membrane, neuron.membrane_bus),
            (decoder.weight, gather.weight_bus),
            (decoder.act, gather.act_bus),
            (decoder.count, gather.count_bus),
        ):
            connect(m, leaf, target)
        connect(m, flipped(self.input), encoder.bytes)
        connect(m, gather.beat, lanes.beat)
        connect(m, lanes.captured, neuron.captured)

        m.d.comb += [
            decoder.locked.eq(sequencer.locked),
            decoder.hold.eq(sequencer.hold),
            sequencer.touched.eq(decoder.touched),
            self.state.eq(sequencer.state),
            self.input_bytes.eq(encoder.n_bytes),
            sequencer.input_bytes.eq(encoder.n_bytes),
            encoder.program.eq(sequencer.descriptor),
            encoder.start.eq(sequencer.input_start),
            sequencer.input_done.eq(encoder.done),
            # The descriptor is stable two cycles before a start, and these need it as long before theirs.
            gather.layer.eq(copied(m, sequencer.descriptor, "gather_layer")),
            neuron.layer.eq(copied(m, sequencer.descriptor, "neuron_layer")),
            gather.start.eq(copied(m, sequencer.start, "gather_start")),
            neuron.start.eq(copied(m, sequencer.start, "neuron_start")),
            sequencer.done.eq(gather.done & neuron.done),
            gather.release.eq(neuron.captured.release),
        ]
        self._writes(m, ~encoder.done, encoder, neuron, gather)
        self._activity(m, sequencer, gather, neuron)
        return m

    def _writes(self, m: Module, from_input: Value, encoder: InputEncoder, neuron: NeuronUnit, gather: Gather) -> None:
        """The encoder writes while it runs, else the neuron unit; they never run at the same time."""
        chosen = Signal()
        m.d.comb += chosen.eq(from_input)
        for name in ("act_write", "count_write"):
            target, one, other = (getattr(block, name) for block in (gather, encoder, neuron))
            for member in target.signature.members:
                values = [Value.cast(getattr(port, member)) for port in (target, one, other)]
                m.d.comb += values[0].eq(Mux(chosen, values[1], values[2]))

    def _activity(self, m: Module, sequencer: Sequencer, gather: Gather, neuron: NeuronUnit) -> None:
        activity = sequencer.activity
        m.d.comb += [
            activity.beats.eq(gather.beat.valid),
            activity.events.eq(gather.n_events),
            activity.passes.eq(gather.pass_end),
            activity.stall_table.eq(gather.stall_table),
            activity.stall_drain.eq(gather.stall_drain),
            activity.stall_steal.eq(gather.stall_steal),
            activity.stall_emit.eq(neuron.stall_emit),
        ]
