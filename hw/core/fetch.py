"""Descriptor memory, and the reader that checks a descriptor before anything acts on it."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from .. import contract
from ..config import Config
from ..contract import DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, ROW_FIELDS, Fault, Opcode
from ..signatures import LocalBus, field_layout, layer_layout

__all__ = ["WORDS_KEPT", "DescriptorFetch", "reserved_masks"]

WORDS_KEPT = 1 + max(field.word for fields in DESCRIPTOR_FIELDS.values() for field in fields)
"""Words of a descriptor that any field uses; the others must be zero and are not stored."""

_LOOP_COUNTS = ("rows", "cols", "timesteps", "t_src", "n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x", "n_passes")


def reserved_masks(opcode: Opcode, config: Config) -> list[int]:
    """Bits that must be zero, word by word."""
    none = ("gap",) if config.taps > 1 else ("gap", *ROW_FIELDS)
    used = [0] * DESCRIPTOR_WORDS
    for field in DESCRIPTOR_FIELDS[opcode]:
        if field.name not in none:
            used[field.word] |= ((1 << field.width) - 1) << field.lsb
    return [~mask & 0xFFFFFFFF for mask in used]


_SETTLING = 8
"""Cycles from the last word's address until what is wrong with the descriptor is known."""


class DescriptorFetch(wiring.Component):
    """Reads descriptor ``pc`` and says what is wrong with it.

    Parameters
    ----------
    config : Config

    Members
    -------
    start, pc : In(1), In(16)
        ``pc`` is only looked at in the cycle of ``start``, which restarts a fetch under way.
    done : Out(1)
        Level: the descriptor is complete. Low from the cycle after start.
    fault : Out(8)
        :class:`contract.Fault`, valid with ``done``.
    opcode : Out(8)
    descriptor : Out(1024)
        Its words, the first in the low bits; valid with ``done``.
    bus : In(LocalBus())
        Region DESC; not to be used while a fetch is under way.
    """

    cycles = DESCRIPTOR_WORDS + _SETTLING
    """From the cycle after ``start`` until ``done``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "pc": In(contract.PC_BITS),
                "done": Out(1),
                "fault": Out(contract.FAULT_BITS),
                "opcode": Out(contract.OPCODE_BITS),
                "descriptor": Out(contract.WORD_BITS * DESCRIPTOR_WORDS),
                "bus": In(LocalBus()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pc, at, reading = Signal(contract.PC_BITS), Signal(range(DESCRIPTOR_WORDS)), Signal()
        word = self._memory(m, Cat(at, pc))
        # the word of index `at` arrives two cycles after its address
        arrival = data.StructLayout({"valid": 1, "at": at.shape()})
        first, arrived = Signal(arrival), Signal(arrival)
        m.d.sync += [first.valid.eq(reading), first.at.eq(at), arrived.eq(first)]
        kept = Signal(contract.WORD_BITS * WORDS_KEPT)
        with m.If(arrived.valid & (arrived.at < WORDS_KEPT)):
            m.d.sync += kept.eq(Cat(kept[contract.WORD_BITS :], word))
        with m.If(arrived.valid & (arrived.at == 0)):
            m.d.sync += self.opcode.eq(word[: contract.OPCODE_BITS])
        m.d.comb += self.descriptor.eq(kept)

        reserved = self._reserved(m, word, arrived)
        settled = self._settled(m, pc, reserved)
        wait = Signal(range(_SETTLING))
        with m.If(self.start):
            m.d.sync += [self.done.eq(0), pc.eq(self.pc), at.eq(0), reading.eq(1)]
            m.d.sync += [first.valid.eq(0), arrived.valid.eq(0), wait.eq(_SETTLING - 1)]
        with m.Elif(reading):
            m.d.sync += at.eq(at + 1)
            with m.If(at == DESCRIPTOR_WORDS - 1):
                m.d.sync += reading.eq(0)
        with m.Elif(~self.done):
            m.d.sync += wait.eq(wait - 1)
            with m.If(wait == 0):
                m.d.sync += [self.done.eq(1), self.fault.eq(settled)]
        return m

    def _memory(self, m: Module, address: Value) -> Signal:
        """The word at ``address``, two cycles later; also the host's port."""
        depth = self.config.descriptors * DESCRIPTOR_WORDS
        m.submodules.store = store = memory.Memory(shape=contract.WORD_BITS, depth=depth, init=[])
        read, write = store.read_port(), store.write_port()
        word = Signal(contract.WORD_BITS)
        m.d.comb += [
            write.addr.eq(self.bus.addr),
            write.data.eq(self.bus.w_data),
            write.en.eq(self.bus.w_en),
            read.addr.eq(Mux(self.bus.r_en, self.bus.addr, address)),
            self.bus.r_data.eq(word),
        ]
        m.d.sync += word.eq(read.data)
        return word

    def _reserved(self, m: Module, word: Signal, arrived: data.View) -> Signal:
        """A reserved bit was set; settles three cycles after the last word."""
        held, stray, sticky = Signal(contract.WORD_BITS), Signal(contract.WORD_BITS), Signal()
        where = Signal.like(arrived)
        masks = {
            opcode: Array(Const(mask, contract.WORD_BITS) for mask in reserved_masks(opcode, self.config))
            for opcode in Opcode
        }
        m.d.sync += [held.eq(word), where.eq(arrived), stray.eq(0)]
        with m.If(where.valid), m.Switch(self.opcode):
            for opcode, mask in masks.items():
                with m.Case(opcode):
                    m.d.sync += stray.eq(held & mask[where.at])
        with m.If(self.start):
            m.d.sync += [where.valid.eq(0), stray.eq(0), sticky.eq(0)]
        with m.Elif(stray.any()):
            m.d.sync += sticky.eq(1)
        return sticky

    def _settled(self, m: Module, pc: Signal, reserved: Signal) -> Signal:
        """The fault, once the fields have been steady for five cycles."""
        program = data.View(field_layout(contract.PROGRAM_FIELDS, DESCRIPTOR_WORDS), self.descriptor)
        layer = data.View(layer_layout(), self.descriptor)
        foreign, empty, no_input = self._program_faults(m, program)
        bad_layer = self._layer_fault(m, layer)

        # of the program that descriptor 0 belongs to; `empty` covers it while pc is 0
        limit, beyond, at_zero = Signal(program.n_descriptors.shape()), Signal(), Signal()
        m.d.sync += [at_zero.eq(pc == 0), beyond.eq((pc >= limit) & ~at_zero)]
        with m.If(at_zero & self.done & (self.fault == Fault.NONE)):
            m.d.sync += limit.eq(program.n_descriptors)

        fault = Signal(contract.FAULT_BITS)
        with m.If(beyond):
            m.d.sync += fault.eq(Fault.BAD_PROGRAM)
        with m.Else(), m.Switch(self.opcode):
            with m.Case(Opcode.PROGRAM):
                m.d.sync += fault.eq(
                    Mux(
                        ~at_zero,
                        Fault.BAD_PROGRAM,
                        Mux(
                            foreign,
                            Fault.CONFIG_MISMATCH,
                            Mux(reserved, Fault.RESERVED_BITS, Mux(empty, Fault.BAD_PROGRAM, Fault.NONE)),
                        ),
                    )
                )
            with m.Case(Opcode.INPUT):
                bad = Mux(reserved, Fault.RESERVED_BITS, Mux(no_input, Fault.BAD_PROGRAM, Fault.NONE))
                m.d.sync += fault.eq(Mux(at_zero, Fault.BAD_PROGRAM, bad))
            with m.Case(Opcode.LAYER):
                bad = Mux(reserved, Fault.RESERVED_BITS, Mux(bad_layer, Fault.BAD_LAYER, Fault.NONE))
                m.d.sync += fault.eq(Mux(at_zero, Fault.BAD_PROGRAM, bad))
            with m.Case(Opcode.END):
                bad = Mux(reserved, Fault.RESERVED_BITS, Fault.NONE)
                m.d.sync += fault.eq(Mux(at_zero, Fault.BAD_PROGRAM, bad))
            with m.Default():
                m.d.sync += fault.eq(Fault.BAD_OPCODE)
        return fault

    def _program_faults(self, m: Module, program: data.View) -> tuple[Signal, Signal, Signal]:
        """(compiled for something else, cannot be run, takes no input)."""
        digest = self.config.digest
        foreign, empty = Signal(), Signal()
        low, high, version = Signal(), Signal(), Signal()
        few, many, no_input = Signal(), Signal(), Signal()
        m.d.sync += [
            low.eq(program.config_low == digest & 0xFFFFFFFF),
            high.eq(program.config_high == digest >> 32),
            version.eq(program.version == contract.CONTRACT_VERSION),
            foreign.eq(~(low & high & version)),
            few.eq(program.n_descriptors < 2),
            many.eq(program.n_descriptors > self.config.descriptors),
            no_input.eq((program.in_channels == 0) | (program.in_records == 0)),
            empty.eq(few | many | no_input),
        ]
        return foreign, empty, no_input

    def _layer_fault(self, m: Module, layer: data.View) -> Signal:
        """A loop count of zero, more sources or steps than there is room for, a leak above one, a leg that fires."""
        config = self.config
        zero = Signal(len(_LOOP_COUNTS))
        pool = Signal((layer.n_pool_y * layer.n_pool_x).shape())
        taps = Signal((layer.n_tap_y * layer.n_tap_x).shape())
        entries = Signal((pool * taps).shape())
        crowded, long, growing, leg, fault = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            *(zero[n].eq(layer[name] == 0) for n, name in enumerate(_LOOP_COUNTS)),
            pool.eq(layer.n_pool_y * layer.n_pool_x),
            taps.eq(layer.n_tap_y * layer.n_tap_x),
            entries.eq(pool * taps),
            crowded.eq(entries[bits_for(config.table_entries) - 1 :].any() & (entries != config.table_entries)),
            long.eq((layer.timesteps > config.max_timesteps) | (layer.t_src > config.max_timesteps)),
            growing.eq(layer.tau_q > contract.TAU_ONE),
            # a leg does not fire; without a skip memory there are none
            leg.eq(
                (layer.store_skip & layer.spiking) | (layer.gate.any() & (~layer.store_skip | layer.add_skip))
                if config.skip_words
                else layer.store_skip | layer.add_skip | layer.gate.any()
            ),
            fault.eq(zero.any() | crowded | long | growing | leg),
        ]
        return fault
