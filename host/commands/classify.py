"""``reverb-fpga classify``."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import click

from .. import backends, bundled, images, progress
from ..backends import Backend, BackendOptions, Outcome
from ..inputs import Item, ItemReader, Selection, gather_items
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
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files lie.  [default: data]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N images.")
@click.option(
    "--top", type=click.IntRange(1), default=1, show_default=True, metavar="K", help="Show the K best labels."
)
@click.option("--invert", is_flag=True, help="Negate the images first (dark on light, for a model of light on dark).")
@click.option("--strict", is_flag=True, help="Stop at the first image that cannot be read.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else there.")
@click.option("--no-progress", is_flag=True, help="No progress bar on standard error.")
def command(
    paths: tuple[Path, ...], dataset: str | None, data_dir: Path | None, limit: int | None, top: int, as_json: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Classify images with a compiled model.

    Without IMAGES the bundled test images are classified. Images are PNG, JPEG, BMP, WebP, TIFF, GIF or NPY of any
    size; directories are searched for them. Images that cannot be read are named, left out, and make the exit code 2.
    The three backends give identical logits: golden is the integer model, rtl the gateware in a
    virtual board, serial a board on a port.
    """
    program = bundled.load_model(options["model"])
    if options["model"] is None and paths:
        click.echo(f"note: {bundled.knowledge()}", err=True)
    selection = Selection(paths=paths, dataset=dataset, data_dir=data_dir, limit=limit)
    items = gather_items(selection, program)
    reader = ItemReader(program, strict=options["strict"])
    with progress.bar("starting", len(items), enabled=not options["no_progress"]) as advance:
        chosen = BackendOptions(port=options["port"], baud=options["baud"], report=lambda what: advance(0, what))
        with backends.open_backend(options["backend"], program, chosen) as backend:
            advance(0, "classifying")
            result = _classify(backend, items, reader, options["invert"], advance)
    run = Run(program, options["backend"], result.items, result.outcomes, result.seconds, reader.failed)
    if as_json:
        click.echo(json.dumps(to_json(run)))
    else:
        print_table(run, top)
    return reader.complain(len(items))


@dataclasses.dataclass(eq=False)
class _Result:
    """Outcomes of the items that could be read, and the seconds that the backend took."""

    items: list[Item] = dataclasses.field(default_factory=list)
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def _classify(
    backend: Backend, items: list[Item], reader: ItemReader, invert: bool, advance: progress.Advance
) -> _Result:
    result = _Result()
    odd = 0
    for start in range(0, len(items), backend.batch):
        group = items[start : start + backend.batch]
        found = [(item, pixels) for item in group if (pixels := reader.read(item)) is not None]
        advance(len(group) - len(found))
        if not found:
            continue
        batch = [pixels for _, pixels in found]
        odd += sum(images.looks_inverted(pixels) for pixels in batch) if backend.program.input.invert else 0
        codes = images.to_codes(batch, backend.program.input, invert=invert)
        codes = images.over_time(codes, backend.program)
        started = time.perf_counter()
        for outcome in backend.run(codes):
            result.outcomes.append(outcome)
            advance()
        result.seconds += time.perf_counter() - started
        result.items += [item for item, _ in found]
    if not result.items:
        reader.fail(len(items))
    if odd > len(result.items) // 2 and not invert:
        click.echo(
            f"note: {odd} images are dark on light, the model was trained on light on dark: try --invert", err=True
        )
    return result
