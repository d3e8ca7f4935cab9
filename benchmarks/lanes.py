"""How logic and clock grow with the lanes: routed builds of one version of the gateware, as a table and a plot.

    python benchmarks/lanes.py --out out/lanes

Reads benchmarks/builds.jsonl, which benchmarks/routed.py makes lines of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from synthesis import shape

from reverb_fpga.host import cli
from reverb_fpga.hw.boards.table import board
from reverb_fpga.hw.errors import InputError

BUILDS = Path(__file__).parent / "builds.jsonl"
TODAY = ("c012062", "601a38d", "5bd40eb")


def points(sources: tuple[str, ...]) -> list[dict[str, Any]]:
    """Routed builds on the ULX3S of these sources, by lanes.

    Raises
    ------
    InputError
        If there are none.
    """
    found = []
    for line in BUILDS.read_text().splitlines():
        build = json.loads(line)
        name, _, wanted = build["build"].partition("=")
        if build["sources"] not in sources or build["stage"] != "routed" or not name.startswith("ulx3s"):
            continue
        config = shape(wanted)
        figures = {field: build[field] for field in ("lut4", "ff", "bram", "dsp", "fmax_mhz", "seed")}
        found.append(
            {"build": build["build"], "device": board(name).device, "lanes": config.lanes}
            | {"additions_per_cycle": config.additions_per_cycle}
            | figures
        )
    if not found:
        raise InputError(f"{BUILDS}: no routed builds of {', '.join(sources)}")
    return sorted(found, key=lambda point: point["lanes"])


def table(found: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = ["| board=configuration | lanes | additions a cycle | LUT4 | flip-flops | MHz | seed |", "|" + "---|" * 7]
    lines += [
        f"| `{p['build']}` | {p['lanes']} | {p['additions_per_cycle']:,} | {p['lut4']:,} | {p['ff']:,} | "
        f"{p['fmax_mhz']:.2f} | {p['seed']} |"
        for p in found
    ]
    return "\n".join(lines)


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """LUT4 and flip-flops, and the routed clock, over the lanes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lanes = [point["lanes"] for point in found]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    logic, clock = figure.subplots(1, 2)
    for field, label in (("lut4", "LUT4"), ("ff", "flip-flops")):
        logic.plot(lanes, [point[field] for point in found], "o-", label=label)
    logic.set_ylabel("cells")
    logic.legend()
    clock.plot(lanes, [point["fmax_mhz"] for point in found], "o-")
    clock.set_ylabel("routed clock [MHz]")
    for axes in (logic, clock):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lanes, [str(number) for number in lanes])
        axes.set_xlabel("lanes")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


@click.command(help=__doc__)
@click.option(
    "--sources", multiple=True, default=TODAY, show_default=True, help="Commit that builds are of; of several, again."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the files.")
def main(sources: tuple[str, ...], out: Path) -> None:
    """Entry point."""
    found = points(sources)
    out.mkdir(parents=True, exist_ok=True)
    (out / "lanes.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "lanes.md").write_text(table(found) + "\n")
    plot(found, out / "lanes.png")
    click.echo(table(found))


if __name__ == "__main__":
    cli.run(main, "lanes.py")
