"""Executes requests, each exactly once."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Array, Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..bus import HostBus
from ..config import Config
from ..contract import LinkOp, LinkStatus, Region, State
from ..signatures import byte_stream
from .receiver import BUFFER_BITS

__all__ = ["PATIENCE", "CommandProcessor"]

PATIENCE = 4095  # clocks to wait for the core: hundreds of times what it needs
HEADER_BYTES = 8  # opcode, sequence number, address, words of a READ
BODY = 6  # where the payload of WRITE and INPUT begins
CONTROL_RESET = contract.pack(contract.CONTROL_FIELDS, {"reset": 1}, 1)[0]


@dataclasses.dataclass(frozen=True)
class _Request:
    """Registers of the request in hand."""

    header: Signal
    offset: Signal  # of the word in hand; wraps within its region
    at: Signal  # byte of the frame being read
    word: Signal
    byte: Signal  # counts bytes of whatever is being moved
    status: Signal
    nak_due: Signal  # a damaged frame has not been answered yet
    nak: Signal  # the response in hand answers no held frame
    expired: Signal  # the core has had its time

    @property
    def opcode(self) -> Value:
        return self.header[0:8]

    @property
    def sequence(self) -> Value:
        return self.header[8:16]

    @property
    def address(self) -> Value:
        """Also the nonce of HELLO and the offset of INPUT."""
        return self.header[16:48]

    @property
    def region(self) -> Value:
        return self.address[contract.OFFSET_BITS : contract.ADDRESS_BITS]

    @property
    def words(self) -> Value:
        return self.header[48:64]

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
    rx_valid, rx_length, rx_addr, rx_data, rx_release, rx_bad
        Towards a :class:`FrameReceiver`.
    tx_start, tx_aside, tx_payload, tx_finish, tx_repeat, tx_busy
        Towards a :class:`FrameTransmitter`.
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
                "rx_valid": In(1),
                "rx_length": In(BUFFER_BITS),
                "rx_addr": Out(BUFFER_BITS),
                "rx_data": In(8),
                "rx_release": Out(1),
                "rx_bad": In(1),
                "tx_start": Out(1),
                "tx_aside": Out(1),
                "tx_payload": Out(byte_stream()),
                "tx_finish": Out(1),
                "tx_repeat": Out(1),
                "tx_busy": In(1),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(4),
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
            header=Signal(8 * HEADER_BYTES, name="header"),
            offset=Signal(contract.OFFSET_BITS, name="offset"),
            at=Signal(BUFFER_BITS, name="at"),
            word=Signal(32, name="word"),
            byte=Signal(range(33), name="byte"),
            status=Signal(8, name="status"),
            nak_due=Signal(name="nak_due"),
            nak=Signal(name="nak"),
            expired=Signal(name="expired"),
        )
        m.d.comb += [
            self.rx_addr.eq(request.at),
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
            self._respond(m, request)
            self._identify(m, request)
            self._read(m, request)
            waits = ("WRITE", "INPUT", "RESET", "READ", "READ-WAIT")
            m.d.comb += waiting.eq(Cat(fsm.ongoing(state) for state in waits).any())
        with m.If(self.rx_bad):  # after the FSM's own, so that none is lost
            m.d.sync += request.nak_due.eq(1)
        return m

    def _receive(self, m: Module, request: _Request) -> None:
        """Wait for a frame, read its header, and sort out what is not to be executed: repeats and strangers."""
        session, last = Signal(), Signal(8)
        aside = Signal()
        m.d.comb += self.tx_aside.eq(aside)

        with m.State("IDLE"):
            m.d.sync += [request.at.eq(0), request.byte.eq(0)]
            with m.If(~self.tx_busy):
                with m.If(request.nak_due):
                    m.d.sync += [request.nak_due.eq(0), request.nak.eq(1), aside.eq(1)]
                    m.d.sync += request.header[0:16].eq(contract.NAK)
                    request.answer(m, LinkStatus.BAD_FRAME)
                with m.Elif(self.rx_valid):
                    m.next = "HEADER"
        with m.State("HEADER"):  # byte k arrives one cycle after its address
            m.d.sync += [
                request.at.eq(request.at + 1),
                request.byte.eq(request.byte + 1),
                request.header.eq(Cat(request.header[8:], self.rx_data)),
            ]
            with m.If(request.byte == HEADER_BYTES):
                m.d.sync += request.at.eq(BODY)
                m.next = "DECIDE"
        with m.State("DECIDE"):
            m.d.sync += [request.nak.eq(0), aside.eq(0), request.offset.eq(request.address), request.byte.eq(0)]
            with m.If((request.opcode == LinkOp.HELLO) & (self.rx_length == BODY)):
                m.d.sync += [session.eq(1), last.eq(request.sequence)]
                request.answer(m, LinkStatus.OK)
            with m.Elif(~session | ((request.sequence != last) & (request.sequence != (last + 1)[:8]))):
                m.d.sync += aside.eq(1)
                request.answer(m, LinkStatus.BAD_SEQUENCE)
            with m.Elif(request.sequence == last):
                m.d.comb += [self.tx_repeat.eq(1), self.rx_release.eq(1)]
                m.next = "IDLE"
            with m.Else():
                m.d.sync += last.eq(request.sequence)
                m.next = "EXECUTE"

    def _check(self, m: Module, request: _Request) -> None:
        """Refuse what has the wrong length, place or time; begin the rest."""
        payload = self.rx_length - BODY
        running = (self.state == State.CHECK) | (self.state == State.INPUT) | (self.state == State.RUN)
        guarded = (request.region != Region.CSR) & (request.region != Region.COUNTER)
        read_length = (self.rx_length == 8) & (request.words != 0) & (request.words <= contract.MAX_PAYLOAD // 4)
        write_length = (self.rx_length > BODY) & (payload[0:2] == 0)
        begin = {LinkOp.READ: "RESPOND", LinkOp.WRITE: "WRITE-FETCH"}

        with m.State("EXECUTE"), m.Switch(request.opcode):
            for opcode, length in ((LinkOp.READ, read_length), (LinkOp.WRITE, write_length)):
                with m.Case(opcode):
                    with m.If(~length):
                        request.answer(m, LinkStatus.BAD_LENGTH)
                    with m.Elif(request.address[contract.ADDRESS_BITS :] != 0):
                        request.answer(m, LinkStatus.BAD_OFFSET)
                    with m.Elif(running & guarded):
                        request.answer(m, LinkStatus.BUSY)
                    with m.Else():
                        m.d.sync += request.status.eq(LinkStatus.OK)
                        m.next = begin[opcode]
            with m.Case(LinkOp.INPUT):
                with m.If(self.rx_length <= BODY):
                    request.answer(m, LinkStatus.BAD_LENGTH)
                with m.Elif(self.state != State.INPUT):
                    request.answer(m, LinkStatus.NOT_READY)
                with m.Elif(request.address != self.input_bytes):
                    request.answer(m, LinkStatus.BAD_OFFSET)
                with m.Else():
                    m.next = "INPUT-FETCH"
            with m.Case(LinkOp.RESET):
                m.next = "RESET"
                with m.If(self.rx_length != 2):
                    request.answer(m, LinkStatus.BAD_LENGTH)
            with m.Case(LinkOp.HELLO):
                request.answer(m, LinkStatus.BAD_LENGTH)
            with m.Default():
                request.answer(m, LinkStatus.BAD_OPCODE)

    def _write(self, m: Module, request: _Request) -> None:
        at, byte, word = request.at, request.byte, request.word
        with m.State("WRITE-FETCH"):
            m.d.sync += [byte.eq(byte + 1), word.eq(Cat(word[8:], self.rx_data))]
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
                with m.If(at == self.rx_length):
                    request.answer(m, LinkStatus.OK)
            with m.Elif(request.expired):
                request.answer(m, LinkStatus.CORE_TIMEOUT)

    def _take_input(self, m: Module, request: _Request) -> None:
        with m.State("INPUT-FETCH"):
            m.next = "INPUT"
        with m.State("INPUT"):
            m.d.comb += [self.input.valid.eq(1), self.input.payload.eq(self.rx_data)]
            with m.If(self.input.ready):
                m.d.sync += request.at.eq(request.at + 1)
                m.next = "INPUT-FETCH"
                with m.If(request.at + 1 == self.rx_length):
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

    def _send(self, m: Module, value: Value) -> Value:
        """Drive one response byte; true in the cycle in which it is taken."""
        m.d.comb += [self.tx_payload.valid.eq(1), self.tx_payload.payload.eq(value)]
        return self.tx_payload.ready

    def _respond(self, m: Module, request: _Request) -> None:
        """Opcode, sequence number, status; then the body, of the requests that have one; then the end."""
        byte = request.byte
        head = Array([request.opcode | contract.RESPONSE_BIT, request.sequence, request.status])
        with m.State("RESPOND"):
            m.d.comb += self.tx_start.eq(1)
            m.d.sync += byte.eq(0)
            m.next = "HEAD"
        with m.State("HEAD"), m.If(self._send(m, head[byte[0:2]])):
            m.d.sync += byte.eq(byte + 1)
            with m.If(byte == len(head) - 1):
                m.d.sync += byte.eq(0)
                m.next = "FINISH"
                with m.If(request.status == LinkStatus.OK), m.Switch(request.opcode):
                    with m.Case(LinkOp.HELLO):
                        m.next = "HELLO"
                    with m.Case(LinkOp.READ):
                        m.next = "READ"
        with m.State("FINISH"):
            m.d.comb += [self.tx_finish.eq(1), self.rx_release.eq(~request.nak)]
            m.next = "IDLE"

    def _identify(self, m: Module, request: _Request) -> None:
        nonce = [request.address.word_select(i, 8) for i in range(4)]
        body = Array([*nonce, *(Const(byte, 8) for byte in self._identity())])
        with m.State("HELLO"), m.If(self._send(m, body[request.byte])):
            m.d.sync += request.byte.eq(request.byte + 1)
            with m.If(request.byte == len(body) - 1):
                m.next = "FINISH"

    def _read(self, m: Module, request: _Request) -> None:
        """Word by word into the response; a core that does not answer makes it begin anew, with its own status."""
        byte, word, words = request.byte, request.word, request.words
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
