"""What building a simulator takes beside its tools: where to build, logs that are kept, a cache entry in one step."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from reverb_fpga.hw import processes
from reverb_fpga.hw.cache import cache_directory
from reverb_fpga.hw.errors import BuildError, EnvironmentMissing

__all__ = ["failed", "is_plain", "kept_log", "publish", "run_tool", "work_directory"]

_PLAIN = re.compile(r"[\w./+@,=~-]*")
_LOGS_KEPT = 20
# A line that tells why, best first: compilers and make name a file and a line, the tools that call them only a failure.
_CAUSES = (
    re.compile(r"No space left on device|Cannot allocate memory|Killed|internal compiler error"),
    re.compile(r": (fatal )?error: |\*\*\* .*(Unsupported|No rule|Permission)|undefined reference"),
    re.compile(r"^%Error(?!: (Command Failed|'make))"),
    re.compile(r"error", re.IGNORECASE),
)


def is_plain(path: Path) -> bool:
    """Whether make can work with a path: it splits names at blanks and reads ``$`` and ``#`` in its own way."""
    return _PLAIN.fullmatch(str(path)) is not None


@contextmanager
def work_directory(name: str, home: Path) -> Iterator[Path]:
    """A folder to build in for the duration of the block: in ``home``, or elsewhere if that is no name for make.

    Raises
    ------
    EnvironmentMissing
        If there is no place whose name make can work with; before anything is built.
    """
    home.mkdir(parents=True, exist_ok=True)
    places = [home, *map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))]
    usable = [place for place in places if is_plain(place) and os.access(place, os.W_OK)]
    if not usable:
        raise EnvironmentMissing(
            f"make cannot build in {home} because of the blanks in its name; set XDG_CACHE_HOME or TMPDIR to a folder "
            "without any"
        )
    with processes.scratch(f".{name}-", usable[0]) as scratch:
        work = scratch / "build"
        work.mkdir()
        yield work


def publish(work: Path, entry: Path, proof: str) -> None:
    """Make ``work`` the cache entry ``entry``, whole or not at all; ``proof`` is the file that every entry has."""
    with processes.scratch(f".{entry.name}-", entry.parent) as scratch:
        staged = scratch / "entry"
        shutil.move(work, staged)  # a rename, unless it was built elsewhere
        try:
            staged.rename(entry)
        except OSError:
            if not (entry / proof).exists():  # lost a race against an equal build: fine
                raise


def run_tool(command: Sequence[str], directory: Path, env: Mapping[str, str] | None, tool: str) -> None:
    """Run a build tool in ``directory``; raises BuildError with the cause and the place of its log if it fails."""
    log = directory / f"{tool}.log"
    with log.open("wb") as output:
        code = processes.run(command, cwd=directory, env=env, stdout=output, stderr=output).returncode
    if code:
        raise failed(tool, log, f"exit code {code}")


def failed(tool: str, log: Path, otherwise: str) -> BuildError:
    """The error of a tool whose log lies in a folder that is about to be removed; the log is kept."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = (line for pattern in _CAUSES for line in lines if pattern.search(line))
    cause = next(found, lines[-1] if lines else otherwise)
    return BuildError(f"{tool} failed: {cause}{kept_log(tool, text)}")


def kept_log(tool: str, text: str) -> str:
    """Keep a log in the cache, the newest few of all; `` (log: PATH)``, or nothing where it cannot be kept."""
    folder = cache_directory() / "logs"
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{tool}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for old in sorted(folder.glob("*.log"))[:-_LOGS_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return ""
    return f" (log: {path})"
