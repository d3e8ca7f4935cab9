"""``reverb-fpga simulate``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw import processes
from reverb_fpga.hw.contract import NO_HALT, Counter, Opcode
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import check_output
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.wave_views import VIEW_SUFFIXES, mend_names, write_views

from .. import bundled, progress
from ..backends import config_of, simulated_core
from ..console import make_table, output
from ..inputs import Selection
from ..verifying import input_codes

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga simulate model.rvb photo.png                     counters of every descriptor
  reverb-fpga simulate model.rvb -o wave.vcd --first 3 --last 3
"""
_OPEN = {"gtkwave": "gtkwave {wave} {view}", "surfer": "surfer {wave} --command-file {view}"}


@click.command(name="simulate", epilog=_EXAMPLES)
@click.argument("model", required=False, metavar="[FILE.rvb|NAME]")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Waveform to write (VCD).")
@click.option("--first", type=click.IntRange(1), default=1, show_default=True, help="Record from this descriptor on.")
@click.option("--last", type=click.IntRange(1), help="Stop after this descriptor. Default: run to the end.")
@click.option(
    "--random", "seed", type=click.IntRange(0), metavar="SEED", help="Random input codes instead of an image."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else there.")
@click.option("--no-progress", is_flag=True, help="No progress display on standard error.")
def command(
    model: str | None, image: Path | None, output: Path | None, first: int, last: int | None, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Run one image through the simulated gateware; print its counters, and record a waveform with -o.

    A waveform of a whole image is large: choose descriptors with --first and --last. Beside it comes a view of the
    signals that matter, for GTKWave (.gtkw) and for Surfer (.sucl).
    """
    program = bundled.load_model(model)
    layers = program.n_descriptors - 2
    if not first <= (last or layers) <= layers:
        raise InputError(f"--first {first} --last {last or layers}: the schedule has descriptors 1 to {layers}")
    selection = Selection(paths=(image,) if image else (), limit=1)
    source, codes = input_codes(program, selection, options["seed"])
    data = GoldenModel(program, config_of(program)).input_bytes(codes)[0].tobytes()
    with (
        _whole(output) as waveform,
        progress.bar("starting", 1, enabled=not options["no_progress"]) as advance,
        simulated_core(config_of(program), lambda what: advance(0, what), waveform) as core,
    ):
        if waveform is not None:
            core.trace(None)  # not the loading of the program
        advance(0, "loading the program")
        core.load(program)
        core.start(halt_after=first - 1)
        core.feed(data)
        core.wait()
        if waveform is not None:
            core.trace(waveform)
        advance(0, "simulating")
        core.resume(NO_HALT if last is None else last)
        core.wait()
        counters = {index: core.counters(index) for index in range(1, (last or layers) + 1)}
        logits = core.logits().tolist() if last is None else None
        cycles = core.cycles
        if waveform is not None:
            core.trace(None)  # ends the file, and fails if it cannot be written whole
    result = {
        "model": program.name,
        "input": source,
        "cycles": cycles,
        "logits": logits,
        "waveform": None if output is None else str(output),
        "views": {} if output is None else {tool: str(output.with_suffix(end)) for tool, end in VIEW_SUFFIXES.items()},
        "descriptors": [
            {"descriptor": index, "layer": _layer(program, index)} | {c.name.lower(): v for c, v in found.items()}
            for index, found in counters.items()
        ],
    }
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result)


@contextmanager
def _whole(output: Path | None) -> Iterator[Path | None]:
    """Where to record the waveform: beside its place, to which it is moved when the block has ended well.

    Views of it, for GTKWave and Surfer, come with it.
    """
    if output is None:
        yield None
        return
    check_output(output)
    with processes.scratch(".wave-", output.parent) as folder:
        waveform = folder / output.name
        yield waveform
        mend_names(waveform)
        *views, missing = write_views(waveform)
        for file in (waveform, *views):
            os.replace(file, output.parent / file.name)
        if missing:
            click.echo(f"not in this waveform, and left out of its views: {', '.join(missing)}", err=True)


def _layer(program: Program, descriptor: int) -> str:
    opcode, fields = program.descriptor(descriptor)
    return "input" if opcode is Opcode.INPUT else program.layers[fields["layer"]].name


def _heading(counter: str) -> str:
    """On two lines, so that all counters fit a terminal of 80 columns."""
    return counter.replace("_", "\n")


def _print(result: dict[str, Any]) -> None:
    console = output()
    names = [counter.name.lower() for counter in Counter]
    table = make_table("#", "layer", right=tuple(_heading(name) for name in names), gap=1)
    for row in result["descriptors"]:
        table.add_row(str(row["descriptor"]), row["layer"], *(f"{row[name]:,}" for name in names))
    console.say(f"{result['model']}, {result['input']}")
    console.table(table)
    console.say(f"{result['cycles']:,} cycles")
    if result["logits"] is not None:
        console.say(f"logits: {' '.join(map(str, result['logits']))}")
    if result["waveform"] is not None:
        console.say(f"waveform: {result['waveform']}")
        for tool, view in result["views"].items():
            console.say(f"view: {_OPEN[tool].format(wave=result['waveform'], view=view)}")
