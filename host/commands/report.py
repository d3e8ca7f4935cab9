"""``reverb-fpga report``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from reverb_fpga.hw.boards.report import BuildReport, read_report

__all__ = ["command", "print_report"]

_USED = (("LUT4", "lut4"), ("flip-flops", "ff"), ("block RAM", "bram"), ("multipliers", "dsp"))


@click.command(name="report", epilog="\b\nExample:\n  reverb-fpga report build/ulx3s-85f\n")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
def command(directory: Path) -> None:
    """Print the figures of a build: device use, clock, block RAM by use, longest path."""
    print_report(read_report(directory))


def print_report(report: BuildReport) -> None:
    """The report as tables on standard output."""
    console = Console()
    console.print(
        f"{report.board}, configuration {report.config} ({report.config_digest}): "
        f"{report.additions_per_cycle} additions a cycle",
        highlight=False,
    )
    console.print(
        f"clock {report.clock_mhz:g} MHz, timing met up to {report.fmax_mhz:g} MHz (seed {report.seed}), "
        f"UART {report.baud} baud, built in {report.seconds:.0f} s",
        highlight=False,
    )
    console.print(_use_table(report))
    console.print(_bram_table(report))
    if report.critical_path:
        console.print(f"longest path: {report.critical_path[0]} ... {report.critical_path[-1]}", highlight=False)
    console.print("tools: " + ", ".join(f"{name} {version}" for name, version in report.tools.items()), highlight=False)


def _use_table(report: BuildReport) -> Table:
    table = Table("resource", box=None, pad_edge=False, header_style="bold")
    for heading in ("used", "of", "share"):
        table.add_column(heading, justify="right")
    for label, field in _USED:
        used, total = getattr(report, field), report.available[field]
        table.add_row(label, f"{used:,}", f"{total:,}", f"{100 * used / total:.1f} %" if total else "")
    return table


def _bram_table(report: BuildReport) -> Table:
    table = Table("block RAM by use", box=None, pad_edge=False, header_style="bold")
    table.add_column("blocks", justify="right")
    for use, count in report.bram_by_use.items():
        table.add_row(use, str(count))
    table.add_row("sum", str(sum(report.bram_by_use.values())), style="bold")
    return table
