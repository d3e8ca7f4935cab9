"""Runs a program: fetch, hash, input, descriptors, faults; and the registers through which the host sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..bus import HostBus
from ..config import Config
from ..contract import CONTROL_FIELDS, COUNTERS, DESCRIPTOR_WORDS, NO_HALT, STATUS_FIELDS, Csr, Fault, Opcode, State
from ..signatures import LocalBus, field_layout
from .counters import Activity, Counters
from .fetch import DescriptorFetch
from .section_hash import SectionHash

__all__ = ["QUIET_CYCLES", "Activity", "Sequencer"]

QUIET_CYCLES = 31
"""Cycles for which the data path is held in reset: longer than the lane array's pipeline, which is not reset."""


_Phase = Callable[[str], AbstractContextManager[None]]


def control_layout() -> data.FlexibleLayout:
    """Register CONTROL."""
    return field_layout(CONTROL_FIELDS, 1)


class Sequencer(wiring.Component):
    """States and faults as in :mod:`contract`; a fault, and CONTROL.reset in any state, put the data path into reset.

    Parameters
    ----------
    config : Config

    Members
    -------
    csr, desc, counter : In(LocalBus())
        Leaves of these regions.
    check : Out(HostBus())
        Reads the sections back for their hash.
    touched : In(1)
        A program memory is being written: the next start hashes again, and resume is refused.
    state : Out(4)
    locked : Out(1)
        State is CHECK, INPUT or RUN.
    hold : Out(1)
        The data path is, or is about to be, in reset: its memories cannot be read.
    datapath_reset : Out(1)
        Resets everything that runs a layer; ``QUIET_CYCLES`` long.
    descriptor : Out(1024)
        Words of the descriptor that runs, stable from two cycles before start until done.
    input_start, input_done : Out(1), In(1)
        Input encoder: pulse, and a level that is low from the cycle after the pulse until all input is stored.
    input_bytes : In(32)
        Bytes the encoder has taken.
    start, done : Out(1), In(1)
        The same for a layer.
    activity : In(Activity)
    """

    least = DescriptorFetch.cycles
    """Cycles that a descriptor runs at least: the next one is fetched meanwhile."""
    between = 4 + 2 + COUNTERS
    """Cycles of a descriptor while it does not run: FETCH, DISPATCH, START, STARTED; STORE and STORING."""
    loading = 3
    """Cycles in state RUN of a descriptor that takes input: FETCH, DISPATCH, START."""
    ending = 2
    """Cycles of the descriptor that ends the program: FETCH and DISPATCH."""

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "csr": In(LocalBus()),
                "desc": In(LocalBus()),
                "counter": In(LocalBus()),
                "check": Out(HostBus()),
                "touched": In(1),
                "state": Out(contract.STATE_BITS),
                "locked": Out(1),
                "hold": Out(1),
                "datapath_reset": Out(1, init=1),
                "descriptor": Out(contract.WORD_BITS * DESCRIPTOR_WORDS),
                "input_start": Out(1),
                "input_done": In(1),
                "input_bytes": In(contract.WORD_BITS),
                "start": Out(1),
                "done": In(1),
                "activity": In(Activity(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._fetch = m.submodules.fetch = DescriptorFetch(self.config)
        self._hash = hash_ = SectionHash()
        m.submodules.hash = ResetInserter(self.datapath_reset)(hash_)
        self._counters = m.submodules.counters = Counters(self.config)
        wiring.connect(m, wiring.flipped(self.desc), self._fetch.bus)
        wiring.connect(m, wiring.flipped(self.counter), self._counters.bus)
        wiring.connect(m, hash_.bus, wiring.flipped(self.check))

        self._pc = Signal(contract.PC_BITS)
        self._error = Signal(contract.FAULT_BITS)
        self._armed = Signal()
        self._cycles = Signal(contract.WORD_BITS)
        self._halt_after = Signal(contract.PC_BITS, init=NO_HALT)
        self._watchdog = Signal(contract.WORD_BITS, init=contract.WATCHDOG_CYCLES)
        self._control = Signal(control_layout())

        self._registers(m)
        self._run(m)
        return m

    def _registers(self, m: Module) -> None:
        """Region CSR."""
        status = Signal(field_layout(STATUS_FIELDS, 1))
        m.d.comb += [
            status.state.eq(self.state),
            status.armed.eq(self._armed),
            status.error.eq(self._error),
            status.pc.eq(self._pc),
        ]
        values = {
            Csr.MAGIC: contract.MAGIC,
            Csr.VERSION: contract.CONTRACT_VERSION,
            Csr.CONFIG_LOW: self.config.digest & 0xFFFFFFFF,
            Csr.CONFIG_HIGH: self.config.digest >> 32,
            Csr.STATUS: status.as_value(),
            Csr.HALT_AFTER: self._halt_after,
            Csr.WATCHDOG: self._watchdog,
            Csr.CYCLES: self._cycles,
            Csr.INPUT_BYTES: self.input_bytes,
            Csr.HASH: self._hash.crc32,
        }
        picked = Signal(contract.WORD_BITS)
        m.d.sync += [picked.eq(0), self.csr.r_data.eq(picked), self._control.as_value().eq(0)]
        with m.Switch(self.csr.addr):
            for register, value in values.items():
                with m.Case(register):
                    m.d.sync += picked.eq(value)
        with m.If(self.csr.w_en), m.Switch(self.csr.addr):
            with m.Case(Csr.CONTROL):
                m.d.sync += self._control.as_value().eq(self.csr.w_data)
            with m.Case(Csr.HALT_AFTER):
                m.d.sync += self._halt_after.eq(self.csr.w_data)
            with m.Case(Csr.WATCHDOG):
                m.d.sync += self._watchdog.eq(self.csr.w_data)

    def _run(self, m: Module) -> None:
        opcode, kept, failing = (Signal.like(one) for one in (self._fetch.opcode, self.descriptor, self._fetch.fault))
        is_input, barked, abort = Signal(), Signal(), Signal()
        m.d.comb += [
            self.descriptor.eq(kept),
            self._hash.program.eq(self.descriptor),
            self._counters.activity.eq(self.activity),
            self._counters.descriptor.eq(self._pc),
            self.locked.eq(Cat(self.state == one for one in (State.CHECK, State.INPUT, State.RUN)).any()),
            is_input.eq((opcode == Opcode.PROGRAM) | (opcode == Opcode.INPUT)),
            abort.eq((failing != Fault.NONE) | self._control.reset),
        ]
        m.d.sync += [self.start.eq(0), self.input_start.eq(0)]
        with m.If(self.touched):
            m.d.sync += self._armed.eq(0)
        with m.If(self.state == State.RUN):
            m.d.sync += self._cycles.eq(self._cycles + 1)

        # Phases: what the sequencer waits for, finer than State.
        with m.FSM(name="phase") as phases:

            @contextmanager
            def phase(name: str) -> Iterator[None]:
                """Statements of a phase, which a fault and a reset end like any other."""
                with m.State(name):
                    yield
                    with m.If(abort):
                        m.next = "REST"

            self._rest(m, phase, failing)
            with phase("FETCH"), m.If(self._fetch.done):
                m.d.sync += [kept.eq(self._fetch.descriptor), opcode.eq(self._fetch.opcode)]
                m.d.comb += failing.eq(self._fetch.fault)
                m.next = "DISPATCH"
            with phase("DISPATCH"):
                m.next = "START"
                with m.If((opcode == Opcode.PROGRAM) & ~self._armed):
                    m.d.comb += self._hash.start.eq(1)
                    m.next = "HASH"
                with m.If(opcode == Opcode.END):
                    m.d.sync += self.state.eq(State.DONE)
                    m.next = "REST"
            self._check(m, phase, failing)
            self._execute(m, phase, is_input, barked, failing)
        busy = Signal()
        m.d.comb += [busy.eq(phases.ongoing("BUSY")), self._counters.run.eq(busy)]

        self._guard(m, busy & ~is_input, barked)
        self._stop(m, failing)

    def _fetch_at(self, m: Module, pc: Value | int) -> None:
        m.d.comb += [self._fetch.start.eq(1), self._fetch.pc.eq(pc)]

    def _advance(self, m: Module) -> None:
        """Go on with the next descriptor, which has been fetched."""
        m.d.sync += [self._pc.eq(self._pc + 1), self.state.eq(State.RUN)]
        m.next = "FETCH"

    def _rest(self, m: Module, phase: _Phase, failing: Signal) -> None:
        """Until the host wants something."""
        with phase("REST"):
            with m.If(self._control.start):
                self._fetch_at(m, 0)
                m.d.sync += [self.state.eq(State.CHECK), self._pc.eq(0), self._error.eq(Fault.NONE)]
                m.d.sync += self._cycles.eq(0)
                m.next = "FETCH"
            with m.Elif(self._control.resume & (self.state == State.HALTED)):
                self._advance(m)
                with m.If(~self._armed):
                    m.d.comb += failing.eq(Fault.HASH_MISMATCH)

    def _check(self, m: Module, phase: _Phase, failing: Signal) -> None:
        """The hash of a program that is not armed."""
        program = data.View(field_layout(contract.PROGRAM_FIELDS, DESCRIPTOR_WORDS), self.descriptor)
        with phase("HASH"), m.If(self._hash.done):
            m.next = "COMPARE"
        with phase("COMPARE"):
            m.d.sync += self._armed.eq(1)
            m.next = "START"
            with m.If(self._hash.crc32 != program.crc32):
                m.d.sync += self._armed.eq(0)
                m.d.comb += failing.eq(Fault.HASH_MISMATCH)

    def _execute(self, m: Module, phase: _Phase, is_input: Value, barked: Value, failing: Signal) -> None:
        """A descriptor: rows of the input, or of a layer."""
        counters = self._counters
        with phase("START"):
            self._fetch_at(m, self._pc + 1)  # while this one runs
            m.d.sync += [self.start.eq(~is_input), self.input_start.eq(is_input)]
            with m.If(is_input):
                m.d.sync += self.state.eq(State.INPUT)
            m.next = "STARTED"
        with phase("STARTED"):
            m.d.comb += counters.clear.eq(1)
            m.next = "BUSY"
        with phase("BUSY"):
            with m.If(Mux(is_input, self.input_done, self.done) & self._fetch.done):
                m.next = "STORE"
            with m.Elif(barked):
                m.d.comb += failing.eq(Fault.WATCHDOG)
        with phase("STORE"):
            m.d.comb += counters.store.eq(1)
            m.next = "STORING"
        with phase("STORING"), m.If(~counters.busy):
            with m.If(self._pc == self._halt_after):
                m.d.sync += self.state.eq(State.HALTED)
                m.next = "REST"
            with m.Else():
                self._advance(m)

    def _guard(self, m: Module, running: Value, barked: Signal) -> None:
        """The watchdog: a layer has run for as many cycles as it may."""
        age = Signal.like(self._watchdog)
        m.d.sync += barked.eq((age == self._watchdog) & (self._watchdog != 0))
        with m.If(running):
            m.d.sync += age.eq(age + 1)
        with m.Else():
            m.d.sync += [age.eq(0), barked.eq(0)]

    def _stop(self, m: Module, failing: Signal) -> None:
        """A fault, and the host's reset, which overrides everything; both put the data path into reset."""
        left, quiet = Signal(range(QUIET_CYCLES + 1), init=QUIET_CYCLES), Signal(init=1)  # quiet: left != 0
        m.d.sync += self.datapath_reset.eq(quiet)
        m.d.comb += self.hold.eq(quiet | self.datapath_reset | self._control.reset)
        with m.If(quiet):
            m.d.sync += [left.eq(left - 1), quiet.eq(left != 1)]
        with m.If(failing != Fault.NONE):
            m.d.sync += [self.state.eq(State.ERROR), self._error.eq(failing), left.eq(QUIET_CYCLES), quiet.eq(1)]
        with m.If(self._control.reset):
            m.d.sync += [self.state.eq(State.IDLE), self._error.eq(Fault.NONE), self._pc.eq(0)]
            m.d.sync += [self._halt_after.eq(NO_HALT), self._watchdog.eq(contract.WATCHDOG_CYCLES)]
            m.d.sync += [left.eq(QUIET_CYCLES), quiet.eq(1)]
