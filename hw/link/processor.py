"""Executes requests, each exactly once."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Array, Cat, Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..bus import HostBus
from ..config import Config
from ..contract import LinkOp, LinkStatus, Region, State
from ..signatures import byte_stream
from .signatures import COUNT_BITS, REQUEST_HEADER, HeldRequest, Response

__all__ = ["PATIENCE", "CommandProcessor"]

PATIENCE = 4095  # clocks to wait for the core: hundreds of times what it needs
BODY = 6  # where the payload of WRITE and INPUT begins
CONTROL_RESET = contract.pack(contract.CONTROL_FIELDS, {"reset": 1}, 1)[0]


@dataclasses.dataclass(frozen=True)
class _Request:
    """Registers of the request in hand."""

    header: data.View  # of what is executed; NAK in the place of opcode and number, if that answers no request
    offset: Signal  # of the word in hand; wraps within its region
    at: Signal  # byte of the frame being read
    word: Signal
    byte: Signal  # counts bytes of whatever is being moved
    status: Signal
    nak_due: Signal  # a damaged frame has not been answered yet
    nak: Signal  # the response in hand answers no held request
    expired: Signal  # the core has had its time

    @property
    def region(self) -> Value:
        return self.header.address[contract.OFFSET_BITS : contract.ADDRESS_BITS]

    def answer(self, m: Module, code: LinkStatus) -> None:
        """Go and respond with ``code``; in a state of the FSM."""
        m.d.sync += self.status.eq(code)
        m.next = "RESPOND"


class CommandProcessor(wiring.Component):
    """The device's side of ``docs/protocol.md``.

    Every wait for the core is bounded: after ``patience`` clocks a bus access or an input byte is withdrawn and the
    request answered with CORE_TIMEOUT (NOT_READY for input). Input may thus be withdrawn before it was accepted.

    Parameters
    ----------
    config : Config
        What HELLO says about this device.
    patience : int

    Members
    -------
    request : In(HeldRequest)
        From a :class:`FrameReceiver`.
    response : Out(Response)
        To a :class:`FrameTransmitter`.
    report_wanted, report_done : In(1), In(1)
        Of a :class:`Reporter`.
    report_grant : Out(1)
        Level: the transmitter is the reporter's until it is done.
    streaming : In(1)
        A stream is open.
    close : Out(1)
        Pulse: no stream is open from the next clock on.
    open, what, epoch : Out(1), Out(16), Out(32)
        Pulse, after ``close``: open a stream; its kind and epoch. ``epoch`` holds until the next ``open``.
    bus : Out(HostBus)
    input : Out(byte stream)
    state : In(4)
        Of the sequencer, :class:`contract.State`.
    input_bytes : In(32)
        Input bytes that the core has taken of this image.
    """

    def __init__(self, config: Config, patience: int = PATIENCE) -> None:
        self.config = config
        self.patience = patience
        super().__init__(
            {
                "request": In(HeldRequest()),
                "response": Out(Response()),
                "report_wanted": In(1),
                "report_done": In(1),
                "report_grant": Out(1),
                "streaming": In(1),
                "close": Out(1),
                "open": Out(1),
                "what": Out(16),
                "epoch": Out(32),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(contract.STATE_BITS),
                "input_bytes": In(32),
            }
        )

    def _identity(self) -> bytes:
        """What a HELLO response says after the nonce."""
        digest = self.config.digest
        words = (contract.MAGIC, contract.CONTRACT_VERSION, digest & 0xFFFFFFFF, digest >> 32)
        return b"".join(w.to_bytes(4, "little") for w in words) + contract.MAX_PAYLOAD.to_bytes(2, "little") + b"\x01"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        waiting, waited = Signal(), Signal(range(self.patience + 1))
        request = _Request(
            header=Signal(REQUEST_HEADER, name="header"),
            offset=Signal(contract.OFFSET_BITS, name="offset"),
            at=Signal(COUNT_BITS, name="at"),
            word=Signal(32, name="word"),
            byte=Signal(range(33), name="byte"),
            status=Signal(8, name="status"),
            nak_due=Signal(name="nak_due"),
            nak=Signal(name="nak"),
            expired=Signal(name="expired"),
        )
        m.d.comb += [
            self.request.addr.eq(request.at),
            self.bus.addr.eq(Cat(request.offset, request.region)),
            request.expired.eq(waiting & (waited == self.patience)),
        ]
        m.d.sync += waited.eq(0)
        with m.If(waiting):
            m.d.sync += waited.eq(waited + 1)

        with m.FSM() as fsm:
            self._receive(m, request)
            self._check(m, request)
            self._write(m, request)
            self._take_input(m, request)
            self._reset(m, request)
            self._open(m, request)
            self._respond(m, request)
            self._identify(m, request)
            self._read(m, request)
            waits = ("WRITE", "INPUT", "RESET", "READ", "READ-WAIT")
            m.d.comb += waiting.eq(Cat(fsm.ongoing(state) for state in waits).any())
        with m.If(self.request.bad):  # after the FSM's own, so that none is lost
            m.d.sync += request.nak_due.eq(1)
        return m

    def _receive(self, m: Module, request: _Request) -> None:
        """Wait for a request, and sort out what is not to be executed: repeats and strangers."""
        session, last = Signal(), Signal(8)
        aside = Signal()
        header, held = request.header, self.request.header
        m.d.comb += self.response.aside.eq(aside)

        with m.State("IDLE"):
            m.d.sync += [request.at.eq(BODY), request.byte.eq(0)]
            with m.If(~self.response.busy):
                with m.If(request.nak_due):
                    m.d.sync += [request.nak_due.eq(0), request.nak.eq(1), aside.eq(1)]
                    m.d.sync += [header.opcode.eq(contract.NAK), header.sequence.eq(0)]
                    request.answer(m, LinkStatus.BAD_FRAME)
                with m.Elif(self.request.valid):
                    m.d.sync += [header.eq(held), request.offset.eq(held.address)]
                    m.next = "DECIDE"
                with m.Elif(self.report_wanted):
                    m.next = "REPORT"
        with m.State("REPORT"):
            m.d.comb += self.report_grant.eq(1)
            with m.If(self.report_done):
                m.next = "IDLE"
        with m.State("DECIDE"):
            m.d.sync += [request.nak.eq(0), aside.eq(0), request.byte.eq(0)]
            with m.If((header.opcode == LinkOp.HELLO) & (self.request.length == BODY)):
                m.d.sync += [session.eq(1), last.eq(header.sequence)]
                m.d.comb += self.close.eq(1)
                request.answer(m, LinkStatus.OK)
            with m.Elif(~session | ((header.sequence != last) & (header.sequence != (last + 1)[:8]))):
                m.d.sync += aside.eq(1)
                request.answer(m, LinkStatus.BAD_SEQUENCE)
            with m.Elif(header.sequence == last):
                m.d.comb += [self.response.repeat.eq(1), self.request.release.eq(1)]
                m.next = "IDLE"
            with m.Else():
                m.d.sync += last.eq(header.sequence)
                m.next = "EXECUTE"

    def _check(self, m: Module, request: _Request) -> None:
        """Refuse what has the wrong length, place or time; begin the rest."""
        header, length = request.header, self.request.length
        payload = length - BODY
        running = (self.state == State.CHECK) | (self.state == State.INPUT) | (self.state == State.RUN)
        guarded = (request.region != Region.CSR) & (request.region != Region.COUNTER)
        read_length = (length == 8) & (header.words != 0) & (header.words <= contract.MAX_PAYLOAD // 4)
        write_length = (length > BODY) & (payload[0:2] == 0)
        busy = {LinkOp.READ: (running | self.streaming) & guarded, LinkOp.WRITE: running & guarded | self.streaming}
        begin = {LinkOp.READ: "RESPOND", LinkOp.WRITE: "WRITE-FETCH"}

        with m.State("EXECUTE"), m.Switch(header.opcode):
            for opcode, well_formed in ((LinkOp.READ, read_length), (LinkOp.WRITE, write_length)):
                with m.Case(opcode):
                    with m.If(~well_formed):
                        request.answer(m, LinkStatus.BAD_LENGTH)
                    with m.Elif(header.address[contract.ADDRESS_BITS :] != 0):
                        request.answer(m, LinkStatus.BAD_OFFSET)
                    with m.Elif(busy[opcode]):
                        request.answer(m, LinkStatus.BUSY)
                    with m.Else():
                        m.d.sync += request.status.eq(LinkStatus.OK)
                        m.next = begin[opcode]
            with m.Case(LinkOp.INPUT):
                with m.If(length <= BODY):
                    request.answer(m, LinkStatus.BAD_LENGTH)
                with m.Elif((self.state != State.INPUT) | self.streaming):
                    request.answer(m, LinkStatus.NOT_READY)
                with m.Elif(header.address != self.input_bytes):
                    request.answer(m, LinkStatus.BAD_OFFSET)
                with m.Else():
                    m.next = "INPUT-FETCH"
            with m.Case(LinkOp.RESET):
                m.next = "RESET"
                with m.If(length != 2):
                    request.answer(m, LinkStatus.BAD_LENGTH)
                with m.Else():
                    m.d.comb += self.close.eq(1)
            with m.Case(LinkOp.OPEN):
                with m.If(length != 8):
                    request.answer(m, LinkStatus.BAD_LENGTH)
                with m.Elif(running & (header.words != contract.STREAM_CLOSE)):
                    request.answer(m, LinkStatus.BUSY)
                with m.Else():
                    m.d.comb += self.close.eq(1)
                    m.next = "OPEN"
            with m.Case(LinkOp.HELLO):
                request.answer(m, LinkStatus.BAD_LENGTH)
            with m.Default():
                request.answer(m, LinkStatus.BAD_OPCODE)

    def _write(self, m: Module, request: _Request) -> None:
        at, byte, word = request.at, request.byte, request.word
        with m.State("WRITE-FETCH"):
            m.d.sync += [byte.eq(byte + 1), word.eq(Cat(word[8:], self.request.data))]
            with m.If(byte == 4):
                m.d.sync += byte.eq(0)
                m.next = "WRITE"
            with m.Else():
                m.d.sync += at.eq(at + 1)
        with m.State("WRITE"):
            m.d.comb += [self.bus.valid.eq(1), self.bus.write.eq(1), self.bus.w_data.eq(word)]
            with m.If(self.bus.ready):
                m.d.sync += request.offset.eq(request.offset + 1)
                m.next = "WRITE-FETCH"
                with m.If(at == self.request.length):
                    request.answer(m, LinkStatus.OK)
            with m.Elif(request.expired):
                request.answer(m, LinkStatus.CORE_TIMEOUT)

    def _take_input(self, m: Module, request: _Request) -> None:
        with m.State("INPUT-FETCH"):
            m.next = "INPUT"
        with m.State("INPUT"):
            m.d.comb += [self.input.valid.eq(1), self.input.payload.eq(self.request.data)]
            with m.If(self.input.ready):
                m.d.sync += request.at.eq(request.at + 1)
                m.next = "INPUT-FETCH"
                with m.If(request.at + 1 == self.request.length):
                    request.answer(m, LinkStatus.OK)
            with m.Elif(request.expired | (self.state != State.INPUT)):
                request.answer(m, LinkStatus.NOT_READY)

    def _reset(self, m: Module, request: _Request) -> None:
        with m.State("RESET"):
            m.d.comb += [
                self.bus.valid.eq(1),
                self.bus.write.eq(1),
                self.bus.addr.eq(contract.address(Region.CSR, contract.Csr.CONTROL)),
                self.bus.w_data.eq(CONTROL_RESET),
            ]
            with m.If(self.bus.ready):
                request.answer(m, LinkStatus.OK)
            with m.Elif(request.expired):
                request.answer(m, LinkStatus.CORE_TIMEOUT)

    def _open(self, m: Module, request: _Request) -> None:
        epoch = Signal(32)
        m.d.comb += [self.what.eq(request.header.words), self.epoch.eq(epoch)]
        with m.State("OPEN"):
            m.d.comb += self.open.eq(request.header.words != contract.STREAM_CLOSE)
            m.d.sync += epoch.eq(request.header.address)
            request.answer(m, LinkStatus.OK)

    def _send(self, m: Module, value: Value) -> Value:
        """Drive one response byte; true in the cycle in which it is taken."""
        m.d.comb += [self.response.payload.valid.eq(1), self.response.payload.payload.eq(value)]
        return self.response.payload.ready

    def _respond(self, m: Module, request: _Request) -> None:
        """Opcode, sequence number, status; then the body, of the requests that have one; then the end."""
        byte = request.byte
        header = request.header
        head = Array([header.opcode | contract.RESPONSE_BIT, header.sequence, request.status])
        with m.State("RESPOND"):
            m.d.comb += self.response.start.eq(1)
            m.d.sync += byte.eq(0)
            m.next = "HEAD"
        with m.State("HEAD"), m.If(self._send(m, head[byte[0:2]])):
            m.d.sync += byte.eq(byte + 1)
            with m.If(byte == len(head) - 1):
                m.d.sync += byte.eq(0)
                m.next = "FINISH"
                with m.If(request.status == LinkStatus.OK), m.Switch(header.opcode):
                    with m.Case(LinkOp.HELLO):
                        m.next = "HELLO"
                    with m.Case(LinkOp.READ):
                        m.next = "READ"
        with m.State("FINISH"):
            m.d.comb += [self.response.finish.eq(1), self.request.release.eq(~request.nak)]
            m.next = "IDLE"

    def _identify(self, m: Module, request: _Request) -> None:
        nonce = [request.header.address.word_select(i, 8) for i in range(4)]
        body = Array([*nonce, *(Const(byte, 8) for byte in self._identity())])
        with m.State("HELLO"), m.If(self._send(m, body[request.byte])):
            m.d.sync += request.byte.eq(request.byte + 1)
            with m.If(request.byte == len(body) - 1):
                m.next = "FINISH"

    def _read(self, m: Module, request: _Request) -> None:
        """Word by word into the response; a core that does not answer makes it begin anew, with its own status."""
        byte, word, words = request.byte, request.word, request.header.words
        with m.State("READ"):
            m.d.comb += self.bus.valid.eq(1)
            with m.If(self.bus.ready):
                m.next = "READ-WAIT"
            with m.Elif(request.expired):
                request.answer(m, LinkStatus.CORE_TIMEOUT)
        with m.State("READ-WAIT"):
            m.d.sync += [word.eq(self.bus.r_data), byte.eq(0)]
            with m.If(self.bus.r_valid):
                m.next = "READ-SEND"
            with m.Elif(request.expired):
                request.answer(m, LinkStatus.CORE_TIMEOUT)
        with m.State("READ-SEND"), m.If(self._send(m, word[0:8])):
            m.d.sync += [word.eq(word >> 8), byte.eq(byte + 1)]
            with m.If(byte == 3):
                m.d.sync += [request.offset.eq(request.offset + 1), words.eq(words - 1)]
                m.next = "READ"
                with m.If(words == 1):
                    m.next = "FINISH"
