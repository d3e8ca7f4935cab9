"""Files of strangers, opened only where they are files; files of ours, written whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from reverb_fpga.hw.errors import InputError

__all__ = ["FolderLock", "check_output", "open_regular", "read_regular", "write_whole"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Windows lacks the first two; a FIFO that takes a file's place after the check must not block either
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def open_regular(path: Path, limit: int) -> Iterator[BinaryIO]:
    """A file of at most `limit` bytes, for reading.

    Raises
    ------
    InputError
        It does not exist, cannot be opened, is larger, or is no regular file: a FIFO would block for ever, a device
        may do anything when it is opened.
    """
    try:
        _require_regular(path, os.stat(path).st_mode, "read")
        descriptor = os.open(path, _READ)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        _require_regular(path, status.st_mode, "read")
        if status.st_size > limit:
            raise InputError(f"{path}: {status.st_size:,} bytes; of such a file at most {limit:,} are read")
        yield file


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a file; InputError as :func:`open_regular`."""
    with open_regular(path, limit) as file:
        try:
            return file.read(limit + 1)[:limit]
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def check_output(path: Path) -> None:
    """Whether :func:`write_whole` may write `path`: ask before the work.

    Raises
    ------
    InputError
        Its folder does not exist or cannot be written to, or something other than a regular file is there.
    """
    if not path.name:
        raise InputError(f"{path}: cannot be replaced (a folder, not a regular file)")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({_reason(error)})") from None
    _require_regular(path, mode, "replaced")
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written (no folder {path.parent})")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written (no permission in {path.parent})")


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and rename it into place; an interruption leaves what was there before.

    Raises
    ------
    InputError
        As :func:`check_output`, or the disk is full.
    """
    check_output(path)
    # not the file's own name, which may already be as long as names can be; new, so that no link is followed
    temporary = path.with_name(f".{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({_reason(error)})") from None
    finally:
        temporary.unlink(missing_ok=True)


class FolderLock:
    """The claim of this process on a folder, until :meth:`release`, the end of the object or of the process.

    Where the file system has no locks (some network folders, Windows) nothing is claimed.

    Raises
    ------
    InputError
        Another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        if sys.platform == "win32":
            return
        import fcntl

        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # the folder itself: nothing is left in it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(f"{path}: another run is writing there; wait for it, or choose another folder") from None
        except OSError:
            os.close(descriptor)
        else:
            self._descriptor = descriptor

    def release(self) -> None:
        """Give the folder back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    __del__ = release


def _require_regular(path: Path, mode: int, verb: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise InputError(f"{path}: cannot be {verb} ({kind}, not a regular file)")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
