"""The link's gateware in a process of its own, a behavioural core behind it, and a clock that runs when asked to."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.hw.link import Link

from .verilate import Progress, build_executable

__all__ = ["INPUT_HASH", "INPUT_LENGTH", "SUM", "LinkBench"]

HARNESS = Path(__file__).parent / "cpp" / "link_harness.cpp"
HEAD = struct.Struct("<II")

# Registers (region CSR) that only this bench's core has: witnesses of what was executed, and how often.
INPUT_LENGTH = 32
"""Written: input bytes until state DONE."""
INPUT_HASH = 33
"""Read: FNV-1a of the input bytes since the last start."""
SUM = 34
"""A write adds to it: a write that is executed twice shows."""


class LinkBench:
    """Link over its pins. Deterministic: time is counted in clocks and depends on nothing but the bytes and the seed.

    The core behind it has memories of 256 words per region, states IDLE, INPUT and DONE, and takes a random number of
    clocks for everything.

    Parameters
    ----------
    config : Config
    divisor : int
        Clocks per bit.
    seed : int
    progress : callable, optional
        Told what is being built.
    """

    def __init__(self, config: Config, *, divisor: int = 4, seed: int = 1, progress: Progress | None = None) -> None:
        self.clocks = 0
        executable = build_executable(Link(config, divisor), f"link-{config.name}", HARNESS, progress=progress)
        self._process = subprocess.Popen(
            [str(executable), str(divisor), str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def exchange(self, data: bytes, clocks: int) -> bytes:
        """Send ``data``; return what the device sends until it is quiet again, or until ``clocks`` have passed.

        Raises
        ------
        DeviceError
            If the simulation has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(HEAD.pack(clocks, len(data)) + data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DeviceError("the simulated link has ended") from None
        head = self._process.stdout.read(HEAD.size)
        if len(head) != HEAD.size:
            raise DeviceError("the simulated link has ended")
        passed, size = HEAD.unpack(head)
        self.clocks += passed
        return self._process.stdout.read(size)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
