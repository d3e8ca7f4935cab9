"""The host's side of a stream: input at the line's full rate within the credit, results in order, exactly once.

``docs/protocol.md`` has the state diagram and the reason why each fault is survived.
"""

from __future__ import annotations

import dataclasses
import secrets
import struct
from collections import deque

from reverb_fpga.hw import contract
from reverb_fpga.hw.contract import LinkOp, LinkStatus
from reverb_fpga.hw.errors import DeviceError

from .framing import encode_frame
from .session import FRAME_OVERHEAD, Session

__all__ = ["Stream", "StreamError"]

WORD_BYTES = 4
_OPEN = struct.Struct("<IH")
_DATA = struct.Struct("<BBIII")
_REPORT = struct.Struct("<BBBIIII")
_MODULUS = 1 << 32
_IDLE_WAIT = 0.05  # seconds between looks for new input
_SHORTEST = 64  # bytes of a frame on a bad line: less costs headers, more costs what a fault spoils
_GROW_AFTER = 8  # frames without a fault, then they are made longer again
_ACKNOWLEDGE_WORDS = 48  # results that the device may have to keep before it is told, also when there is no input


class StreamError(DeviceError):
    """The device has ended the stream; ``status`` says why."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class _Report:
    turn: int
    status: int
    position: int
    limit: int
    first: int
    words: tuple[int, ...]


def _distance(later: int, earlier: int) -> int:
    """From ``earlier`` to ``later``, both mod 2^32 and less than 2^31 apart."""
    difference = (later - earlier) % _MODULUS
    return difference - _MODULUS if difference >= _MODULUS // 2 else difference


class Stream:
    """An open stream. Bytes go in by :meth:`put`, words come out of :attr:`words`; :meth:`work` moves both.

    Parameters
    ----------
    session : Session
    what : int
        STREAM_WORDS, or the number of logits of an image.
    max_payload : int
        Bytes of a frame at most.

    Attributes
    ----------
    words : deque of int
        Results that have arrived, in order; the caller takes them away.
    repeats : int
        Times that the host had to go back or to ask.

    Raises
    ------
    DeviceError
        If the device refuses the stream, or the line fails.
    """

    def __init__(self, session: Session, what: int, max_payload: int) -> None:
        self._session = session
        self._transport = session.transport
        self._timing = session.timing
        self._longest = self._chunk = max_payload
        self._good = 0  # frames since the last fault
        self._epoch = secrets.randbelow(_MODULUS)
        self._turn = 0
        self._pending = bytearray()  # from `_kept` on: bytes that the device is not known to have
        self._kept = self._sent = self._limit = 0
        self._free: int | None = None  # room for input when there is none in the device: the size of its ring
        self._received = self._told = 0  # result words: those here, those acknowledged
        self.words: deque[int] = deque()
        self.repeats = 0
        status, _ = session.request(LinkOp.OPEN, _OPEN.pack(self._epoch, what))
        if status != LinkStatus.OK:
            raise DeviceError(
                f"{self._transport.name} refuses to open a stream: {_name(status)}"
                + ("; the core is running: reset it first" if status == LinkStatus.BUSY else "")
            )
        self._asked: int | None = None  # the turn of a question that has not been answered
        self._tries = 0
        self._lost = 0.0
        self._deadline = 0.0
        self._moved = self._transport.clock()  # when the stream last got on
        self._ask()

    # -- towards the device ------------------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """Append input. It is sent as the device has room."""
        self._pending += data

    @property
    def unsent(self) -> int:
        """Bytes that have never left the host."""
        return len(self._pending) - _distance(self._sent, self._kept)

    @property
    def delivered(self) -> bool:
        """The device has everything, and has used it up."""
        return not self._pending and self._free is not None and _distance(self._limit, self._kept) == self._free

    def work(self, *, wait: bool, idle: bool = False) -> None:
        """Send what the credit allows; take what has arrived.

        Parameters
        ----------
        wait : bool
            If nothing has arrived: wait for it, until it is time to ask the device.
        idle : bool
            Nothing is expected from the device, so its silence means nothing.

        Raises
        ------
        StreamError
            If the device has stopped the stream.
        DeviceError
            If it does not answer any more.
        """
        sent = self._send()
        now = self._transport.clock()
        if idle:
            self._moved = now
            if self._asked is None:
                self._deadline = now + self._patience()
        elif now - self._moved > self._timing.run:
            raise DeviceError(
                f"{self._transport.name} answers, but nothing has got on for {self._timing.run:.0f} s "
                f"({self.repeats} repeats); reset it, or look at the line"
            )
        left = max(0.0, self._deadline - now) if wait and not sent else 0.0
        for content in self._session.decoder.feed(self._transport.read(min(left, _IDLE_WAIT) if idle else left)):
            self._take(content)
        if self._transport.clock() >= self._deadline and (not idle or self._asked is not None):
            self._overdue()

    def _send(self) -> bool:
        """At most one frame; whether there was one."""
        if self._asked is None:
            begin = _distance(self._sent, self._kept)
            room = min(_distance(self._limit, self._sent), self._chunk, len(self._pending) - begin)
            if room > 0 and (room == self._chunk or begin + room == len(self._pending) or room >= self._chunk // 2):
                self._frame(self._sent, bytes(self._pending[begin : begin + room]))
                self._sent = (self._sent + room) % _MODULUS
                self._good += 1
                if self._good >= _GROW_AFTER:
                    self._chunk, self._good = min(2 * self._chunk, self._longest), 0
                return True
        if _distance(self._received, self._told) >= _ACKNOWLEDGE_WORDS and self._asked is None:
            self._ask()
        return False

    def _frame(self, position: int, data: bytes) -> None:
        head = _DATA.pack(LinkOp.DATA, self._turn, self._epoch, position, self._received)
        self._told = self._received
        self._transport.write(encode_frame(head + data))

    def _ask(self) -> None:
        """Stop sending until the device has said where it is."""
        self._turn = (self._turn + 1) % 256
        self._asked = self._turn
        self._frame(self._sent, b"")
        self._deadline = self._transport.clock() + self._patience()

    def _patience(self) -> float:
        """Seconds after which silence is a sign that something was lost."""
        on_line = _distance(self._sent, self._kept) + contract.REPORT_WORDS * WORD_BYTES + 3 * FRAME_OVERHEAD
        return self._timing.response + self._timing.per_byte * on_line

    def _overdue(self) -> None:
        if self._asked is not None:
            self._tries += 1
            self._lost += self._patience()
            if self._tries >= self._timing.tries or self._lost > self._timing.lost:
                raise DeviceError(
                    f"{self._transport.name} has stopped answering in the middle of a stream ({self._tries} questions, "
                    f"{self._lost:.1f} s); is the board powered and the cable in?"
                )
        self._fault()
        self._ask()

    def _fault(self) -> None:
        """Something was lost: shorter frames lose less."""
        self.repeats += 1
        self._chunk, self._good = max(min(_SHORTEST, self._longest), self._chunk // 2), 0

    # -- from the device ---------------------------------------------------------------------------------------

    def _take(self, content: bytes | None) -> None:
        report = self._parse(content)
        if report is None:
            return
        if report.status == LinkStatus.NO_STREAM:
            raise StreamError(
                f"{self._transport.name} was restarted or taken over in the middle of a stream; connect and load again",
                report.status,
            )
        advanced = self._advance(report)
        answered = report.turn == self._asked
        if answered:
            self._asked = None
            self._tries = 0
            self._go_back(report)
        elif report.status == LinkStatus.GAP and report.turn == self._turn and self._asked is None:
            self._fault()
            self._turn = (self._turn + 1) % 256
            self._go_back(report)
        advanced |= self._results(report)
        if advanced:
            self._moved = self._transport.clock()
        if advanced or answered:
            self._lost = max(0.0, self._lost - self._timing.response / 2)
            if self._asked is None:
                self._deadline = self._transport.clock() + self._patience()
        if report.status not in (LinkStatus.OK, LinkStatus.GAP):
            raise StreamError(f"{self._transport.name} has stopped the stream: {_name(report.status)}", report.status)

    def _parse(self, content: bytes | None) -> _Report | None:
        """A report of this stream; None if it is anything else, of which damaged frames lead to a question."""
        if content is None or content[0] == contract.NAK:
            soon = self._transport.clock() + self._timing.per_byte * 4 * FRAME_OVERHEAD
            if self._asked is None:
                self._deadline = min(self._deadline, soon)
            return None
        if content[0] != contract.REPORT or len(content) < _REPORT.size or (len(content) - _REPORT.size) % WORD_BYTES:
            return None
        _, turn, status, epoch, position, limit, first = _REPORT.unpack_from(content)
        if epoch != self._epoch:
            return None
        words = struct.unpack_from(f"<{(len(content) - _REPORT.size) // WORD_BYTES}i", content, _REPORT.size)
        return _Report(turn, status, position, limit, first, words)

    def _advance(self, report: _Report) -> bool:
        """The device has more bytes than it was known to have, or more room."""
        if self._free is None:
            self._free = _distance(report.limit, report.position)
        arrived = _distance(report.position, self._kept)
        if not 0 <= arrived <= len(self._pending):
            return False  # an old report, or nonsense
        more_room = _distance(report.limit, self._limit)
        if more_room > 0 and _distance(report.limit, report.position) <= self._free:
            self._limit = report.limit
        if arrived:
            del self._pending[:arrived]
            self._kept = report.position
            if _distance(self._sent, self._kept) < 0:
                self._sent = self._kept
        return arrived > 0 or more_room > 0

    def _go_back(self, report: _Report) -> None:
        """Send again from the first byte that the device does not have."""
        if _distance(report.position, self._kept) >= 0 and _distance(report.position, self._sent) < 0:
            self._sent = report.position

    def _results(self, report: _Report) -> bool:
        """Take the words that are next; ask for those that are missing."""
        missing = _distance(report.first, self._received)
        if missing > 0:
            if self._asked is None:
                self._fault()
                self._ask()
            return False
        new = report.words[-missing:] if missing else report.words
        self.words.extend(new)
        self._received = (self._received + len(new)) % _MODULUS
        return bool(new)

    def close(self) -> None:
        """End it; the core stays as it is."""
        self._session.request(LinkOp.OPEN, _OPEN.pack(self._epoch, contract.STREAM_CLOSE))


def _name(status: int) -> str:
    try:
        return LinkStatus(status).name
    except ValueError:
        return f"status {status}"
