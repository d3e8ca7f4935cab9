"""Executes requests, each exactly once."""

from __future__ import annotations

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
        header = Signal(8 * HEADER_BYTES)
        opcode, sequence = header[0:8], header[8:16]
        address = header[16:48]
        words = header[48:64]
        offset = Signal(contract.OFFSET_BITS)  # of the word in hand; wraps within its region
        region = header[16 + contract.OFFSET_BITS : 16 + contract.ADDRESS_BITS]
        at = Signal(BUFFER_BITS)
        word = Signal(32)
        byte = Signal(range(max(HEADER_BYTES, 32) + 1))
        status = Signal(8)
        aside = Signal()
        nak_due = Signal()
        nak = Signal()  # the response in hand answers no held frame
        waited = Signal(range(self.patience + 1))
        waiting = Signal()
        expired = waiting & (waited == self.patience)

        session = Signal()
        last = Signal(8)

        m.d.comb += [self.rx_addr.eq(at), self.bus.addr.eq(Cat(offset, region)), self.tx_aside.eq(aside)]
        with m.If(self.rx_bad):
            m.d.sync += nak_due.eq(1)
        m.d.sync += waited.eq(0)
        with m.If(waiting):
            m.d.sync += waited.eq(waited + 1)

        def answer(code: LinkStatus) -> None:
            m.d.sync += status.eq(code)
            m.next = "RESPOND"

        def send(value: Value | int) -> Value:
            """Drive one response byte; true in the cycle in which it is taken."""
            m.d.comb += [self.tx_payload.valid.eq(1), self.tx_payload.payload.eq(value)]
            return self.tx_payload.ready

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [at.eq(0), byte.eq(0)]
                with m.If(~self.tx_busy):
                    with m.If(nak_due):
                        m.d.sync += [nak_due.eq(0), nak.eq(1), aside.eq(1), header[0:16].eq(contract.NAK)]
                        answer(LinkStatus.BAD_FRAME)
                    with m.Elif(self.rx_valid):
                        m.next = "HEADER"

            with m.State("HEADER"):  # byte k arrives one cycle after its address
                m.d.sync += [at.eq(at + 1), byte.eq(byte + 1), header.eq(Cat(header[8:], self.rx_data))]
                with m.If(byte == HEADER_BYTES):
                    m.d.sync += [at.eq(BODY), byte.eq(0)]
                    m.next = "DECIDE"

            with m.State("DECIDE"):
                m.d.sync += [nak.eq(0), aside.eq(0), offset.eq(address), byte.eq(0)]
                with m.If((opcode == LinkOp.HELLO) & (self.rx_length == 6)):
                    m.d.sync += [session.eq(1), last.eq(sequence)]
                    answer(LinkStatus.OK)
                with m.Elif(~session | ((sequence != last) & (sequence != (last + 1)[:8]))):
                    m.d.sync += aside.eq(1)
                    answer(LinkStatus.BAD_SEQUENCE)
                with m.Elif(sequence == last):
                    m.d.comb += [self.tx_repeat.eq(1), self.rx_release.eq(1)]
                    m.next = "IDLE"
                with m.Else():
                    m.d.sync += last.eq(sequence)
                    m.next = "EXECUTE"

            with m.State("EXECUTE"):
                payload = self.rx_length - BODY
                out_of_reach = address[contract.ADDRESS_BITS :] != 0
                open_region = (region == Region.CSR) | (region == Region.COUNTER)
                running = (self.state == State.CHECK) | (self.state == State.INPUT) | (self.state == State.RUN)
                with m.Switch(opcode):
                    with m.Case(LinkOp.READ):
                        with m.If((self.rx_length != 8) | (words == 0) | (words > contract.MAX_PAYLOAD // 4)):
                            answer(LinkStatus.BAD_LENGTH)
                        with m.Elif(out_of_reach):
                            answer(LinkStatus.BAD_OFFSET)
                        with m.Elif(running & ~open_region):
                            answer(LinkStatus.BUSY)
                        with m.Else():
                            answer(LinkStatus.OK)
                    with m.Case(LinkOp.WRITE):
                        with m.If((self.rx_length <= BODY) | (payload[0:2] != 0)):
                            answer(LinkStatus.BAD_LENGTH)
                        with m.Elif(out_of_reach):
                            answer(LinkStatus.BAD_OFFSET)
                        with m.Elif(running & ~open_region):
                            answer(LinkStatus.BUSY)
                        with m.Else():
                            m.next = "WRITE-FETCH"
                    with m.Case(LinkOp.INPUT):
                        with m.If(self.rx_length <= BODY):
                            answer(LinkStatus.BAD_LENGTH)
                        with m.Elif(self.state != State.INPUT):
                            answer(LinkStatus.NOT_READY)
                        with m.Elif(address != self.input_bytes):
                            answer(LinkStatus.BAD_OFFSET)
                        with m.Else():
                            m.next = "INPUT-FETCH"
                    with m.Case(LinkOp.RESET):
                        with m.If(self.rx_length != 2):
                            answer(LinkStatus.BAD_LENGTH)
                        with m.Else():
                            m.next = "RESET"
                    with m.Case(LinkOp.HELLO):
                        answer(LinkStatus.BAD_LENGTH)
                    with m.Default():
                        answer(LinkStatus.BAD_OPCODE)

            with m.State("WRITE-FETCH"):
                m.d.sync += [byte.eq(byte + 1), word.eq(Cat(word[8:], self.rx_data))]
                with m.If(byte == 4):
                    m.d.sync += byte.eq(0)
                    m.next = "WRITE"
                with m.Else():
                    m.d.sync += at.eq(at + 1)
            with m.State("WRITE"):
                m.d.comb += [
                    waiting.eq(1),
                    self.bus.valid.eq(1),
                    self.bus.write.eq(1),
                    self.bus.w_data.eq(word),
                ]
                with m.If(self.bus.ready):
                    m.d.sync += offset.eq(offset + 1)
                    m.next = "WRITE-FETCH"
                    with m.If(at == self.rx_length):
                        answer(LinkStatus.OK)
                with m.Elif(expired):
                    answer(LinkStatus.CORE_TIMEOUT)

            with m.State("INPUT-FETCH"):
                m.next = "INPUT"
            with m.State("INPUT"):
                m.d.comb += [waiting.eq(1), self.input.valid.eq(1), self.input.payload.eq(self.rx_data)]
                with m.If(self.input.ready):
                    m.d.sync += at.eq(at + 1)
                    m.next = "INPUT-FETCH"
                    with m.If(at + 1 == self.rx_length):
                        answer(LinkStatus.OK)
                with m.Elif(expired | (self.state != State.INPUT)):
                    answer(LinkStatus.NOT_READY)

            with m.State("RESET"):
                m.d.comb += [
                    waiting.eq(1),
                    self.bus.valid.eq(1),
                    self.bus.write.eq(1),
                    self.bus.addr.eq(contract.address(Region.CSR, contract.Csr.CONTROL)),
                    self.bus.w_data.eq(CONTROL_RESET),
                ]
                with m.If(self.bus.ready):
                    answer(LinkStatus.OK)
                with m.Elif(expired):
                    answer(LinkStatus.CORE_TIMEOUT)

            with m.State("RESPOND"):
                m.d.comb += self.tx_start.eq(1)
                m.d.sync += byte.eq(0)
                m.next = "HEAD"
            with m.State("HEAD"):
                head = Array([opcode | contract.RESPONSE_BIT, sequence, status])
                with m.If(send(head[byte[0:2]])):
                    m.d.sync += byte.eq(byte + 1)
                    with m.If(byte == 2):
                        m.d.sync += byte.eq(0)
                        m.next = "FINISH"
                        with m.If(status == LinkStatus.OK), m.Switch(opcode):
                            with m.Case(LinkOp.HELLO):
                                m.next = "HELLO"
                            with m.Case(LinkOp.READ):
                                m.next = "READ"

            with m.State("HELLO"):
                identity = self._identity()
                body = Array([*(address.word_select(i, 8) for i in range(4)), *(Const(b, 8) for b in identity)])
                with m.If(send(body[byte])):
                    m.d.sync += byte.eq(byte + 1)
                    with m.If(byte == len(body) - 1):
                        m.next = "FINISH"

            with m.State("READ"):
                m.d.comb += [waiting.eq(1), self.bus.valid.eq(1)]
                with m.If(self.bus.ready):
                    m.next = "READ-WAIT"
                with m.Elif(expired):
                    answer(LinkStatus.CORE_TIMEOUT)  # begins the response anew
            with m.State("READ-WAIT"):
                m.d.comb += waiting.eq(1)
                m.d.sync += [word.eq(self.bus.r_data), byte.eq(0)]
                with m.If(self.bus.r_valid):
                    m.next = "READ-SEND"
                with m.Elif(expired):
                    answer(LinkStatus.CORE_TIMEOUT)
            with m.State("READ-SEND"), m.If(send(word[0:8])):
                m.d.sync += [word.eq(word >> 8), byte.eq(byte + 1)]
                with m.If(byte == 3):
                    m.d.sync += [offset.eq(offset + 1), words.eq(words - 1)]
                    m.next = "READ"
                    with m.If(words == 1):
                        m.next = "FINISH"

            with m.State("FINISH"):
                m.d.comb += [self.tx_finish.eq(1), self.rx_release.eq(~nak)]
                m.next = "IDLE"
        return m
