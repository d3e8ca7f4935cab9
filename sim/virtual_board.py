"""A virtual board: the overlay's gateware, compiled to native code, behind a pseudo-terminal.

The host talks to :attr:`VirtualBoard.port` as to a serial port of a real board; every bit crosses the UART pins.
"""

from __future__ import annotations

import os
import subprocess
import tty
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from reverb_fpga.hw import processes
from reverb_fpga.hw.config import Config

from .line import Line
from .overlay import build_overlay
from .verilate import Progress

__all__ = ["VirtualBoard"]

EXIT_SECONDS = 5.0  # for the simulation to close its trace


class VirtualBoard:
    """Runs between ``__enter__`` and ``__exit__``; the simulation is a process of its own and ends with this one.

    Parameters
    ----------
    config : Config
    line : Line, optional
        Rate, and the latency timer of a USB-serial bridge, in simulated time. Time that nobody uses does not pass: a
        board at rest lets the timer run out at once.
    trace : Path, optional
        Write a VCD waveform of everything there; the simulation is then many times slower.
    progress : callable, optional
        Told what is being built; the first build of a configuration takes minutes, then it comes from a cache.

    Raises
    ------
    EnvironmentMissing, BuildError
        If the simulation cannot be built (on entering).
    """

    def __init__(
        self,
        config: Config,
        *,
        line: Line | None = None,
        trace: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = config
        self.line = line or Line()
        self.trace = trace
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None
        self._terminal: int | None = None
        self._port = ""

    @property
    def port(self) -> str:
        """Path of the pseudo-terminal."""
        return self._port

    @property
    def pid(self) -> int | None:
        """Process of the simulation, while it runs."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Self:
        executable = build_overlay(self.config, self.line, trace=self.trace is not None, progress=self._progress)
        master, self._terminal = os.openpty()
        try:
            tty.setraw(self._terminal)
            self._port = os.ttyname(self._terminal)
            line = self.line
            command = [str(executable), str(master), str(line.divisor), str(line.clock_hz), str(line.latency_us)]
            if self.trace is not None:
                command.append(str(self.trace))
            self._process = processes.start(command, stdin=subprocess.PIPE, pass_fds=(master,))
        finally:
            os.close(master)
        return self

    def unplug(self) -> None:
        """Pull the cable: the simulation ends at once, and the port hangs up."""
        if self._process is not None:
            processes.end(self._process)
            self._process = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(EXIT_SECONDS)
            finally:
                self.unplug()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
