"""``reverb-fpga build``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from reverb_fpga.hw.boards.logs import FROM_CACHE, BuildPhase
from reverb_fpga.hw.boards.own import BOARD_HELP, find_board
from reverb_fpga.hw.boards.stages import StageClock, duration, expected_times, keep_times
from reverb_fpga.hw.boards.table import Board, Flow, LinkKind, link_of, uart_divisor
from reverb_fpga.hw.boards.tools import SOURCES
from reverb_fpga.hw.cache import cache_directory
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.errors import EnvironmentMissing, InputError, Interrupted
from reverb_fpga.models.files import FolderLock

from .. import progress
from .report import print_report

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga build --board ulx3s-85f -o out/85f
  reverb-fpga build --board ulx3s-12f -o out/12f --clock 60 --tries 8 --jobs 4
  reverb-fpga build --board ulx3s-85f-row -o out/row --clock 60 --tools native     three times the array
  reverb-fpga build --board ulx3s-85f -o out/85f --tries 16 --jobs 16 --cluster tcp://10.0.0.5:8786
  reverb-fpga build --board my-board.toml -o out/mine
  reverb-fpga build --board arty-a7-35t -o out/arty     exports a Vivado project, builds nothing
"""
_PLAIN_SECONDS = 15.0  # without a terminal: a line this often, so that a log shows life


@click.command(name="build", epilog=_EXAMPLES)
@click.option("--board", "board_name", required=True, metavar="NAME|FILE", help=BOARD_HELP)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--clock", type=click.FloatRange(min=1, max=400), metavar="MHZ", help="Clock of the overlay.")
@click.option(
    "--baud", type=click.IntRange(1200, 12_000_000), help="UART rate. Default: the fastest the clock divides into."
)
@click.option(
    "--link",
    type=click.Choice([kind.value for kind in LinkKind]),
    help="What carries images and results: a UART, or USB itself. Default: the board's usual one.",
)
@click.option("--seed", type=click.IntRange(0), help="First seed of the placer. Default: the board's.")
@click.option(
    "--tries",
    type=click.IntRange(1, 100),
    default=1,
    help="Seeds tried; the fastest is kept. Default: one, and up to two more where it cannot be routed.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Seeds tried side by side, 1.5 to 2.1 GB each.",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Try the seeds on the machines of a dask scheduler, tcp://HOST:PORT; local: on --jobs processes here.",
)
@click.option(
    "--tools",
    type=click.Choice(SOURCES),
    default="pip",
    show_default=True,
    help="Tools from pip, or yosys, nextpnr-ecp5 and ecppack on the PATH.",
)
@click.option("--no-cache", is_flag=True, help="Build even if this very design was built before.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output: what report.json has.")
@click.option("--no-progress", is_flag=True, help="No progress on standard error.")
def command(board_name: str, output: Path, as_json: bool, no_progress: bool, **options: Any) -> None:
    """Make a bitstream for a board with yosys, nextpnr and ecppack.

    DIR gets top.bit, top.config, report.json and the tools' logs. A bitstream is written only if its timing is met. For
    boards whose vendor tools do not run here, the project is exported: Verilog, constraints and script.
    """
    target = find_board(board_name)
    clock_mhz = options["clock"] if options["clock"] is not None else target.clock_mhz
    link = link_of(target, options["link"])
    divisor, baud = uart_divisor(clock_mhz, options["baud"]) if link is LinkKind.UART else (0, 0)
    if link is not LinkKind.UART and options["baud"] is not None:
        raise InputError("--baud is of the UART; leave it out with --link usb")
    config = preset(target.config)
    core = _core(target, config, divisor)
    click.get_current_context().with_resource(_claimed(output))
    if not target.builds_here:
        _export(target, core, clock_mhz, output, as_json)
        return
    from reverb_fpga.hw.boards.flow import BuildOptions, Design, build_bitstream

    tried = {name: options[name] for name in ("tries", "jobs", "cluster", "tools")}
    seed = target.seed if options["seed"] is None else options["seed"]
    chosen = BuildOptions(clock_mhz=clock_mhz, divisor=divisor, baud=baud, seed=seed, **tried)
    cache = None if options["no_cache"] else cache_directory() / "bitstreams"
    times = cache_directory() / "build-times"
    clock = StageClock(expected_times(times, target.name))
    with progress.status_line(lambda: _left(clock), enabled=not no_progress) as line:
        show = _Show(clock, line, quiet=no_progress)
        try:
            report = build_bitstream(Design(target, config, core, link), chosen, output, show, cache)
        except KeyboardInterrupt:
            raise Interrupted(_stopped(clock, output)) from None
    if not show.cached:
        keep_times(times, target.name, clock.finish())
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report) | {"bitstream": str(output / "top.bit")}))
        return
    print_report(report)
    click.echo(f"bitstream: {output / 'top.bit'}")
    if target.wiring:
        click.echo(f"{target.name}: {target.wiring}")


class _Show:
    """Shows where a build is: one line on a terminal, a line every few seconds elsewhere."""

    def __init__(self, clock: StageClock, line: Progress | None, *, quiet: bool) -> None:
        self.cached = False
        self._clock = clock
        self._line = line
        self._quiet = quiet
        self._printed = (0.0, "")
        self._task = line.add_task(clock.describe(), total=None) if line is not None else None

    def __call__(self, phase: BuildPhase) -> None:
        self._clock.follow(phase)
        self.cached = self.cached or phase.step == FROM_CACHE
        detail = f"{phase.step}: {phase.detail}" if phase.detail else phase.step
        text = detail if self.cached else f"{self._clock.describe()}: {phase.detail or phase.step}"
        if self._line is not None and self._task is not None:
            self._line.update(self._task, description=text)
        elif not self._quiet:
            self._plain(text if self.cached else f"{self._clock.describe()}: {detail}", self._clock.stage)

    def _plain(self, text: str, stage: str) -> None:
        elapsed = self._clock.elapsed
        if stage != self._printed[1] or elapsed - self._printed[0] >= _PLAIN_SECONDS or self.cached:
            self._printed = (elapsed, stage)
            left = _left(self._clock)
            click.echo(f"[{elapsed:5.0f} s] {text}{', ' if left else ''}{left}", err=True)


def _left(clock: StageClock) -> str:
    return "" if clock.left is None else f"about {duration(clock.left)} left"


def _stopped(clock: StageClock, output: Path) -> str:
    """What a stop leaves: what is there, and what would have been left to do."""
    left = "" if clock.left is None else f" with about {duration(clock.left)} left"
    return (
        f"stopped in {clock.stage} after {duration(clock.elapsed)}{left}; {output} holds the tools' logs and no "
        "bitstream; the next build begins anew"
    )


def _claimed(output: Path) -> FolderLock:
    """The folder, made where missing, for this build alone: products of two would be mixed."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a directory ({error.strerror})") from None
    return FolderLock(output)


def _core(target: Board, config: Config, divisor: int) -> Any:
    """What goes on the board: with a UART of that divisor, or (0) for a USB."""
    try:
        from reverb_fpga.hw.link.uart import BRIDGE_FILL
        from reverb_fpga.hw.top import Overlay, Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        raise EnvironmentMissing(f"not installed: {error.name}; run: pip install 'reverb-fpga[hw]'") from None
    platform: Any = "ecp5" if target.flow is Flow.TRELLIS else "generic"
    if divisor == 0:
        return Overlay(config, platform, target.ring)
    return Top(config, divisor, platform, ring=target.ring, fill=BRIDGE_FILL)


def _export(target: Board, core: Any, clock: float, output: Path, as_json: bool) -> None:
    from reverb_fpga.hw.boards.export import export_project

    files = export_project(target, core, clock, output)
    if as_json:
        click.echo(json.dumps({"board": target.name, "bitstream": None, "files": [str(file) for file in files]}))
        return
    for file in files:
        click.echo(file)
    click.echo(
        f"Nothing was built: {target.name} needs Vivado. Run build_top.sh in {output} where Vivado is installed."
    )
