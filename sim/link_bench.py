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
from reverb_fpga.hw.link import SerialLink, UsbLink
from reverb_fpga.hw.link.receiver import MIN_RING
from reverb_fpga.hw.link.uart import BRIDGE_FILL

from .line import Line
from .verilate import Progress, build_executable

__all__ = ["INPUT_HASH", "INPUT_LENGTH", "INPUT_STRIP", "SUM", "LinkBench", "UsbLinkBench"]

_HARNESSES = Path(__file__).parent / "cpp"
USB_HZ = 48_000_000
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
INPUT_STRIP = 35
"""Written: input bytes after which the core computes before it takes more; 0: it computes when it has an image."""


class _Bench:
    """A harness that speaks the protocol of sim/cpp/link_harness.cpp; simulated time passes only when asked for.

    Attributes
    ----------
    clocks : int
        Time so far.
    clock_hz : int
        Clocks of a second.
    """

    def __init__(self, command: list[str], clock_hz: int) -> None:
        self.clocks = 0
        self.clock_hz = clock_hz
        self._process = processes.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.clocks / self.clock_hz

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


class LinkBench(_Bench):
    """Link over a UART's pins. Deterministic: time depends on nothing but the bytes and the seed.

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
        line = line or Line()
        if fill is None:
            fill = BRIDGE_FILL if line.latency_ms else 0
        link = SerialLink(config, line.divisor, ring=ring, fill=fill)
        executable = build_executable(link, f"link-{config.name}", _HARNESSES / "link_harness.cpp", progress=progress)
        settings = (line.divisor, seed, line.clock_hz, line.latency_us, int(hurry))
        super().__init__([str(executable), *map(str, settings)], line.clock_hz)


class UsbLinkBench(_Bench):
    """The same over a USB's pins, with a full-speed host on the other side that has enumerated the device.

    Parameters
    ----------
    config, seed, hurry, ring, progress
        As of :class:`LinkBench`.
    sync_hz : int
        Clock of the link. Time is counted in clocks of the USB's 48 MHz.
    """

    def __init__(
        self,
        config: Config,
        *,
        sync_hz: int = 50_000_000,
        seed: int = 1,
        hurry: bool = False,
        ring: int = MIN_RING,
        progress: Progress | None = None,
    ) -> None:
        harness = _HARNESSES / "usb_link_harness.cpp"
        executable = build_executable(UsbLink(config, ring=ring), f"usb-link-{config.name}", harness, progress=progress)
        super().__init__([str(executable), str(seed), str(sync_hz), str(int(hurry))], USB_HZ)

    def descriptors(self) -> tuple[bytes, bytes, str, str]:
        """Of the device, of its configuration; manufacturer and product. Empty if it could not be enumerated."""
        self._ask(b"D", 0)
        device, configuration, *strings = (
            self._ask(b"", int.from_bytes(self._ask(b"", 4), "little")) for _ in range(4)
        )
        manufacturer, product = (text[2:].decode("utf-16-le") for text in strings)
        return device, configuration, manufacturer, product
