"""Results that the host does not have yet."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

__all__ = ["RESULT_WORDS", "ResultStore"]

RESULT_WORDS = 128  # nine results of ten classes; distributed RAM


class ResultStore(wiring.Component):
    """Words in, numbered from 0; words out from any that the host has not acknowledged.

    Members
    -------
    active : In(1)
        All is forgotten while this is low.
    words : In(stream of 32 bits)
        Not ready while the store is full.
    acknowledge, taken : In(1), In(32)
        Pulse: words before ``taken`` are not needed any more; ignored unless there are such words.
    rewind : In(1)
        Pulse, at the earliest with ``acknowledge``: deliver again from the first word that is still here.
    hold : In(1)
        A report is being made: acknowledgements wait.
    first : Out(32)
        Number of the word that comes next.
    ready : Out(range(RESULT_WORDS + 1))
        Words that can be delivered.
    delivered : Out(stream of 32 bits)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "active": In(1),
                "words": In(stream.Signature(32)),
                "acknowledge": In(1),
                "taken": In(32),
                "rewind": In(1),
                "hold": In(1),
                "first": Out(32),
                "ready": Out(range(RESULT_WORDS + 1)),
                "delivered": Out(stream.Signature(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=32, depth=RESULT_WORDS, init=[], attrs={"ram_style": "distributed", "syn_ramstyle": "distributed"}
        )
        write, read = memory.write_port(), memory.read_port(domain="comb")
        bits = exact_log2(RESULT_WORDS)
        base = Signal(32)  # number of the first word that is still here
        made, sent = Signal(range(RESULT_WORDS + 1)), Signal(range(RESULT_WORDS + 1))  # words beyond it
        passed = Signal()
        m.d.comb += [
            self.words.ready.eq(self.active & (made != RESULT_WORDS)),
            write.en.eq(self.words.valid & self.words.ready),
            write.addr.eq((base + made)[:bits]),
            write.data.eq(self.words.payload),
            self.first.eq(base + sent),
            read.addr.eq(self.first[:bits]),
            self.delivered.payload.eq(read.data),
            self.ready.eq(made - sent),
            self.delivered.valid.eq(self.ready != 0),
        ]
        m.d.comb += passed.eq(self.delivered.valid & self.delivered.ready)

        wanted, gone = Signal(32), Signal(32)
        due, settled, back = Signal(), Signal(), Signal()
        m.d.sync += gone.eq(wanted - base)
        with m.If(self.acknowledge):
            m.d.sync += [wanted.eq(self.taken), due.eq(1), settled.eq(0)]
        with m.Elif(due):
            m.d.sync += [due.eq(0), settled.eq(1)]  # `gone` follows `wanted` by a clock
        with m.If(self.rewind):
            m.d.sync += back.eq(1)
        with m.If(~self.active):
            m.d.sync += [base.eq(0), made.eq(0), sent.eq(0), back.eq(0), due.eq(0), settled.eq(0)]
        with m.Elif(settled & ~self.hold & ~self.acknowledge):
            fewer = Mux(gone <= made, gone, 0)[: bits + 1]
            m.d.sync += [
                settled.eq(0),
                back.eq(0),
                base.eq(base + fewer),
                made.eq(made + write.en - fewer),
                sent.eq(Mux(back | (fewer > sent), 0, sent - fewer)),
            ]
        with m.Else():
            m.d.sync += [made.eq(made + write.en), sent.eq(sent + passed)]
        return m
