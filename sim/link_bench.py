"""The link's gateware in a process of its own, a behavioural core behind it, and a clock that runs when asked to."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from reverb_fpga.hw import processes
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import State
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.hw.link import SerialLink
from reverb_fpga.hw.link.receiver import MIN_RING
from reverb_fpga.hw.link.uart import BRIDGE_FILL

from .line import Line
from .verilate import Progress, build_executable

__all__ = ["INPUT_HASH", "INPUT_LENGTH", "SUM", "LinkBench"]

HARNESS = Path(__file__).parent / "cpp" / "link_harness.cpp"
_SEND = struct.Struct("<cQI")
_RECEIVED = struct.Struct("<QI")
_STATES = struct.Struct("<8Q")

# Registers (region CSR) that only this bench's core has: witnesses of what was executed, and how often.
INPUT_LENGTH = 32
"""Written: input bytes of an image."""
INPUT_HASH = 33
"""Read: FNV-1a of the input bytes since the last start. Logit k of an image is its hash plus k."""
SUM = 34
"""A write adds to it: a write that is executed twice shows."""


class LinkBench:
    """Link over its pins. Deterministic: time is counted in clocks and depends on nothing but the bytes and the seed.

    The core behind it has memories of 256 words per region, the sequencer's states, and logits that are a hash of the
    input bytes. It takes a random number of clocks for everything, or, in a hurry, as few as the real one.

    Parameters
    ----------
    config : Config
    line : Line
    seed : int
    hurry : bool
    ring : int
        See :class:`~reverb_fpga.hw.link.Link`.
    fill : int, optional
        See :class:`~reverb_fpga.hw.link.UartPhy`; by default that of a board where there is a bridge, otherwise 0.
    progress : callable, optional
        Told what is being built.
    """

    def __init__(
        self,
        config: Config,
        line: Line | None = None,
        *,
        seed: int = 1,
        hurry: bool = False,
        ring: int = MIN_RING,
        fill: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.clocks = 0
        self.line = line or Line()
        if fill is None:
            fill = BRIDGE_FILL if self.line.latency_ms else 0
        link = SerialLink(config, self.line.divisor, ring=ring, fill=fill)
        executable = build_executable(link, f"link-{config.name}", HARNESS, progress=progress)
        settings = (self.line.divisor, seed, self.line.clock_hz, self.line.latency_us, int(hurry))
        self._process = processes.start(
            [str(executable), *map(str, settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.clocks / self.line.clock_hz

    def exchange(self, data: bytes, clocks: int) -> bytes:
        """Send ``data``; what has reached the host when something has, or nothing after so many clocks.

        Raises
        ------
        DeviceError
            If the simulation has ended.
        """
        passed, size = _RECEIVED.unpack(self._ask(_SEND.pack(b"X", clocks, len(data)) + data, _RECEIVED.size))
        self.clocks += passed
        return self._ask(b"", size)

    def power_cycle(self) -> None:
        """Off and on again: the device has forgotten everything, and what was on its way is lost."""
        self._ask(b"P", 0)

    def replug(self) -> None:
        """The cable was out for a moment: what was on its way is lost."""
        self._ask(b"U", 0)

    def set_compute(self, clocks: int) -> None:
        """Clocks that an image computes for from now on."""
        self._ask(struct.pack("<cI", b"C", clocks), 0)

    def state_clocks(self) -> dict[State, int]:
        """Clocks that the core has spent in each state since the last call."""
        counts = _STATES.unpack(self._ask(b"S", _STATES.size))
        return {state: counts[state] for state in State}

    def _ask(self, request: bytes, size: int) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DeviceError("the simulated link has ended") from None
        answer = self._process.stdout.read(size)
        if len(answer) != size:
            raise DeviceError("the simulated link has ended")
        return answer

    def close(self) -> None:
        """End the process."""
        processes.end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
