"""Images as they appear in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from reverb_fpga.hw.errors import InputError, printable

from . import images

__all__ = ["Watch"]

_SETTLED_SECONDS = 0.3  # without a change, then a file is taken to be whole


class Watch:
    """The image files of a folder that are new, or were changed, since it was last asked.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        If it is no folder, or goes away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, tuple[int, int]] = {}
        self._seen: dict[Path, tuple[int, int, float]] = {}
        if not folder.is_dir():
            raise InputError(f"{printable(str(folder))}: no such folder")

    def appeared(self) -> Iterator[Path]:
        """Those that have been whole for a moment, in the order of their names. Sub-folders and hidden files are not
        looked at."""
        try:
            found = sorted(self.folder.iterdir())
        except OSError as error:
            raise InputError(f"{printable(str(self.folder))}: {error.strerror}") from None
        for path in found:
            if path.name.startswith(".") or path.suffix.lower() not in images.SUFFIXES:
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # gone again
            state = status.st_size, status.st_mtime_ns
            if self._known.get(path) == state:
                continue
            *before, since = self._seen.get(path, (-1, -1, 0.0))
            if tuple(before) != state:
                self._seen[path] = (*state, time.monotonic())
            elif time.monotonic() - since >= _SETTLED_SECONDS:
                self._known[path] = state
                del self._seen[path]
                yield path
