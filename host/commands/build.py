"""``reverb-fpga build``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from reverb_fpga.hw.boards.logs import BuildPhase
from reverb_fpga.hw.boards.table import BOARDS, Board, Flow, board, uart_divisor
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.errors import EnvironmentMissing

from .. import progress
from .report import print_report

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga build --board ulx3s-85f -o build/85f
  reverb-fpga build --board ulx3s-25f -o build/25f --clock 60 --seed 3 --tries 4
  reverb-fpga build --board arty-a7-35t -o build/arty     exports a Vivado project, builds nothing
"""
_PLAIN_SECONDS = 15.0  # without a terminal: a line this often, so that a log shows life


@click.command(name="build", epilog=_EXAMPLES)
@click.option("--board", "board_name", required=True, metavar="NAME", help=f"One of: {', '.join(BOARDS)}.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--clock", type=click.FloatRange(min=1, max=400), metavar="MHZ", help="Clock of the overlay.")
@click.option(
    "--baud", type=click.IntRange(1200, 12_000_000), help="UART rate. Default: the fastest the clock divides into."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="First seed of the placer.")
@click.option(
    "--tries", type=click.IntRange(1, 100), default=1, show_default=True, help="Seeds tried until timing is met."
)
@click.option("--no-cache", is_flag=True, help="Build even if this very design was built before.")
@click.option("--no-progress", is_flag=True, help="No progress on standard error.")
def command(board_name: str, output: Path, no_progress: bool, **options: Any) -> None:
    """Make a bitstream for a board with yosys, nextpnr and ecppack from pip.

    DIR gets top.bit, top.config, report.json and the tools' logs. A bitstream is written only if its timing is met. For
    boards whose vendor tools do not run here, the project is exported: Verilog, constraints and script.
    """
    target = board(board_name)
    clock = options["clock"] if options["clock"] is not None else target.clock_mhz
    divisor, baud = uart_divisor(clock, options["baud"])
    config = preset(target.config)
    core = _core(target, config, divisor)
    if not target.builds_here:
        _export(target, core, clock, output)
        return
    from reverb_fpga.hw.boards.flow import BuildOptions, Design, build_bitstream

    chosen = BuildOptions(clock_mhz=clock, divisor=divisor, baud=baud, seed=options["seed"], tries=options["tries"])
    cache = None if options["no_cache"] else _cache_directory()
    with progress.status_line(enabled=not no_progress) as line:
        show = _Show(line, quiet=no_progress)
        report = build_bitstream(Design(target, config, core), chosen, output, show, cache)
    print_report(report)
    click.echo(f"bitstream: {output / 'top.bit'}")


class _Show:
    """Shows where a build is: a line with elapsed time on a terminal, a line every few seconds elsewhere."""

    def __init__(self, line: Progress | None, *, quiet: bool) -> None:
        self._line = line
        self._quiet = quiet
        self._started = time.monotonic()
        self._printed = (0.0, "")
        self._task = line.add_task("starting", total=None) if line is not None else None

    def __call__(self, phase: BuildPhase) -> None:
        text = f"{phase.step}: {phase.detail}" if phase.detail else phase.step
        if self._line is not None and self._task is not None:
            self._line.update(self._task, description=text)
        elif not self._quiet:
            self._plain(phase.step, text)

    def _plain(self, step: str, text: str) -> None:
        elapsed = time.monotonic() - self._started
        if step != self._printed[1] or elapsed - self._printed[0] >= _PLAIN_SECONDS:
            self._printed = (elapsed, step)
            click.echo(f"[{elapsed:5.0f} s] {text}", err=True)


def _core(target: Board, config: Config, divisor: int) -> Any:
    try:
        from reverb_fpga.hw.top import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        raise EnvironmentMissing(f"not installed: {error.name}; run: pip install 'reverb-fpga[hw]'") from None
    return Top(config, divisor, "ecp5" if target.flow is Flow.TRELLIS else "generic")


def _export(target: Board, core: Any, clock: float, output: Path) -> None:
    from reverb_fpga.hw.boards.export import export_project

    files = export_project(target, core, clock, output)
    for file in files:
        click.echo(file)
    click.echo(
        f"Nothing was built: {target.name} needs Vivado. Run build_top.sh in {output} where Vivado is installed."
    )


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "reverb-fpga" / "bitstreams"
