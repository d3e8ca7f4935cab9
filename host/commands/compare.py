"""``reverb-fpga compare``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.boards.report import read_report
from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.sim.golden import GoldenModel

from .. import bundled
from ..backends import config_of
from ..completing import complete_models
from ..console import make_table, output
from ..images import encoded
from ..inputs import ItemReader, Selection, gather_items
from ..model_report import ModelReport, measure

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga compare cifar10-cnv cifar10-cnv-t2
  reverb-fpga compare before.rvb after.rvb photos/ --images 100
  reverb-fpga compare out/old out/new                 two builds
  reverb-fpga compare fashion-mnist fashion-mnist-25f --json
"""
_BUILD = {
    "LUT4": "lut4",
    "flip-flops": "ff",
    "block RAM": "bram",
    "multipliers": "dsp",
    "clock MHz": "clock_mhz",
    "timing met up to, MHz": "fmax_mhz",
    "additions a cycle": "additions_per_cycle",
    "seconds to build": "seconds",
    "seed": "seed",
}
_SAME = ("board", "config", "config_digest")


@click.command(name="compare", epilog=_EXAMPLES)
@click.argument("first", metavar="A", shell_complete=complete_models)
@click.argument("second", metavar="B", shell_complete=complete_models)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGES|DIRS]...")
@click.option("--images", "count", type=click.IntRange(1), help="At most so many.  [default: 10]")
@click.option("--dataset", help="Images of a data set's test split.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with its files.  [default: data]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(first: str, second: str, paths: tuple[Path, ...], as_json: bool, **source: Any) -> None:
    """Two models, or two builds, side by side.

    Models: size, synaptic operations, cycles, and on how many of the same images they decide alike; layer by layer
    where both have the same ones. Builds: resources, clock and what else their reports hold.
    """
    builds = [_is_build(subject) for subject in (first, second)]
    if all(builds):
        if paths or any(source.values()):
            raise InputError("two builds are compared by their reports; images go with models")
        result = _builds(first, second)
    elif any(builds):
        model, build = (second, first) if builds[0] else (first, second)
        raise InputError(f"{build} is the folder of a build and {model} is none; give two models or two builds")
    else:
        result = _models(first, second, paths, source)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(first, second, result)


def _is_build(subject: str) -> bool:
    return subject not in bundled.bundled_models() and Path(subject).is_dir()


def _builds(first: str, second: str) -> dict[str, Any]:
    reports = [dataclasses.asdict(read_report(Path(subject))) for subject in (first, second)]
    rows = [_row(name, *(report[field] for report in reports)) for name, field in _BUILD.items()]
    uses = dict.fromkeys([*reports[0]["bram_by_use"], *reports[1]["bram_by_use"]])
    rows += [_row(f"block RAM: {use}", *(report["bram_by_use"].get(use, 0) for report in reports)) for use in uses]
    differing = [field for field in _SAME if reports[0][field] != reports[1][field]]
    tools = {tool for report in reports for tool in report["tools"]}
    differing += [f"tool {tool}" for tool in sorted(tools) if len({r["tools"].get(tool) for r in reports}) > 1]
    note = f"they differ in {', '.join(differing)}" if differing else "same board, configuration and tools"
    return {"rows": rows, "notes": [note]}


def _models(first: str, second: str, paths: tuple[Path, ...], source: dict[str, Any]) -> dict[str, Any]:
    programs = [bundled.load_model(subject) for subject in (first, second)]
    selection = Selection(
        paths=paths, limit=source["count"] or 10, dataset=source["dataset"], data_dir=source["data_dir"]
    )
    reports, decisions = zip(*(_run(program, selection) for program in programs), strict=True)
    rows = _totals(programs, reports)
    names = [[layer.name for layer in report.layers] for report in reports]
    if names[0] == names[1]:
        for layers in zip(*(report.layers for report in reports), strict=True):
            name = layers[0].name
            rows.append(_row(f"{name}: cycles", *(layer.cycles for layer in layers)))
            if layers[0].density is not None:  # of the first layer the image is the input
                rows.append(_row(f"{name}: density %", *(_percent(layer.density) for layer in layers)))
    return {"rows": rows, "notes": _agreement(programs, decisions, selection)}


def _run(program: Program, selection: Selection) -> tuple[ModelReport, np.ndarray[Any, Any]]:
    _, pixels = ItemReader(program, strict=True).read_all(gather_items(selection, program))
    codes = encoded(pixels, program)
    config = config_of(program)
    return measure(program, config, codes), GoldenModel(program, config).run(codes).argmax(axis=1)


def _totals(programs: list[Program], reports: tuple[ModelReport, ...]) -> list[dict[str, Any]]:
    sizes = [sum(4 * len(words) for _, words in program.sections()) for program in programs]
    return [
        _row("accuracy % (of its file)", *(program.accuracy for program in programs)),
        _row("T", *(program.timesteps for program in programs)),
        _row("layers", *(len(program.layers) for program in programs)),
        _row("bytes loaded", *sizes),
        _row("synaptic operations", *(report.additions for report in reports)),
        _row("cycles an image", *(report.cycles for report in reports)),
        _row("uJ, as papers estimate", *(1e6 * report.joules for report in reports)),
    ]


def _agreement(programs: list[Program], decisions: Any, selection: Selection) -> list[str]:
    targets = {program.config_name for program in programs}
    notes = [f"configurations: {' and '.join(program.config_name for program in programs)}"] if len(targets) > 1 else []
    same = programs[0].labels == programs[1].labels
    given = bool(selection.paths) or selection.dataset is not None or programs[0].dataset == programs[1].dataset
    if not same or not given:
        return [*notes, "their labels or images are others, so their decisions are not compared"]
    alike = int(np.count_nonzero(decisions[0] == decisions[1]))
    return [*notes, f"they decide alike on {alike} of {len(decisions[0])} image(s)"]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _row(name: str, first: float | None, second: float | None) -> dict[str, Any]:
    """``change`` is the share by which the second is more, None where that has no meaning."""
    change = (second - first) / first if first and second is not None else None
    return {"name": name, "a": first, "b": second, "change": change}


def _print(first: str, second: str, result: dict[str, Any]) -> None:
    console = output()
    console.say(printable(f"A: {first}"))
    console.say(printable(f"B: {second}"))
    table = make_table("", right=("A", "B", "change"))
    for row in result["rows"]:
        change = "" if row["change"] is None else "same" if row["a"] == row["b"] else f"{100 * row['change']:+.1f} %"
        table.add_row(printable(row["name"]), _number(row["a"]), _number(row["b"]), change)
    console.table(table)
    for note in result["notes"]:
        console.say(note)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
