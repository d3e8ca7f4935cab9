"""What becomes of a stream's bytes: images for the core, one after the other, or words for its memories."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..bus import HostBus
from ..contract import RECORD_HEAD, Csr, LinkStatus, Region, State
from ..signatures import byte_stream

__all__ = ["StreamEngine"]

CONTROL_START = contract.pack(contract.CONTROL_FIELDS, {"start": 1}, 1)[0]


class _Item(enum.IntEnum):
    """Words of a result before its logits."""

    NUMBER = 0
    CYCLES = 1
    WAITED = 2


class StreamEngine(wiring.Component):
    """The device's side of a stream, see ``docs/protocol.md``.

    Parameters
    ----------
    patience : int
        Clocks that a bus access waits for the core.

    Members
    -------
    open, what : In(1), In(16)
        Pulse: begin a stream of this kind, STREAM_WORDS or a number of logits. A reset ends it.
    active : Out(1)
        A stream is open.
    status : Out(8)
        OK, or why the stream has stopped: FAULT, CORE_TIMEOUT.
    bytes : In(byte stream)
        The stream's bytes.
    results : Out(stream of 32 bits)
        Records of images.
    bus : Out(HostBus)
    input : Out(byte stream)
        To the core.
    state : In(4)
        Of the sequencer.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        super().__init__(
            {
                "open": In(1),
                "what": In(16),
                "active": Out(1),
                "status": Out(8),
                "bytes": In(byte_stream()),
                "results": Out(stream.Signature(32)),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(contract.STATE_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._what = Signal(16)
        self._word = Signal(32)
        self._expired, waiting = Signal(), Signal()
        waited = Signal(range(self.patience + 1))
        m.d.comb += self._expired.eq(waiting & (waited == self.patience))
        m.d.sync += waited.eq(Mux(waiting, waited + 1, 0))

        with m.FSM() as fsm:
            with m.State("CLOSED"), m.If(self.open):
                m.d.sync += self._what.eq(self.what)
                m.next = "READY"
                with m.If(self.what == contract.STREAM_WORDS):
                    m.next = "WORD"
            self._images(m)
            self._unload(m)
            self._words(m)
            with m.State("STOPPED"):
                pass  # until it is closed
            patient = ("START", "BEGIN", "READ", "READ-WAIT", "WRITE")
            m.d.comb += [
                waiting.eq(Cat(fsm.ongoing(state) for state in patient).any()),
                self.active.eq(~fsm.ongoing("CLOSED")),
            ]
        return m

    def _stop(self, m: Module, status: LinkStatus) -> None:
        """In a state of the FSM."""
        m.d.sync += self.status.eq(status)
        m.next = "STOPPED"

    def _images(self, m: Module) -> None:
        """Start the core when there is a byte for it, and feed it until it is done."""
        begun = Cat(self.state == one for one in (State.CHECK, State.INPUT, State.RUN)).any()
        with m.State("READY"), m.If(self.bytes.valid):
            m.next = "START"
        with m.State("START"):
            m.d.comb += [
                self.bus.valid.eq(1),
                self.bus.write.eq(1),
                self.bus.addr.eq(contract.address(Region.CSR, Csr.CONTROL)),
                self.bus.w_data.eq(CONTROL_START),
            ]
            with m.If(self.bus.ready):
                m.next = "BEGIN"
            with m.Elif(self._expired):
                self._stop(m, LinkStatus.CORE_TIMEOUT)
        with m.State("BEGIN"):  # until then the state is that of the image before
            with m.If(begun):
                m.next = "COMPUTE"
            with m.Elif(self._expired):
                self._stop(m, LinkStatus.CORE_TIMEOUT)
        with m.State("COMPUTE"):
            with m.If(self.state == State.INPUT):
                m.d.comb += [self.input.valid.eq(self.bytes.valid), self.bytes.ready.eq(self.input.ready)]
            with m.If(self.state == State.DONE):
                m.next = "ITEM"
            with m.Elif(~begun):
                self._stop(m, LinkStatus.FAULT)
        m.d.comb += self.input.payload.eq(self.bytes.payload)

    def _unload(self, m: Module) -> None:
        """The record of an image: its number, cycles, clocks waited, logits."""
        item, number, idle = Signal(17), Signal(32), Signal(32)
        word = self._word
        address = Signal(contract.ADDRESS_BITS)
        m.d.comb += address.eq(contract.address(Region.MEMBRANE, 0) + item - RECORD_HEAD)
        m.d.sync += idle.eq(idle + (self.state != State.RUN))

        with m.State("ITEM"):
            m.next = "READ"
            with m.If(item == _Item.NUMBER):
                m.d.sync += word.eq(number)
                m.next = "PUSH"
            with m.If(item == _Item.WAITED):
                m.d.sync += [word.eq(idle), idle.eq(0)]
                m.next = "PUSH"
        with m.State("READ"):
            with m.If(item == _Item.CYCLES):
                m.d.comb += self.bus.addr.eq(contract.address(Region.CSR, Csr.CYCLES))
            with m.Else():
                m.d.comb += self.bus.addr.eq(address)
            m.d.comb += self.bus.valid.eq(1)
            with m.If(self.bus.ready):
                m.next = "READ-WAIT"
            with m.Elif(self._expired):
                self._stop(m, LinkStatus.CORE_TIMEOUT)
        with m.State("READ-WAIT"):
            m.d.sync += word.eq(self.bus.r_data)
            with m.If(self.bus.r_valid):
                m.next = "PUSH"
            with m.Elif(self._expired):
                self._stop(m, LinkStatus.CORE_TIMEOUT)
        with m.State("PUSH"):
            m.d.comb += [self.results.valid.eq(1), self.results.payload.eq(word)]
            with m.If(self.results.ready):
                m.d.sync += item.eq(item + 1)
                m.next = "ITEM"
                with m.If(item == self._what + (RECORD_HEAD - 1)):
                    m.d.sync += [item.eq(0), number.eq(number + 1)]
                    m.next = "READY"

    def _words(self, m: Module) -> None:
        """Records of an address, a number of words, and the words."""
        word, byte = self._word, Signal(2)
        place, left, counted = Signal(contract.ADDRESS_BITS), Signal(32), Signal()
        complete = Signal(32)
        m.d.comb += complete.eq(Cat(word[8:], self.bytes.payload))
        with m.State("WORD"):
            m.d.comb += self.bytes.ready.eq(1)
            with m.If(self.bytes.valid):
                m.d.sync += [word.eq(complete), byte.eq(byte + 1)]
                with m.If(byte == 3):
                    with m.If(left != 0):
                        m.next = "WRITE"
                    with m.Elif(counted):
                        m.d.sync += [left.eq(complete), counted.eq(0)]
                    with m.Else():
                        m.d.sync += [place.eq(complete), counted.eq(1)]
        with m.State("WRITE"):
            m.d.comb += [
                self.bus.valid.eq(1),
                self.bus.write.eq(1),
                self.bus.addr.eq(place),
                self.bus.w_data.eq(word),
            ]
            with m.If(self.bus.ready):
                m.d.sync += [place.eq(place + 1), left.eq(left - 1)]
                m.next = "WORD"
            with m.Elif(self._expired):
                self._stop(m, LinkStatus.CORE_TIMEOUT)
