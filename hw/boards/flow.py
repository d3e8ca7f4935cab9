"""From a board and a core to a bitstream."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .. import copies, interrupts, memory, processes
from ..config import Config
from ..errors import InputError
from ..lanes import LaneArray
from ..neuron import NeuronUnit
from . import logs, netlist
from .cluster import on_cluster
from .logs import BuildPhase
from .report import REPORT_NAME, BuildReport, read_report, write_report
from .seeds import Attempt, Launch, SeedTrials, here
from .sites import Sites, sites_of
from .table import Board, LinkKind, lut_count
from .tools import Follow, Toolchain, find_toolchain, run_tool
from .wrapper import BoardTop, platform_for

__all__ = ["BuildOptions", "Design", "build_bitstream"]

Progress = Callable[[BuildPhase], None]

PRODUCTS = ("top.bit", "top.config", REPORT_NAME)
_LOGS = ("yosys.log", "nextpnr.log")
_SPARE_SEEDS = 2  # where the one asked for cannot be routed: another placement often can
_FLATTEN = "setattr -mod -unset keep_hierarchy *\nflatten"  # once nothing merges any more; nets are whole then
_DECIDING = ("dispatcher", "walker", "sequencer", "decoder", "link")
_DECIDING_TOO = ("emitter", "encoder")  # yosys 0.70 fails an assertion where one of these is kept (ABC_OPS_REINTEGRATE)
_KEEPS_ALL = (0, 66)  # the newest yosys that was seen not to
_ADDRESS = re.compile(r"(\bUSB\w+?Endpoint)_(\d{6,})")
_UTILISATION = {"lut4": "TRELLIS_COMB", "ff": "TRELLIS_FF", "bram": "DP16KD", "dsp": "MULT18X18D"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build.

    Parameters
    ----------
    clock_mhz : float
    divisor, baud : int
        UART; 0 where there is none.
    seed : int
        First seed of the placer.
    tries : int
        Seeds that are tried; the fastest is kept. 1: and up to two more where it cannot be routed.
    jobs : int
        Seeds that are tried side by side. What comes out does not depend on it.
    cluster : str or None
        Where they are tried: address of a dask scheduler, "local" for one on this machine, None without dask.
    tools : "pip" or "native"
        Tools from pip's packages, or from the PATH.
    synth : tuple of str
        Extra options of ``synth_ecp5``.
    """

    clock_mhz: float
    divisor: int
    baud: int
    seed: int = 1
    tries: int = 1
    jobs: int = 1
    cluster: str | None = None
    tools: str = "pip"
    synth: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """What to build.

    Parameters
    ----------
    board : Board
    config : Config
    core : component, see :class:`~reverb_fpga.hw.boards.wrapper.BoardTop`
    link : LinkKind
    """

    board: Board
    config: Config
    core: Any
    link: LinkKind = LinkKind.UART


@dataclasses.dataclass(frozen=True)
class _Plan:
    board: Board
    config: Config
    options: BuildOptions
    platform: Any
    files: dict[str, str | bytes]
    toolchain: Toolchain

    @property
    def sites(self) -> Sites:
        """Of its block RAMs."""
        return sites_of(self.board.name)

    @property
    def digest(self) -> str:
        """Design, constraints, options and tool versions."""
        hasher = hashlib.sha256()
        for name in ("top.il", "top.ys", "top.lpf"):
            content = self.files[name]
            hasher.update(content.encode() if isinstance(content, str) else content)
        options = dataclasses.asdict(self.options) | {"jobs": None, "cluster": None}
        versions = dict(self.toolchain.versions)
        facts = [self.board.name, self.config.digest, options, versions, netlist.VERSION, self.sites]
        hasher.update(json.dumps(facts, sort_keys=True).encode())
        return hasher.hexdigest()


def build_bitstream(
    design: Design, options: BuildOptions, output: Path, progress: Progress, cache: Path | None = None
) -> BuildReport:
    """Make ``output/top.bit``, ``top.config`` and ``report.json``.

    All or nothing: when it fails, ``output`` holds the tools' logs and no product.

    Parameters
    ----------
    progress : called with every step the tools report
    cache : directory of earlier builds by digest, or None for no cache

    Raises
    ------
    BuildError
        If a tool fails or the timing is not met.
    EnvironmentMissing
        If the tools are not installed.
    """
    toolchain = find_toolchain(options.tools)
    progress(BuildPhase("elaborating the gateware"))
    plan = _plan(design, options, toolchain)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a directory ({error.strerror})") from None
    if cache is not None and _restore(cache / plan.digest, output):
        progress(BuildPhase(logs.FROM_CACHE, str(cache / plan.digest)))
        return read_report(output)
    for product in PRODUCTS:
        (output / product).unlink(missing_ok=True)
    with _work_directory(output) as work:
        report = _run(plan, work, progress)
        write_report(work, report)
        _move(work, output)
    if cache is not None:
        _store(output, cache / plan.digest)
    return report


def _plan(design: Design, options: BuildOptions, toolchain: Toolchain) -> _Plan:
    platform = platform_for(design.board)
    plan = platform.build(
        BoardTop(design.board, design.core, options.clock_mhz, design.link),
        do_build=False,
        script_after_read=_kept_modules(design.config, toolchain) + copies.SYNTHESIS_SCRIPT + memory.SYNTHESIS_SCRIPT,
        # abc9 breaks the ULX3S-85F's netlist: yosys 0.66 leaves a net with two drivers, 0.70 fails an assertion.
        # A function of six inputs is four LUT4 behind multiplexers, less without: a tenth of the LUT4 of a ULX3S-12F.
        synth_opts=["-noabc9", "-nowidelut", *options.synth],
        script_after_synth=f"tee -q -o bram.txt select -list t:DP16KD\n{_FLATTEN}",
    )
    files = dict(plan.files)
    files["top.il"] = _stable_names(str(files["top.il"]))
    return _Plan(design.board, design.config, options, platform, files, toolchain)


def _stable_names(netlist: str) -> str:
    """LUNA names modules by addresses of this process: the same design would be another one each time."""
    numbers: dict[str, int] = {}
    return _ADDRESS.sub(lambda found: f"{found[1]}_{numbers.setdefault(found[2], len(numbers) + 1)}", netlist)


def _kept_modules(config: Config, toolchain: Toolchain) -> str:
    """Modules that stay whole through synthesis: only themselves, not what is inside them.

    Some have registers that are copies made for the fan-out; flattened, yosys would merge them into one set again. In
    others much is decided in one cycle: yosys maps a module for depth only as far as its deepest logic asks for it.
    """
    names = [*LaneArray.module_names(config), *NeuronUnit.module_names(config), *_DECIDING]
    version = re.search(r"(\d+)\.(\d+)", dict(toolchain.versions).get("yosys", ""))
    if version is not None and (int(version[1]), int(version[2])) <= _KEEPS_ALL:
        names += _DECIDING_TOO
    return "".join(f"setattr -mod -set keep_hierarchy 1 *.{name}\n" for name in names)


@contextmanager
def _work_directory(output: Path) -> Iterator[Path]:
    """A directory beside the products, so that they can be moved in one step; keeps only its logs."""
    with processes.scratch(".build-", output) as work:
        try:
            yield work
        finally:
            for log in _LOGS:
                if (work / log).exists():
                    shutil.copyfile(work / log, output / log)


def _run(plan: _Plan, work: Path, progress: Progress) -> BuildReport:
    started = time.monotonic()
    for name in ("top.il", "top.ys", "top.lpf"):
        content = plan.files[name]
        (work / name).write_bytes(content.encode() if isinstance(content, str) else content)
    progress(BuildPhase("synthesis"))
    yosys = ["-q", "-l", "yosys.log", "top.ys"]
    run_tool(plan.toolchain, "yosys", yosys, "yosys.log", work, _follower(logs.yosys_phase, progress))
    progress(BuildPhase("synthesis", "output registers of block RAMs"))
    if not netlist.improve(work / "top.json", plan.sites, lut_count(plan.board.device)).sited:
        progress(BuildPhase("synthesis", "the sites of block RAM were found for another netlist and are left alone"))
    best = _place_and_route(plan, work, progress)
    progress(BuildPhase("packing the bitstream"))
    ecppack = ["--compress", "--input", "top.config", "--bit", "top.bit"]
    run_tool(plan.toolchain, "ecppack", ecppack, "ecppack.log", work, lambda _: None)
    return _report(plan, work, best, time.monotonic() - started)


def _place_and_route(plan: _Plan, work: Path, progress: Progress) -> Attempt:
    """The best seed, its files in ``work``; and the logs of all others where none is good."""
    options = plan.options
    try:
        with _launch(plan, work) as launch:
            trials = SeedTrials(launch, _nextpnr_arguments(plan), options.clock_mhz, work, progress)
            after = options.seed + options.tries
            spare = range(after, after + _SPARE_SEEDS) if options.tries == 1 else ()
            best = trials.run(range(options.seed, after), options.jobs, spare)
    except BaseException:
        for log in sorted(work.glob("seed-*/nextpnr.log"))[:1]:
            shutil.copyfile(log, work / "nextpnr.log")
        raise
    for name in ("top.config", "timing.json", "nextpnr.log"):
        shutil.move(best.directory / name, work / name)
    return best


def _launch(plan: _Plan, work: Path) -> AbstractContextManager[Launch]:
    options = plan.options
    if options.cluster is None:
        return nullcontext(here(plan.toolchain))
    return on_cluster(options.cluster, options.jobs, options.tools, plan.toolchain, work)


def _nextpnr_arguments(plan: _Plan) -> list[str]:
    platform = plan.platform
    return [
        "--quiet", "--log", "nextpnr.log", "--report", "timing.json",
        platform._nextpnr_device_options[platform.device],
        "--package", platform._nextpnr_package_options[platform.package].upper(),
        "--speed", platform.speed,
        "--json", "top.json", "--lpf", "top.lpf", "--textcfg", "top.config",
        "--placer", "static", "--router", "router2", "--tmg-ripup", "--freq", f"{plan.options.clock_mhz:g}",
    ]  # fmt: skip


def _report(plan: _Plan, work: Path, best: Attempt, seconds: float) -> BuildReport:
    timing = json.loads((work / "timing.json").read_text())
    used = {name: timing["utilization"].get(cell, {"used": 0, "available": 0}) for name, cell in _UTILISATION.items()}
    log = (work / "nextpnr.log").read_text(errors="replace").splitlines()
    return BuildReport(
        board=plan.board.name,
        config=plan.config.name,
        config_digest=f"{plan.config.digest:016x}",
        additions_per_cycle=plan.config.additions_per_cycle,
        available={name: int(entry["available"]) for name, entry in used.items()},
        clock_mhz=plan.options.clock_mhz,
        fmax_mhz=round(best.fmax_mhz or 0.0, 2),
        baud=plan.options.baud,
        divisor=plan.options.divisor,
        seconds=round(seconds, 1),
        seed=best.seed,
        bram_by_use=logs.bram_by_use((work / "bram.txt").read_text().splitlines()),
        critical_path=logs.critical_path(log),
        tools=dict(plan.toolchain.versions),
        design_digest=plan.digest,
        lut4=int(used["lut4"]["used"]),
        ff=int(used["ff"]["used"]),
        bram=int(used["bram"]["used"]),
        dsp=int(used["dsp"]["used"]),
    )


def _follower(phase: Callable[[str], BuildPhase | None], progress: Progress) -> Follow:
    def follow(line: str) -> None:
        if (found := phase(line)) is not None:
            progress(found)

    return follow


def _restore(entry: Path, output: Path) -> bool:
    """Copy a complete cache entry of this version to ``output``, whole or not at all; False if there is none."""
    if not all((entry / product).is_file() for product in PRODUCTS):
        return False
    try:
        read_report(entry)
    except InputError:
        return False
    with processes.scratch(".cached-", output) as copies:
        for product in PRODUCTS:
            shutil.copyfile(entry / product, copies / product)
        _move(copies, output)
    return True


def _move(folder: Path, output: Path) -> None:
    """Move the products to where they belong, in steps that nothing interrupts."""
    with interrupts.held():
        for product in PRODUCTS:
            os.replace(folder / product, output / product)


def _store(output: Path, entry: Path) -> None:
    """Add the products to the cache, whole or not at all. A cache that cannot be written is no reason to fail."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with processes.scratch(".new-", entry.parent) as folder:
            staging = folder / "entry"
            staging.mkdir()
            for product in PRODUCTS:
                shutil.copyfile(output / product, staging / product)
            shutil.rmtree(entry, ignore_errors=True)
            staging.rename(entry)
    except OSError:
        return
