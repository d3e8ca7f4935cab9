"""Child processes and temporary folders that end with the work that needed them, however that ends.

Every child leads a process group of its own, and the whole group ends with it: yosys under its launcher, the compilers
under make. Nothing else in this project starts processes or makes temporary folders.

A process that is killed (SIGKILL, the kernel out of memory) cannot end its children. A guard does it then: a shell
that is told of every group and waits for the end of its input, which is the end of this process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import interrupts

__all__ = ["end", "run", "running", "scratch", "start"]

_POSIX = os.name == "posix"
_GONE_SECONDS = 2.0
_POLL_SECONDS = 0.01

_live: dict[int, subprocess.Popen[Any]] = {}
_folders: set[Path] = set()


_GUARD = """\
trap '' INT TERM HUP
groups=' '
while read -r what group; do
    case $what in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""
_GUARD_SECONDS = 2.0


class _Guard:
    """Ends the groups that it knows of once this process is gone; started with the first of them, and anew if lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shell: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        with self._lock:
            if not self._tell(f"+ {group}"):
                self._restart()

    def remove(self, group: int) -> None:
        with self._lock:
            self._tell(f"- {group}")

    def close(self) -> None:
        """Let the shell end."""
        with self._lock:
            if self._shell is not None and self._shell.stdin is not None:
                with suppress(OSError):
                    self._shell.stdin.close()
                with suppress(subprocess.TimeoutExpired):
                    self._shell.wait(_GUARD_SECONDS)
            self._shell = None

    def _tell(self, line: str) -> bool:
        if self._shell is None or self._shell.stdin is None:
            return False
        try:
            os.write(self._shell.stdin.fileno(), line.encode() + b"\n")  # so short a line is written whole
        except OSError:
            return False
        return True

    def _restart(self) -> None:
        """A shell in a group of its own, which Ctrl-C does not reach. Its input is not inherited by any child."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.wait()
        nowhere = subprocess.DEVNULL
        self._shell = subprocess.Popen(
            ["sh", "-c", _GUARD], bufsize=0, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, process_group=0
        )
        for group in list(_live):
            self._tell(f"+ {group}")


_guard = _Guard()
atexit.register(_guard.close)


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """Start a child in a group of its own, without standard input unless ``stdin`` says otherwise.

    The caller must :func:`end` it. Prefer :func:`running`, which does.

    Parameters
    ----------
    command : sequence of str
    options : of ``subprocess.Popen``
    """
    options.setdefault("stdin", subprocess.DEVNULL)
    if _POSIX:
        options["process_group"] = 0
    with interrupts.held():
        process = subprocess.Popen(command, **options)
        _live[process.pid] = process
        if _POSIX:
            _guard.add(process.pid)
    return process


def end(process: subprocess.Popen[Any], patience: float = 0.0) -> None:
    """End a child and its whole group; harmless if they have ended.

    Parameters
    ----------
    process : Popen
    patience : float
        Seconds between SIGTERM and SIGKILL; 0 kills at once.
    """
    with interrupts.held():
        if patience and process.poll() is None:
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        _await_group(process)
        if _live.pop(process.pid, None) is not None and _POSIX:
            _guard.remove(process.pid)


@contextmanager
def running(command: Sequence[str | Path], *, patience: float = 0.0, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child for the duration of the block; at its end, by an exception or a signal too, the group is ended."""
    process: subprocess.Popen[Any] | None = None
    with interrupts.unwinding():
        try:
            with interrupts.held():
                process = start(command, **options)
            yield process
        finally:
            if process is not None:
                end(process, patience)


def run(
    command: Sequence[str | Path], *, stdin_text: str | None = None, patience: float = 0.0, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a child to its end, as ``subprocess.run`` does; options are those of ``Popen``."""
    if stdin_text is not None:
        options["stdin"] = subprocess.PIPE
    with running(command, patience=patience, **options) as process:
        out, error = process.communicate(stdin_text)
    return subprocess.CompletedProcess(command, process.returncode, out, error)


@contextmanager
def scratch(prefix: str, directory: Path | None = None) -> Iterator[Path]:
    """A temporary folder for the duration of the block; removed at its end, by an exception or a signal too."""
    path: Path | None = None
    with interrupts.unwinding():
        try:
            with interrupts.held():
                path = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
                _folders.add(path)
            yield path
        finally:
            if path is not None:
                with interrupts.held():
                    shutil.rmtree(path, ignore_errors=True)
                    _folders.discard(path)


def _signal(process: subprocess.Popen[Any], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if not _POSIX:
            process.terminate()
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # it leads no group: start() did not start it, and it would be waited for in vain
            process.send_signal(number)


def _kill(process: subprocess.Popen[Any]) -> None:
    _signal(process, signal.SIGKILL if _POSIX else signal.SIGTERM)


def _await_group(process: subprocess.Popen[Any]) -> None:
    """Until no process of the group can write any more: the folder that they work in is removed next."""
    deadline = time.monotonic() + _GONE_SECONDS
    while _POSIX and time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(_POLL_SECONDS)


def _end_all() -> None:
    """A second signal: no child and no folder stays."""
    for process in list(_live.values()):
        _kill(process)
    for path in list(_folders):
        shutil.rmtree(path, ignore_errors=True)


interrupts.at_force(_end_all)
