"""What overlays take after synthesis, part by part: the figures behind `report --board`.

    python benchmarks/synthesis.py --out runs/synthesis tiny ulx3s-12f tiny,banks=4

Every shape is a preset, with fields changed. It is elaborated with a UART as for a ULX3S and synthesised as `build`
does, without place and route; the cells of every part go into shapes.jsonl in --out, a line per shape. A shape that is
there is not synthesised again. Then the coefficients of host/estimate.py are fitted to all of them and printed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from reverb_fpga.host import cli
from reverb_fpga.host.estimate import features
from reverb_fpga.hw import processes
from reverb_fpga.hw.boards import flow, netlist
from reverb_fpga.hw.boards.table import board
from reverb_fpga.hw.boards.tools import SOURCES, find_toolchain, run_tool
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.hw.top import Top

_BOARD = board("ulx3s-85f")
_DIVISOR = 25
CELLS = ("LUT4", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF", "DP16KD", "MULT18X18D")
_PART = re.compile(r"core\.overlay\.(?:core\.)?(gather|neuron|link)\b")
_MODULE = re.compile(r"\.(lane_cluster|pair)_(?:\d+|s)\.")


def shape(text: str) -> Config:
    """``PRESET,field=value,...`` as a configuration."""
    name, *changes = text.split(",")
    fields = {}
    for change in changes:
        field, _, value = change.partition("=")
        if field not in {known.name for known in dataclasses.fields(Config)} or not value.isdigit():
            raise InputError(f"{text}: {change} is no field=number of a configuration")
        fields[field] = int(value)
    return dataclasses.replace(preset(name), **fields)


def parts(text: dict[str, Any], config: Config) -> dict[str, Counter[str]]:
    """Cells by part of the overlay: lane clusters, pairs of neuron lanes, gather, neuron unit, link, and the rest."""
    lanes = "lane_cluster" if config.taps == 1 else "row_cluster"
    found: dict[str, Counter[str]] = {}
    for name, cell in text["modules"]["top"]["cells"].items():
        if cell["type"] in CELLS:
            inside = _MODULE.search(name) or _PART.match(name)
            part = inside[1] if inside else "rest"
            found.setdefault(lanes if part == "lane_cluster" else part, Counter())[cell["type"]] += 1
    return found


def synthesise(config: Config, work: Path, tools: str) -> dict[str, Counter[str]]:
    """Cells by part after synthesis as `build` does it."""
    toolchain = find_toolchain(tools)
    core = Top(config, _DIVISOR, "ecp5", ring=_BOARD.ring)
    options = flow.BuildOptions(clock_mhz=50.0, divisor=_DIVISOR, baud=2_000_000)
    plan = flow._plan(flow.Design(_BOARD, config, core), options, toolchain)
    for name in ("top.il", "top.ys"):
        content = plan.files[name]
        (work / name).write_bytes(content.encode() if isinstance(content, str) else content)
    run_tool(toolchain, "yosys", ["-q", "-l", "yosys.log", "top.ys"], "yosys.log", work, lambda _: None)
    netlist.improve(work / "top.json", {})
    return parts(json.loads((work / "top.json").read_text()), config)


@click.command(help=__doc__)
@click.argument("shapes", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for shapes.jsonl.")
@click.option("--tools", type=click.Choice(SOURCES), default="pip", show_default=True)
def main(shapes: tuple[str, ...], out: Path, tools: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    log = out / "shapes.jsonl"
    known = {json.loads(line)["shape"] for line in log.read_text().splitlines()} if log.is_file() else set()
    for text in shapes:
        config = shape(text)
        if text in known:
            continue
        started = time.monotonic()
        with processes.scratch(".synthesis-", out) as work:
            found = synthesise(config, work, tools)
        line = {"shape": text, "parts": found, "seconds": round(time.monotonic() - started)}
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        click.echo(json.dumps(line))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    fit({line["shape"]: line["parts"] for line in lines})


def fit(found: dict[str, dict[str, dict[str, int]]]) -> None:
    """Print the coefficients of every part: least squares of relative errors over the shapes."""
    shapes = [features(shape(name)) for name in found]
    for part in shapes[0]:
        columns = np.array([of[part] for of in shapes], dtype=np.float64)
        cells = [Counter(parts.get(part, {})) for parts in found.values()]
        luts = [netlist.lut_equivalents(c) for c in cells]
        fitted = [_least_squares(columns, np.array(ys)) for ys in (luts, [c["TRELLIS_FF"] for c in cells])]
        click.echo(f'    "{part}": ({fitted[0]}, {fitted[1]}),')


def _least_squares(columns: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, ...]:
    """Of relative errors, with coefficients that are not negative: more hardware takes more cells."""
    weights = 1 / np.maximum(wanted, 1)
    found, _ = nnls(columns * weights[:, None], wanted * weights)
    return tuple(round(float(value), 2) for value in found)


if __name__ == "__main__":
    cli.run(main, "synthesis.py")
