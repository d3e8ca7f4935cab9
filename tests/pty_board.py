"""A board in Python behind a pseudo-terminal: a rate, and whatever manners a test wants."""

from __future__ import annotations

import array
import fcntl
import os
import random
import select
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fake_overlay import FakeOverlay

__all__ = ["PtyBoard", "Twist"]

_TCGETS2 = 0x802C542A
Twist = Callable[[bytes], bytes]
"""What becomes of what the device would send."""


class PtyBoard:
    """Runs between ``__enter__`` and ``__exit__``; at another rate than its own it hears and says garbage.

    Parameters
    ----------
    overlay : FakeOverlay
    baud : int
        0: any.
    twist : callable, optional
    babble : bytes
        Sent all the time, whether anybody asked or not; nothing else is.
    """

    def __init__(self, overlay: FakeOverlay, *, baud: int = 0, twist: Twist | None = None, babble: bytes = b"") -> None:
        self.overlay, self.baud, self.babble = overlay, baud, babble
        self.twist: Twist = twist or (lambda data: data)
        self._stop = threading.Event()
        self._rng = random.Random(1)

    def __enter__(self) -> Self:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)
        for end in (self._master, self._slave):
            os.close(end)

    def _speed(self) -> int:
        settings = array.array("I", [0] * 11)
        fcntl.ioctl(self._slave, _TCGETS2, settings)
        return settings[10]

    def _serve(self) -> None:
        while not self._stop.is_set():
            ready = bool(select.select([self._master], [], [], 0.001 if self.babble else 0.01)[0])
            try:
                data = os.read(self._master, 65536) if ready else b""
            except OSError:
                continue
            if self.babble:
                self._send(self.babble)
            elif data and self.baud and self._speed() != self.baud:
                self._send(self._rng.randbytes(min(len(data), 8)))
            elif data:
                self.overlay.write(data)
                self._send(self.twist(self.overlay.read(0.0)))

    def _send(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._stop.is_set():
            try:
                at += os.write(self._master, data[at : at + 1024])
            except BlockingIOError:
                if self.babble:
                    return
                self._stop.wait(0.001)
