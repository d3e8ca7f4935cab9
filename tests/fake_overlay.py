"""A device written in Python: docs/protocol.md, and a core that answers every image with the sum of its bytes."""

from __future__ import annotations

import struct

from reverb_fpga.host.framing import FrameDecoder, encode_frame
from reverb_fpga.host.transport import Transport
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Csr, Fault, LinkOp, LinkStatus, Region, State

__all__ = ["FakeOverlay", "FakeStream"]

RING = 2048


class FakeStream:
    """The device's side of a stream; uses up input at once."""

    def __init__(self, overlay: FakeOverlay, epoch: int, what: int) -> None:
        self.overlay, self.epoch, self.what = overlay, epoch, what
        self.position = self.taken = self.sent = self.turn = 0
        self.results: list[int] = []
        self.input = bytearray()
        self.number = 0
        self.status = LinkStatus.OK

    def data(self, frame: bytes) -> bytes:
        """The report that answers a DATA frame, or nothing."""
        _, turn, epoch, position, taken = struct.unpack_from("<BBIII", frame)
        if epoch != self.epoch:
            return report(turn, LinkStatus.NO_STREAM, epoch, 0, 0, 0)
        body = frame[14:]
        self.turn, self.taken = turn, taken
        status = self.status
        if not body:
            self.sent = taken
        elif position == self.position:
            self.position += len(body)
            self.input += body
            (self._write if self.what == contract.STREAM_WORDS else self._compute)()
            status = self.status
        elif position > self.position:
            status = LinkStatus.GAP
        words = self.results[self.sent : self.sent + contract.REPORT_WORDS]
        first, self.sent = self.sent, self.sent + len(words)
        return report(turn, status, epoch, self.position, self.position + RING, first, words)

    def _compute(self) -> None:
        overlay = self.overlay
        while len(self.input) >= overlay.image_bytes:
            image, self.input = self.input[: overlay.image_bytes], self.input[overlay.image_bytes :]
            if overlay.fault is not Fault.NONE:
                overlay.state, self.status = State.ERROR, LinkStatus.FAULT
                return
            overlay.state = State.DONE
            logits = [-sum(image), *range(1, self.what)]
            self.results += [self.number, overlay.words.get(Csr.CYCLES, 0), 7, *logits]
            self.number += 1

    def _write(self) -> None:
        while len(self.input) >= 8:
            place, count = struct.unpack_from("<II", self.input)
            if len(self.input) < 8 + 4 * count:
                return
            for k, word in enumerate(struct.unpack_from(f"<{count}I", self.input, 8)):
                self.overlay.words[place + k] = word
            del self.input[: 8 + 4 * count]


def report(
    turn: int, status: int, epoch: int, position: int, limit: int, first: int, words: list[int] | None = None
) -> bytes:
    """A REPORT frame on the wire."""
    values = [word & 0xFFFFFFFF for word in words or []]
    head = struct.pack("<BBBIIII", contract.REPORT, turn, status, epoch, position, limit, first)
    return encode_frame(head + struct.pack(f"<{len(values)}I", *values))


class FakeOverlay(Transport):
    """Speaks docs/protocol.md; its core answers every image with the sum of its bytes. Time passes only in reads."""

    def __init__(self) -> None:
        self.name = "fake"
        self.now = 0.0
        self.words: dict[int, int] = {}
        self.image = bytearray()
        self.image_bytes = 0
        self.state, self.fault = State.IDLE, Fault.NONE
        self.magic, self.version, self.digest = contract.MAGIC, contract.CONTRACT_VERSION, preset("tiny").digest
        self.frames_left = 1 << 30
        self.bytes_in = 0
        self.armed = False
        self.sequence: int | None = None
        self.streaming: FakeStream | None = None
        self._kept = b""
        self._out = bytearray()
        self._decoder = FrameDecoder()

    def clock(self) -> float:
        return self.now

    def read(self, timeout: float) -> bytes:
        out, self._out = bytes(self._out), bytearray()
        self.now += 1e-3 if out else timeout + 1e-6
        return out

    def write(self, data: bytes) -> None:
        self.bytes_in += len(data)
        for frame in self._decoder.feed(data):
            self.frames_left -= 1
            if self.frames_left < 0:
                return
            if frame is None:
                self._out += encode_frame(bytes([contract.NAK, 0, LinkStatus.BAD_FRAME]))
            elif frame[0] == LinkOp.DATA:
                self._out += self.data(frame)
            else:
                self._answer(frame)

    def data(self, frame: bytes) -> bytes:
        """What a DATA frame is answered by."""
        if self.streaming is None:
            return report(frame[1], LinkStatus.NO_STREAM, *struct.unpack_from("<I", frame, 2), 0, 0, 0)
        return self.streaming.data(frame)

    def _answer(self, frame: bytes) -> None:
        opcode, sequence, body = frame[0], frame[1], frame[2:]
        if opcode != LinkOp.HELLO and self.sequence not in (sequence, (sequence - 1) % 256):
            head = bytes([opcode | 0x80, sequence, LinkStatus.BAD_SEQUENCE])
            self._out += encode_frame(head)
            return
        if opcode == LinkOp.HELLO or sequence != self.sequence:
            status, answer = self._execute(opcode, body)
            self._kept = bytes([opcode | 0x80, sequence, status]) + answer
            self.sequence = sequence
        self._out += encode_frame(self._kept)

    def _execute(self, opcode: int, body: bytes) -> tuple[int, bytes]:
        if opcode == LinkOp.HELLO:
            self.streaming = None
            low, high = self.digest & 0xFFFFFFFF, self.digest >> 32
            return 0, body + struct.pack("<IIIIHB", self.magic, self.version, low, high, 1024, 1)
        if opcode == LinkOp.RESET:
            self.state, self.streaming = State.IDLE, None
            return 0, b""
        (address,) = struct.unpack_from("<I", body)
        if opcode == LinkOp.READ:
            (count,) = struct.unpack_from("<H", body, 4)
            return 0, struct.pack(f"<{count}I", *(self._load(address + i) for i in range(count)))
        if opcode == LinkOp.OPEN:
            (what,) = struct.unpack_from("<H", body, 4)
            self.streaming = FakeStream(self, address, what) if what else None
            return 0, b""
        if opcode == LinkOp.INPUT:
            return self._input(address, body[4:]), b""
        for i, word in enumerate(struct.unpack_from(f"<{len(body) // 4 - 1}I", body, 4)):
            self._store(address + i, word)
        return 0, b""

    def _input(self, offset: int, data: bytes) -> int:
        if self.state is not State.INPUT:
            return LinkStatus.NOT_READY
        if offset != len(self.image):
            return LinkStatus.BAD_OFFSET
        self.image += data
        if len(self.image) == self.image_bytes:
            self.state = State.DONE if self.fault is Fault.NONE else State.ERROR
        return 0

    def _load(self, address: int) -> int:
        if address == Csr.STATUS:
            fault = self.fault if self.state is State.ERROR else Fault.NONE
            return self.state | self.armed << 4 | fault << 8 | 3 << 16
        if address == contract.address(Region.MEMBRANE, 0):
            return -sum(self.image) & 0xFFFFFFFF
        return self.words.get(address, 0)

    def _store(self, address: int, word: int) -> None:
        self.words[address] = word
        if address == Csr.CONTROL and word & 1:
            self.state = State.INPUT
            self.image.clear()
