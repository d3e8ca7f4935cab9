"""Input bytes to events: the records of an image, as many at a time as a descriptor says."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..config import Config
from ..signatures import ActWrite, CountWrite, byte_stream, field_layout

__all__ = ["InputEncoder"]

_TO_PLENTY = 3  # cycles from a byte to what its count says about the next one


class InputEncoder(wiring.Component):
    """Takes ``in_records * in_channels`` bytes, record-major, channel fastest, and stores the non-zero ones as events.

    Parameters
    ----------
    config : Config

    Members
    -------
    program : In(layout of PROGRAM_FIELDS)
        ``in_channels, in_records, in_act_base, in_cnt_base, in_slots``; stable from start to done, counts not zero.
        Its opcode is PROGRAM for the first records of an image, INPUT for the next.
    start : In(1)
    bytes : In(stream of 8 bits)
        A byte per cycle at most; not ready before start and after the last byte.
    act_write, count_write : Out
    n_bytes : Out(32)
        Bytes taken since the image began.
    done : Out(1)
        Level: everything has been stored. Low from the cycle after start.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "program": In(field_layout(contract.PROGRAM_FIELDS, contract.DESCRIPTOR_WORDS)),
                "start": In(1),
                "bytes": In(byte_stream()),
                "act_write": Out(ActWrite(config)),
                "count_write": Out(CountWrite(config)),
                "n_bytes": Out(32),
                "done": Out(1, init=1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        program, banks = self.program, self.config.banks
        bank = Signal(range(banks) if banks > 1 else 1)
        index = Signal(contract.EVENT_INDEX_BITS)
        channels, records = (
            Signal(program.in_channels.shape()),
            Signal(program.in_records.shape()),
        )  # left, this one included
        act_base, cnt_addr = Signal(program.in_act_base.shape()), Signal(program.in_cnt_base.shape())
        running, taken, byte = Signal(), Signal(), Signal(contract.EVENT_VALUE_BITS)
        last_channel, last_record = Signal(), Signal()
        m.d.comb += [last_channel.eq(channels == 1), last_record.eq(records == 1)]
        self._accept(m, running, (channels, records), (taken, byte))

        # a byte that has been taken is registered with its place, written one cycle later
        value, at_bank, at_index = Signal(contract.EVENT_VALUE_BITS), Signal.like(bank), Signal.like(index)
        staged, ends = Signal(), Signal()
        m.d.sync += [
            staged.eq(taken),
            value.eq(byte),
            at_bank.eq(bank),
            at_index.eq(index),
            ends.eq(taken & last_channel),
        ]

        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                self.done.eq(0),
                bank.eq(0),
                index.eq(0),
                channels.eq(program.in_channels),
                records.eq(program.in_records),
            ]
            with m.If(program.opcode == contract.Opcode.PROGRAM):
                m.d.sync += self.n_bytes.eq(0)
        with m.Elif(taken):
            m.d.sync += [self.n_bytes.eq(self.n_bytes + 1), channels.eq(channels - 1), bank.eq(bank + 1)]
            with m.If(bank == banks - 1):
                m.d.sync += [bank.eq(0), index.eq(index + 1)]
            with m.If(last_channel):
                m.d.sync += [channels.eq(program.in_channels), records.eq(records - 1), bank.eq(0), index.eq(0)]
                with m.If(last_record):
                    m.d.sync += running.eq(0)
        with m.Elif(~running & ~staged & ~self.act_write.en.any() & ~self.count_write.en):
            m.d.sync += self.done.eq(1)

        self._store(m, staged & (value != 0), value, at_bank, at_index, ends, act_base, cnt_addr)
        with m.If(self.start):
            m.d.sync += [act_base.eq(program.in_act_base), cnt_addr.eq(program.in_cnt_base)]
        return m

    def _accept(self, m: Module, running: Signal, left: tuple[Signal, Signal], taken: tuple[Signal, Signal]) -> None:
        """A byte counts a cycle after it has been taken: the link is far away, and says nothing in the same cycle.

        So none is taken, near the last one, until the one before has been counted: it could be one too many.

        ``left``: channels, this one included, and records; ``taken``: whether there is a byte, and the byte.
        """
        plenty, quiet = Signal(), Signal()
        recent = Signal(_TO_PLENTY - 1)  # a byte may have been taken one, two cycles ago
        m.d.comb += self.bytes.ready.eq(running & (plenty | quiet))
        m.d.sync += [
            taken[0].eq(self.bytes.valid & self.bytes.ready),
            taken[1].eq(self.bytes.payload),
            recent.eq(Cat(self.bytes.ready, recent)),
            quiet.eq(~(self.bytes.ready | recent.any())),
            plenty.eq(~self.start & Cat(number > _TO_PLENTY for number in left).any()),
        ]

    def _store(
        self,
        m: Module,
        event: Signal,
        value: Signal,
        at_bank: Signal,
        at_index: Signal,
        ends: Signal,
        act_base: Signal,
        cnt_addr: Signal,
    ) -> None:
        act, count = self.act_write, self.count_write
        for bank in range(self.config.banks):
            stored = Signal(contract.COUNT_BITS, name=f"stored_{bank}")
            here = event & (at_bank == bank)
            total = stored + here
            m.d.sync += [
                act.en[bank].eq(here),
                act.addr[bank].eq(act_base + stored),
                act.data[bank].value.eq(value),
                act.data[bank].index.eq(at_index),
                count.count[bank].eq(total),
                stored.eq(Mux(ends | self.start, 0, total)),
            ]
        m.d.sync += [count.en.eq(ends), count.addr.eq(cnt_addr)]
        with m.If(ends):
            m.d.sync += [act_base.eq(act_base + self.program.in_slots), cnt_addr.eq(cnt_addr + 1)]
