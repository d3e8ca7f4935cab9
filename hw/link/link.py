"""The link as one block: bytes on one side, host bus and input bytes on the other."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import contract
from ..bus import HostBus
from ..config import Config
from ..signatures import byte_stream
from .arbiter import BusArbiter
from .deframer import Deframer
from .engine import StreamEngine
from .handover import Handover
from .processor import PATIENCE, CommandProcessor
from .receiver import MIN_RING, FrameReceiver
from .reporter import Reporter
from .results import ResultStore
from .signatures import received_bytes
from .transmitter import FrameTransmitter

__all__ = ["Link"]

_CREDIT_SHARE = 8  # of the ring: so much new credit is told at once


class Link(wiring.Component):
    """Frames, requests and streams; see ``docs/protocol.md``. A PHY makes pins of its bytes.

    Parameters
    ----------
    config : Config
        Named by HELLO.
    ring : int
        Bytes of a stream that the device takes ahead of the core, a power of two.
    patience : int
        Clocks that a request waits for the core before it is answered with an error.

    Members
    -------
    received : In(received bytes)
        Taken in every clock.
    bytes : Out(byte stream)
        To be sent.
    bus : Out(HostBus)
    input : Out(byte stream)
        Codes of one image; may be withdrawn, see :class:`CommandProcessor`.
    state : In(4)
        Of the sequencer.
    input_bytes : In(32)
        Input bytes that the core has taken of this image.
    """

    def __init__(self, config: Config, ring: int = MIN_RING, patience: int = PATIENCE) -> None:
        self.config = config
        self.ring = ring
        self.patience = patience
        super().__init__(
            {
                "received": In(received_bytes()),
                "bytes": Out(byte_stream()),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(contract.STATE_BITS),
                "input_bytes": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.deframer = deframer = Deframer()
        m.submodules.receiver = receiver = FrameReceiver(self.ring)
        m.submodules.transmitter = transmitter = FrameTransmitter()
        m.submodules.handover = handover = Handover()
        m.submodules.processor = processor = CommandProcessor(self.config, self.patience)
        m.submodules.arbiter = arbiter = BusArbiter()
        engine = StreamEngine(self.patience)
        m.submodules.engine = ResetInserter(processor.close)(engine)
        m.submodules.results = results = ResultStore()
        m.submodules.reporter = reporter = Reporter(self.ring // _CREDIT_SHARE)

        connect(m, flipped(self.received), deframer.bytes)
        connect(m, deframer.frame, receiver.frame)
        connect(m, receiver.request, processor.request)
        connect(m, receiver.bytes, engine.bytes)
        connect(m, receiver.stream, reporter.stream)
        connect(m, engine.results, results.words)
        connect(m, results.delivered, reporter.words)
        connect(m, engine.bus, arbiter.first)
        connect(m, processor.bus, arbiter.second)
        connect(m, arbiter.bus, flipped(self.bus))
        connect(m, transmitter.bytes, flipped(self.bytes))
        state = Signal.like(self.state)
        m.d.sync += state.eq(self.state)  # a long way from the sequencer
        m.d.comb += [
            processor.state.eq(state),
            processor.input_bytes.eq(self.input_bytes),
            processor.streaming.eq(engine.active),
            engine.state.eq(state),
            engine.open.eq(processor.open),
            engine.what.eq(processor.what),
        ]
        for block in (receiver, results, reporter):
            m.d.comb += block.active.eq(engine.active)
        for block in (receiver, reporter):
            m.d.comb += block.epoch.eq(processor.epoch)
        self._report(m, receiver, results, reporter)
        m.d.comb += [
            reporter.status.eq(engine.status),
            reporter.grant.eq(processor.report_grant),
            processor.report_wanted.eq(reporter.wanted),
            processor.report_done.eq(reporter.done),
        ]
        self._share(m, processor.report_grant, (reporter.response, processor.response), handover.maker)
        connect(m, handover.sender, transmitter.response)
        self._feed(m, engine, processor)
        return m

    def _report(self, m: Module, receiver: FrameReceiver, results: ResultStore, reporter: Reporter) -> None:
        m.d.comb += [
            results.acknowledge.eq(receiver.stream.acknowledge),
            results.taken.eq(receiver.stream.taken),
            results.rewind.eq(receiver.stream.question),
            results.hold.eq(reporter.grant),
            reporter.first.eq(results.first),
            reporter.ready.eq(results.ready),
        ]

    def _share(self, m: Module, choose: Value, makers: tuple[Any, Any], transmitter: Any) -> None:
        """One transmitter for two makers of frames."""
        for chosen, maker in zip((choose, ~choose), makers, strict=True):
            m.d.comb += maker.busy.eq(transmitter.busy)
            with m.If(chosen):
                m.d.comb += [
                    transmitter.start.eq(maker.start),
                    transmitter.aside.eq(maker.aside),
                    transmitter.finish.eq(maker.finish),
                    transmitter.repeat.eq(maker.repeat),
                    transmitter.payload.valid.eq(maker.payload.valid),
                    transmitter.payload.payload.eq(maker.payload.payload),
                    maker.payload.ready.eq(transmitter.payload.ready),
                ]

    def _feed(self, m: Module, engine: StreamEngine, processor: CommandProcessor) -> None:
        """The core's input: a stream's while one is open, otherwise that of INPUT requests."""
        for chosen, source in ((engine.active, engine.input), (~engine.active, processor.input)):
            with m.If(chosen):
                m.d.comb += [
                    self.input.valid.eq(source.valid),
                    self.input.payload.eq(source.payload),
                    source.ready.eq(self.input.ready),
                ]
