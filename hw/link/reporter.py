"""What the device says unasked about its stream: credit, results, and what is missing."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..contract import REPORT_WORDS, LinkStatus
from .results import RESULT_WORDS
from .signatures import REPORT_HEADER, Response, StreamState

__all__ = ["Reporter"]


class Reporter(wiring.Component):
    """Makes a report when one is wanted.

    Parameters
    ----------
    quantum : int
        Bytes of new credit that are worth a report, a power of two.

    Members
    -------
    active, epoch, status : In(1), In(32), In(8)
        The stream.
    stream : In(StreamState)
    first, ready, words : In(32), In(range), In(stream of 32 bits)
        Results that can be sent: number of the first, how many, themselves.
    wanted : Out(1)
        A report should be made.
    grant : In(1)
        The transmitter is ours, until ``done``.
    done : Out(1)
        Pulse: the report is made.
    response : Out(Response)
    """

    def __init__(self, quantum: int) -> None:
        self.quantum = quantum
        super().__init__(
            {
                "active": In(1),
                "epoch": In(32),
                "status": In(8),
                "stream": In(StreamState()),
                "first": In(32),
                "ready": In(range(RESULT_WORDS + 1)),
                "words": In(stream.Signature(32)),
                "wanted": Out(1),
                "grant": In(1),
                "done": Out(1),
                "response": Out(Response()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        gap, stranger, asked, told = Signal(), Signal(), Signal(), Signal()
        known = Signal(32)  # the limit that the host knows of
        fresh = Signal(32)  # bytes of credit that the host does not know of
        news = Signal()  # a reason that is no pulse
        stopped = self.status != LinkStatus.OK
        stranger_epoch = Signal(32)
        m.d.sync += [
            fresh.eq(self.stream.limit - known),  # what a report leaves of it is settled long before the report's end
            news.eq(self.active & ((self.ready != 0) | (fresh >= self.quantum) | (stopped & ~told))),
            self.wanted.eq(gap | stranger | asked | news),
        ]

        header = Signal(REPORT_HEADER)
        left = Signal(range(max(REPORT_HEADER.size // 8, REPORT_WORDS * 4) + 1))
        byte, word = Signal(2), Signal(32)
        payload = self.response.payload
        m.d.comb += self.response.aside.eq(1)
        with m.FSM():
            with m.State("IDLE"), m.If(self.grant):
                m.d.comb += self.response.start.eq(1)
                m.d.sync += [
                    header.opcode.eq(contract.REPORT),
                    header.turn.eq(self.stream.turn),
                    header.status.eq(
                        Mux(
                            stranger,
                            LinkStatus.NO_STREAM,
                            Mux(stopped, self.status, Mux(gap, LinkStatus.GAP, LinkStatus.OK)),
                        )
                    ),
                    header.epoch.eq(Mux(stranger, stranger_epoch, self.epoch)),
                    header.position.eq(self.stream.position),
                    header.limit.eq(self.stream.limit),
                    header.first.eq(self.first),
                    left.eq(REPORT_HEADER.size // 8),
                ]
                with m.If(stranger):
                    m.d.sync += stranger.eq(0)
                with m.Else():
                    m.d.sync += [gap.eq(0), asked.eq(0), told.eq(stopped), known.eq(self.stream.limit)]
                m.next = "HEADER"
            with m.State("HEADER"):
                bits = header.as_value()
                m.d.comb += [payload.valid.eq(1), payload.payload.eq(bits[:8])]
                with m.If(payload.ready):
                    m.d.sync += [bits.eq(bits >> 8), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.d.sync += left.eq(REPORT_WORDS)
                        m.next = "WORD"
            with m.State("WORD"):
                m.d.sync += [word.eq(self.words.payload), byte.eq(0)]
                m.next = "FINISH"
                with m.If(self.active & self.words.valid & (left != 0)):
                    m.d.comb += self.words.ready.eq(1)
                    m.d.sync += left.eq(left - 1)
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [payload.valid.eq(1), payload.payload.eq(word[:8])]
                with m.If(payload.ready):
                    m.d.sync += [word.eq(Cat(word[8:], Const(0, 8))), byte.eq(byte + 1)]
                    with m.If(byte == 3):
                        m.next = "WORD"
            with m.State("FINISH"):
                m.d.comb += [self.response.finish.eq(1), self.done.eq(1)]
                m.next = "IDLE"
        self._collect(m, gap, stranger, asked, stranger_epoch)
        with m.If(~self.active):
            m.d.sync += [gap.eq(0), asked.eq(0), told.eq(0), known.eq(0)]
        return m

    def _collect(self, m: Module, gap: Signal, stranger: Signal, asked: Signal, stranger_epoch: Signal) -> None:
        """After the FSM's own assignments, so that no pulse is lost."""
        with m.If(self.stream.gap):
            m.d.sync += gap.eq(1)
        with m.If(self.stream.question):
            m.d.sync += asked.eq(1)
        with m.If(self.stream.stranger):
            m.d.sync += [stranger.eq(1), stranger_epoch.eq(self.stream.epoch)]
