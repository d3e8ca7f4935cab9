"""Signals that end a command: SIGINT, SIGTERM and SIGHUP unwind the stack, and none of them gets lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a weakref callback, a finaliser or some
C++ code that exception is dropped, and the command would go on as if nothing had been asked of it. Here the arrival is
noted too: what Python reports as dropped is raised again a moment later, :func:`check` raises it in long loops, and a
second signal ends the process at once.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Terminated", "arrived", "at_force", "check", "held", "unwinding"]

_ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # no SIGHUP on Windows
_REPEAT_SECONDS = 1.0  # a signal may come twice, to a process and to its group: that is one wish, not two
_AGAIN_SECONDS = 0.05  # until a dropped exception is raised again, outside of what dropped it


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived. A KeyboardInterrupt, so that whatever handles Ctrl-C handles these too."""


class _State:
    """What has arrived in the outermost :func:`unwinding` block."""

    def __init__(self) -> None:
        self.active = False
        self.held = 0
        self.forget()

    def forget(self) -> None:
        self.number: int | None = None
        self.since = 0.0
        self.due = False  # to be raised when nothing holds it

    def throw(self) -> None:
        self.due = False
        raise KeyboardInterrupt if self.number == signal.SIGINT else Terminated


_state = _State()
_at_force: list[Callable[[], None]] = []


def at_force(action: Callable[[], None]) -> None:
    """Have ``action`` called before a second signal ends the process; it must not wait for anything."""
    _at_force.append(action)


def arrived() -> int | None:
    """Number of the signal that asked this command to end, or None."""
    return _state.number


def check() -> None:
    """Raise KeyboardInterrupt (or Terminated) if a signal has arrived. For long loops: nothing can swallow it here."""
    if _state.number is not None:
        _state.throw()


@contextmanager
def held() -> Iterator[None]:
    """Signals that arrive within the block are raised at its end: for steps that must not be cut in two."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    if _state.due and not _state.held:
        _state.throw()


@contextmanager
def unwinding() -> Iterator[None]:
    """Within the block the ending signals raise KeyboardInterrupt or :class:`Terminated` in the main thread.

    Nested blocks and other threads change nothing. A signal that is ignored (``nohup``, background jobs) or has a
    handler of its own stays as it is.
    """
    if _state.active or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    ours = [number for number, found in before.items() if found in (signal.SIG_DFL, signal.default_int_handler)]
    hook = sys.unraisablehook
    _state.forget()
    _state.active = True
    for number in ours:
        signal.signal(number, _on_signal)
    sys.unraisablehook = lambda dropped: _on_unraisable(dropped, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in ours:
            signal.signal(number, before[number])
        _state.active = False


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _state.number is None:
        _state.number, _state.since, _state.due = number, time.monotonic(), True
    elif not _state.due and time.monotonic() - _state.since >= _REPEAT_SECONDS:
        _force(_state.number)
    if _state.due and not _state.held:
        _state.throw()


def _force(number: int) -> None:
    """End the process at once: it did not end when it was asked to."""
    for action in _at_force:
        action()
    os._exit(128 + number)


def _on_unraisable(dropped: Any, otherwise: Callable[[Any], object]) -> None:
    """Called by Python where an exception can go nowhere."""
    if _state.number is None or not issubclass(dropped.exc_type, KeyboardInterrupt):
        otherwise(dropped)
        return
    timer = threading.Timer(_AGAIN_SECONDS, _again, (_state.number,))
    timer.daemon = True
    timer.start()


def _again(number: int) -> None:
    if _state.active:
        _state.due = True
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, number)  # ends a wait of the main thread, too
        else:
            _thread.interrupt_main(signal.Signals(number))
