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
        Not valid in the clock after a word was taken, or acknowledged.
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
        at, steady = Signal(bits), Signal()  # where is read, a clock late: the sum is a long way from the memory's data
        m.d.sync += at.eq(self.first[:bits])
        m.d.comb += [
            self.words.ready.eq(self.active & (made != RESULT_WORDS)),
            write.en.eq(self.words.valid & self.words.ready),
            write.addr.eq((base + made)[:bits]),
            write.data.eq(self.words.payload),
            self.first.eq(base + sent),
            read.addr.eq(at),
            self.delivered.payload.eq(read.data),
            self.ready.eq(made - sent),
            self.delivered.valid.eq(steady & (self.ready != 0)),
        ]
        m.d.comb += passed.eq(self.delivered.valid & self.delivered.ready)

        wanted, gone, fewer = Signal(32), Signal(32), Signal(range(RESULT_WORDS + 1))
        due, counted, settled, back = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [gone.eq(wanted - base), fewer.eq(Mux(gone <= made, gone, 0)), steady.eq(~passed)]
        m.d.sync += [counted.eq(due), due.eq(0)]  # `gone` follows `wanted` by a clock, `fewer` by two
        with m.If(self.acknowledge):
            m.d.sync += [wanted.eq(self.taken), due.eq(1), counted.eq(0), settled.eq(0)]
        with m.Elif(counted):
            m.d.sync += settled.eq(1)
        with m.If(self.rewind):
            m.d.sync += back.eq(1)
        with m.If(~self.active):
            zeros = (base, made, sent, back, due, counted, settled)
            m.d.sync += [*(register.eq(0) for register in zeros), steady.eq(0)]
        with m.Elif(settled & ~self.hold & ~self.acknowledge):
            m.d.sync += [
                settled.eq(0),
                steady.eq(0),
                back.eq(0),
                base.eq(base + fewer),
                made.eq(made + write.en - fewer),
                sent.eq(Mux(back | (fewer > sent), 0, sent - fewer)),
            ]
        with m.Else():
            m.d.sync += [made.eq(made + write.en), sent.eq(sent + passed)]
        return m
