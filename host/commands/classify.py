"""``reverb-fpga classify``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import backends, bundled, images, progress
from ..backends import Backend, BackendOptions, Outcome
from ..inputs import Item, Selection, gather_items
from ..results import Run, print_table, to_json

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga classify                              bundled images, bundled model, golden model
  reverb-fpga classify photo.jpg folder/ --top 3
  reverb-fpga classify --backend rtl --limit 2      the gateware, simulated cycle by cycle
  reverb-fpga classify --backend serial --port /dev/ttyUSB0
  reverb-fpga classify --dataset fashion-mnist --data-dir data --limit 1000 --json
"""


@click.command(name="classify", epilog=_EXAMPLES)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGES|DIRS]...")
@click.option("--model", metavar="NAME|FILE.rvb", help="Bundled model or compiled program. Default: a bundled one.")
@click.option("--backend", type=click.Choice(backends.BACKENDS), default="golden", show_default=True)
@click.option("--port", metavar="TTY", help="Serial port of the board (backend serial).")
@click.option("--baud", type=click.IntRange(1200, 12_000_000), help="Serial rate; the build's report.json tells it.")
@click.option("--dataset", metavar="NAME", help="Classify the test split of a data set instead of image files.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the data set's files lie.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N images.")
@click.option(
    "--top", type=click.IntRange(1), default=1, show_default=True, metavar="K", help="Show the K best labels."
)
@click.option("--invert", is_flag=True, help="Negate the images first (dark on light, for a model of light on dark).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else there.")
@click.option("--no-progress", is_flag=True, help="No progress bar on standard error.")
def command(
    paths: tuple[Path, ...], dataset: str | None, data_dir: Path | None, limit: int | None, top: int, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Classify images with a compiled model.

    Without IMAGES the bundled test images are classified. Images are PNG, JPEG or NPY of any size; directories are
    searched for them. The three backends give identical logits: golden is the integer model, rtl the gateware in a
    virtual board, serial a board on a port.
    """
    program = bundled.load_model(options["model"])
    selection = Selection(paths=paths, dataset=dataset, data_dir=data_dir, limit=limit)
    items = gather_items(selection, program)
    with progress.bar("starting", len(items), enabled=not options["no_progress"]) as advance:
        chosen = BackendOptions(port=options["port"], baud=options["baud"], report=lambda what: advance(0, what))
        with backends.open_backend(options["backend"], program, chosen) as backend:
            advance(0, "classifying")
            outcomes, seconds = _classify(backend, items, options["invert"], advance)
    run = Run(program, options["backend"], items, outcomes, seconds)
    if as_json:
        click.echo(json.dumps(to_json(run)))
    else:
        print_table(run, top)


def _classify(
    backend: Backend, items: list[Item], invert: bool, advance: progress.Advance
) -> tuple[list[Outcome], float]:
    """Outcomes of all items, and the seconds that the backend took."""
    outcomes: list[Outcome] = []
    seconds = 0.0
    odd = 0
    for start in range(0, len(items), backend.batch):
        batch = [item.load() for item in items[start : start + backend.batch]]
        odd += sum(images.looks_inverted(pixels) for pixels in batch) if backend.program.input.invert else 0
        codes = images.to_codes(batch, backend.program.input, invert=invert)
        if backend.input_steps > 1:  # an image that stands still shows the same pixels at every step
            codes = np.repeat(codes[:, None], backend.input_steps, axis=1)
        started = time.perf_counter()
        for outcome in backend.run(codes):
            outcomes.append(outcome)
            advance()
        seconds += time.perf_counter() - started
    if odd > len(items) // 2 and not invert:
        click.echo(
            f"note: {odd} images are dark on light, the model was trained on light on dark: try --invert", err=True
        )
    return outcomes, seconds
