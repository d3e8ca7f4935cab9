"""The core's gateware, compiled to a program and driven through its host bus and input stream: no link, no UART."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw import contract, processes
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import CONTROL_FIELDS, COUNTERS, NO_HALT, Counter, Csr, Fault, Region, State
from reverb_fpga.hw.core import Core
from reverb_fpga.hw.errors import DeviceError, InputError

from .overlay import build_overlay
from .remember import remembered
from .sampled import SampledResets
from .verilate import Progress, build_executable

__all__ = ["HARNESS", "RtlCore", "build_core"]

HARNESS = Path(__file__).parent / "cpp" / "core_harness.cpp"
_SETTLED = (State.HALTED, State.DONE, State.ERROR)
_REPLY_SECONDS = 300.0
_CYCLES_PER_CALL = 100_000  # so that a call's answer comes in seconds, whatever the size of the core
_BLOCK_WORDS = 4096


def build_core(config: Config, *, trace: bool = False, progress: Progress | None = None) -> Path:
    """Executable of the core of ``config``; see :func:`~reverb_fpga.sim.verilate.build_executable` for errors."""
    name = f"core-{config.name}{'-trace' if trace else ''}"

    def build() -> Path:
        core = Core(config)
        top = core if trace else SampledResets(core)  # a waveform keeps the names of the gateware
        return build_executable(top, name, HARNESS, trace=trace, progress=progress)

    return remembered(f"{name} {config!r}", build)


class RtlCore:
    """One simulated core in a child process. Use as a context manager, or call :meth:`close`.

    Every method raises :class:`DeviceError` (one line) if the child has ended or does not answer.

    Parameters
    ----------
    config : Config
    linked : bool
        Use the program that :class:`~reverb_fpga.sim.virtual_board.VirtualBoard` runs, whose core has its link beside
        it, so that only one is built; not with `waveform`.
    waveform : Path, optional
        Record a VCD file of everything from the first cycle on; needs another build.
    progress : callable, optional
        One line per build stage.
    """

    def __init__(
        self,
        config: Config,
        *,
        linked: bool = False,
        waveform: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = config
        self.n_outputs = 0
        command: list[str | Path]
        if linked and waveform is None:
            command = [build_overlay(config, progress=progress), "core"]
        else:
            command = [build_core(config, trace=waveform is not None, progress=progress)]
        # Standard error goes to a file: nobody reads it while the child runs, and a pipe could fill up.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._child = processes.start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
        )
        if waveform is not None:
            self.trace(waveform)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. Harmless if it has ended."""
        if self._log.closed:
            return
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()  # it ends at the end of its input, closing a waveform
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
        finally:
            processes.end(self._child)
        self._log.close()

    # -- host bus ---------------------------------------------------------------------------------------------

    def write(self, region: Region, offset: int, words: Iterable[int] | NDArray[np.uint32]) -> None:
        """Write consecutive words of a region."""
        data = np.ascontiguousarray(list(words) if not isinstance(words, np.ndarray) else words, dtype="<u4")
        for start in range(0, len(data), _BLOCK_WORDS):
            part = data[start : start + _BLOCK_WORDS]
            header = struct.pack("<cII", b"W", contract.address(region, offset + start), len(part))
            self._call(header + part.tobytes(), 0)

    def read(self, region: Region, offset: int, count: int) -> NDArray[np.uint32]:
        """Consecutive words of a region."""
        parts = [np.zeros(0, dtype=np.uint32)]
        for start in range(0, count, _BLOCK_WORDS):
            n = min(_BLOCK_WORDS, count - start)
            request = struct.pack("<cII", b"R", contract.address(region, offset + start), n)
            parts.append(np.frombuffer(self._call(request, 4 * n), dtype="<u4").astype(np.uint32))
        return np.concatenate(parts)

    def csr(self, register: Csr) -> int:
        """Value of a register."""
        return int(self.read(Region.CSR, register, 1)[0])

    def counters(self, descriptor: int) -> dict[Counter, int]:
        """Counters of a descriptor that has completed."""
        words = self.read(Region.COUNTER, descriptor * COUNTERS, COUNTERS)
        return {counter: int(words[counter]) for counter in Counter}

    # -- running ----------------------------------------------------------------------------------------------

    def load(self, program: Program) -> None:
        """Write all sections.

        Raises
        ------
        InputError
            If the program is for another configuration.
        """
        if program.config_digest != self.config.digest:
            raise InputError(f"program {program.name} is for {program.config_name}, this core is {self.config.name}")
        for region, words in program.sections():
            self.write(region, 0, words)
        self.n_outputs = program.descriptor(0)[1]["n_outputs"]

    def start(self, halt_after: int = NO_HALT) -> None:
        """Begin an image; halt after that descriptor (0: after the input). Input that was left over is dropped."""
        self._call(b"D", 0)
        self.write(Region.CSR, Csr.HALT_AFTER, [halt_after])
        self._control("start")

    def resume(self, halt_after: int = NO_HALT) -> None:
        """Go on after a halt, until the next one."""
        self.write(Region.CSR, Csr.HALT_AFTER, [halt_after])
        self._control("resume")

    def reset(self) -> None:
        """Back to IDLE from any state; memories are kept."""
        self._call(b"D", 0)
        self._control("reset")

    def feed(self, data: bytes) -> None:
        """Queue input bytes; the core takes them in state INPUT."""
        self._call(struct.pack("<cI", b"I", len(data)) + data, 0)

    def stall_input(self, seed: int, chance: float) -> None:
        """From now on offer no input byte in a ``chance`` (0..1) of the cycles, at random."""
        self._call(struct.pack("<cII", b"Z", seed, min(255, round(chance * 256))), 0)

    def wait(self, states: Iterable[State] = _SETTLED, max_cycles: int = 1 << 26) -> State:
        """Run until the state is one of ``states``.

        Raises
        ------
        DeviceError
            If the sequencer reports a fault (unless ``states`` holds only ERROR), or after ``max_cycles``.
        """
        wanted = set(states)
        mask = sum(1 << state for state in wanted | {State.ERROR})
        left = max_cycles
        while True:
            request = struct.pack("<cIQ", b"U", mask, min(left, _CYCLES_PER_CALL))
            number, passed = struct.unpack("<BQ", self._call(request, 9))
            left -= passed
            state = State(number)
            if state in wanted and (state is not State.ERROR or wanted == {State.ERROR}):
                return state
            if state is State.ERROR:
                raise DeviceError(f"the core stopped: {self._fault()}")
            if left <= 0:
                raise DeviceError(f"the core is still in state {state.name} after {max_cycles} cycles")

    def step(self, cycles: int) -> State:
        """Let that many cycles pass."""
        return State(self._call(struct.pack("<cQ", b"S", cycles), 1)[0])

    def status(self) -> dict[str, int]:
        """Fields of register STATUS."""
        return contract.unpack(contract.STATUS_FIELDS, [self.csr(Csr.STATUS)])

    @property
    def cycles(self) -> int:
        """Cycles of the last image, from the first layer to the last."""
        return self.csr(Csr.CYCLES)

    @property
    def time(self) -> int:
        """Cycles since power-up."""
        return int(struct.unpack("<Q", self._call(b"C", 8))[0])

    def trace(self, path: Path | None) -> None:
        """Record a waveform from now on, or (None) end it. Only if built for it."""
        name = os.fsencode(path) if path is not None else b""
        self._call(struct.pack("<cI", b"T", len(name)) + name, 0)

    def logits(self) -> NDArray[np.int64]:
        """Membrane potentials of the output layer."""
        return self.read(Region.MEMBRANE, 0, self.n_outputs).astype(np.int32).astype(np.int64)

    def infer(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Logits of one image: its input bytes, record-major, in any shape.

        Raises
        ------
        DeviceError
            If the core faults.
        """
        self.start()
        self.feed(np.ascontiguousarray(codes, dtype=np.uint8).tobytes())
        self.wait((State.DONE,))
        return self.logits()

    # -- child ------------------------------------------------------------------------------------------------

    def _control(self, name: str) -> None:
        self.write(Region.CSR, Csr.CONTROL, contract.pack(CONTROL_FIELDS, {name: 1}, 1))

    def _fault(self) -> str:
        status = self.status()
        return f"{Fault(status['error']).name} at descriptor {status['pc']}"

    def _call(self, request: bytes, size: int) -> bytes:
        """Send a command; its answer's ``size`` bytes."""
        if self._log.closed:
            raise DeviceError("the simulated core has been closed")
        assert self._child.stdin is not None
        deadline = time.monotonic() + _REPLY_SECONDS
        try:
            view = memoryview(request)
            while view:
                view = view[self._child.stdin.write(view) :]
        except (BrokenPipeError, ConnectionResetError):
            raise self._dead() from None
        if self._receive(1, deadline) == b"K":
            return self._receive(size, deadline)
        (length,) = struct.unpack("<I", self._receive(4, deadline))
        raise DeviceError(f"simulated core: {self._receive(length, deadline).decode(errors='replace')}")

    def _receive(self, size: int, deadline: float) -> bytes:
        assert self._child.stdout is not None
        out = bytearray()
        while len(out) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                raise DeviceError(f"the simulated core does not answer (for {_REPLY_SECONDS:.0f} seconds)")
            part = os.read(self._child.stdout.fileno(), size - len(out))
            if not part:
                raise self._dead()
            out += part
        return bytes(out)

    def _dead(self) -> DeviceError:
        code = self._child.wait(10)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        causes = [line for line in lines if line.startswith("%Error")] or lines[-1:] or ["no message"]
        return DeviceError(f"the simulated core ended with exit code {code}: {causes[0]}")
