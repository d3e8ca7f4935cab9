"""Holds a request, or keeps the bytes of a stream: both in one ring of block RAM."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .. import contract
from ..contract import LinkOp
from ..signatures import byte_stream
from .signatures import COUNT_BITS, DATA_HEADER, REQUEST_HEADER, Decoded, HeldRequest, StreamState

__all__ = ["MIN_RING", "FrameReceiver"]

CRC_BYTES = 4
MIN_FRAME = 2 + CRC_BYTES  # opcode, sequence number
MAX_REQUEST = 6 + contract.MAX_PAYLOAD + CRC_BYTES  # opcode, sequence number, address, payload
DATA_BYTES = DATA_HEADER.size // 8
_AHEAD = 4  # bytes: three clocks from a read until its byte has been taken
MIN_RING = 2048  # bytes: the longest request must fit


class FrameReceiver(wiring.Component):
    """While no stream is open the ring holds one request at a time; while one is, its bytes in order.

    Only frames whose COBS, length and CRC are right count. What arrives while a request is held is dropped. The bytes
    of a DATA frame are written behind those that count, and count from its end on; if that is bad, the next frame
    overwrites them.

    Parameters
    ----------
    depth : int
        Bytes of the ring, a power of two, at least MIN_RING.

    Members
    -------
    frame : In(Decoded)
    request : Out(HeldRequest)
    active : In(1)
        A stream is open. The ring is empty when this rises; its bytes are lost when it falls.
    epoch : In(32)
        Of the stream.
    stream : Out(StreamState)
    bytes : Out(byte stream)
        The stream's bytes.
    """

    def __init__(self, depth: int) -> None:
        self._address_bits = exact_log2(depth)
        if depth < MIN_RING:
            raise ValueError(f"a ring of {depth} bytes cannot hold a request; at least {MIN_RING}")
        self.depth = depth
        super().__init__(
            {
                "frame": In(Decoded()),
                "request": Out(HeldRequest()),
                "active": In(1),
                "epoch": In(32),
                "stream": Out(StreamState()),
                "bytes": Out(byte_stream()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = self._memory = Memory(shape=8, depth=self.depth, init=[])
        self._write, self._read = self._memory.write_port(), self._memory.read_port()
        self._is_data = Signal()  # by its opcode; known from the second byte on
        self._dropped = Signal()  # a request was held when a byte of this frame came
        self._head = Signal(self._address_bits)
        self._commit = Signal(COUNT_BITS)  # bytes that count from now on
        self._held = Signal(range(self.depth + 2))  # of the stream: those in memory, and those read ahead
        self._header = Signal(DATA_HEADER)

        frame, request = self.frame, self.request
        header = self._header.as_value()
        with m.If(frame.strobe & ~request.valid & (frame.count < DATA_BYTES)):
            m.d.sync += header.word_select(frame.count[:4], 8).eq(frame.data)
        with m.If(frame.strobe & (frame.count == 0)):
            m.d.sync += self._is_data.eq(frame.data == LinkOp.DATA)
        with m.If(frame.end):
            m.d.sync += self._dropped.eq(0)
        with m.Elif(frame.strobe & request.valid):
            m.d.sync += self._dropped.eq(1)

        stored = self._store(m)
        self._hold(m)
        self._accept(m, stored)
        self._deliver(m)
        return m

    def _store(self, m: Module) -> Signal:
        """Write payload into the ring; how many bytes of this frame's are there, without a gap."""
        frame = self.frame
        stored, full, missed = Signal(COUNT_BITS), Signal(), Signal()
        room = Signal(range(self.depth + 1))
        payload = frame.strobe & ~self.request.valid & self._is_data & (frame.count >= DATA_BYTES)
        m.d.comb += [
            full.eq(missed | (stored >= room)),
            self._write.addr.eq(Mux(self._is_data, self._head + stored, frame.count)),
            self._write.data.eq(frame.data),
        ]
        m.d.sync += room.eq(self.depth - self._held)
        with m.If(payload):
            m.d.comb += self._write.en.eq(self.active & ~full)
        with m.Elif(frame.strobe & ~self.request.valid & ~self._is_data):
            m.d.comb += self._write.en.eq(~self.active & (frame.count < MAX_REQUEST))
        with m.If(frame.end):
            m.d.sync += [stored.eq(0), missed.eq(0)]
        with m.Elif(payload & full):
            m.d.sync += missed.eq(1)
        with m.Elif(payload):
            m.d.sync += stored.eq(stored + 1)
        return stored

    def _hold(self, m: Module) -> None:
        frame, request = self.frame, self.request
        fits = (frame.count >= MIN_FRAME) & (frame.count <= MAX_REQUEST)
        good = frame.good & fits & ~self._dropped & ~request.valid
        m.d.comb += request.header.eq(self._header.as_value()[: REQUEST_HEADER.size])
        m.d.sync += request.bad.eq(0)
        with m.If(request.release):
            m.d.sync += request.valid.eq(0)
        with m.If(frame.end & ~self._is_data):
            m.d.sync += [request.valid.eq(request.valid & ~request.release | good), request.bad.eq(~good)]
            with m.If(good):
                m.d.sync += request.length.eq(frame.count - CRC_BYTES)
        with m.If(frame.end & self._is_data & ~self.active & ~(frame.good & ~self._dropped)):
            m.d.sync += request.bad.eq(1)

    def _accept(self, m: Module, stored: Signal) -> None:
        """What the end of a DATA frame brings."""
        frame, stream, header = self.frame, self.stream, self._header
        length = Signal(COUNT_BITS)
        ours, expected, beyond = Signal(), Signal(), Signal()
        whole, told, gap = Signal(), Signal(), Signal()
        m.d.comb += [
            length.eq(frame.count - (DATA_BYTES + CRC_BYTES)),
            whole.eq(frame.good & ~self._dropped & (frame.count >= DATA_BYTES + CRC_BYTES)),
            stream.epoch.eq(header.epoch),
        ]
        ahead = Signal(32)
        m.d.sync += [  # settled long before the frame ends: four bytes of CRC follow the header
            ours.eq(header.epoch == self.epoch),
            ahead.eq(header.position - stream.position),
            expected.eq(ahead == 0),
            beyond.eq(~ahead[-1] & (ahead != 0)),
            stream.acknowledge.eq(0),
            stream.question.eq(0),
            stream.gap.eq(0),
            stream.stranger.eq(0),
        ]
        m.d.sync += self._commit.eq(0)  # counts a clock after the frame's end, long before the next frame's bytes
        with m.If(frame.end & self._is_data):
            with m.If(~whole):
                m.d.comb += gap.eq(self.active)
            with m.Elif(~self.active | ~ours):
                m.d.sync += stream.stranger.eq(1)
            with m.Else():
                m.d.sync += [stream.acknowledge.eq(1), stream.taken.eq(header.taken), stream.turn.eq(header.turn)]
                with m.If(stream.turn != header.turn):
                    m.d.sync += told.eq(0)
                with m.If(length == 0):
                    m.d.sync += stream.question.eq(1)
                with m.Elif(expected & (length <= contract.MAX_PAYLOAD) & (length <= stored)):
                    m.d.sync += [self._commit.eq(length), told.eq(0)]
                with m.Elif(expected | beyond):
                    m.d.comb += gap.eq(1)
        with m.If(gap & (~told | (whole & (stream.turn != header.turn)))):
            m.d.sync += [stream.gap.eq(1), told.eq(1)]
        with m.If(~self.active):
            m.d.sync += told.eq(0)

    def _deliver(self, m: Module) -> None:
        """The ring's first bytes, read ahead into a short queue, and the ring's bounds.

        The encoder lies elsewhere: what it says about a byte must not decide, in the same cycle, on a read.
        """
        tail, waiting = Signal(self._address_bits), Signal(range(self.depth + 1))  # in memory, still to be read
        fetch, fetched, taken = Signal(), Signal(), Signal()
        read, commit, held = self._read, self._commit, self._held
        queue = fifo.SyncFIFO(width=8, depth=_AHEAD)
        m.submodules.ahead = ResetInserter(~self.active)(queue)
        under_way, room = Signal(range(_AHEAD + 1)), Signal()  # read, and not taken
        following = under_way + fetch - (queue.r_en & queue.r_rdy)
        m.d.comb += [
            fetch.eq(self.active & (waiting != 0) & room),
            read.en.eq(fetch | ~self.active),
            read.addr.eq(Mux(self.active, tail, self.request.addr)),
            queue.w_en.eq(fetched),
            queue.w_data.eq(read.data),
            queue.r_en.eq(self.bytes.ready),
            self.bytes.valid.eq(queue.r_rdy),
            self.bytes.payload.eq(queue.r_data),
            self.request.data.eq(read.data),
        ]
        with m.If(self.active):
            m.d.sync += [
                self._head.eq(self._head + commit),
                self.stream.position.eq(self.stream.position + commit),
                tail.eq(tail + fetch),
                waiting.eq(waiting + commit - fetch),
                fetched.eq(fetch),
                under_way.eq(following),
                room.eq(following < _AHEAD),
                taken.eq(self.bytes.valid & self.bytes.ready),
                held.eq(held + commit - taken),
                self.stream.limit.eq(self.stream.position + self.depth - held),  # a clock late: it only grows
            ]
        with m.Else():
            m.d.sync += [
                *(counter.eq(0) for counter in (self._head, self.stream.position, tail, waiting, held, under_way)),
                self.stream.limit.eq(self.depth),
                fetched.eq(0),
                taken.eq(0),
                room.eq(1),
            ]
