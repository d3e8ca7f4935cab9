"""``reverb-fpga classify``."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError, printable

from .. import bundled, images, progress
from ..backends import BACKENDS, Outcome
from ..inputs import Item, ItemReader, Selection, gather_items
from ..model import Model
from ..results import Run, print_table, to_json
from ..running import Running
from ..watch import Watch

__all__ = ["command"]

Codes = NDArray[np.uint8]

_EXAMPLES = """\b
Examples:
  reverb-fpga classify                              bundled images, bundled model, golden model
  reverb-fpga classify photo.jpg folder/ --top 3
  reverb-fpga classify --backend rtl --limit 2      the gateware, simulated cycle by cycle
  reverb-fpga classify --backend serial             the board that is attached
  reverb-fpga classify --backend serial --port /dev/ttyUSB0 --watch inbox
  reverb-fpga classify --dataset fashion-mnist --data-dir data --limit 1000 --json
"""


@click.command(name="classify", epilog=_EXAMPLES)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGES|DIRS]...")
@click.option("--model", metavar="NAME|FILE.rvb", help="Bundled model or compiled program. Default: a bundled one.")
@click.option("--backend", type=click.Choice(BACKENDS), default="golden", show_default=True)
@click.option("--port", metavar="TTY|auto", help="Serial port of the board (backend serial). Default: auto.")
@click.option("--baud", type=click.IntRange(1200, 12_000_000), help="Default: whichever the board answers at.")
@click.option(
    "--watch",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Classify images as they appear, until Ctrl-C.",
)
@click.option("--dataset", metavar="NAME", help="Classify the test split of a data set instead of image files.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files lie.  [default: data]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N images; of a data set, of every class.")
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
    model = Model(bundled.load_model(options["model"]))
    if options["watch"] is not None:
        if paths or dataset is not None:
            raise InputError("--watch takes no other images: leave out IMAGES and --dataset")
        return _watch(model, Watch(options["watch"]), as_json, limit, options)
    if options["model"] is None and paths:
        click.echo(f"note: {bundled.knowledge()}", err=True)
    selection = Selection(paths=paths, dataset=dataset, data_dir=data_dir, limit=limit)
    items = gather_items(selection, model.program)
    reader = ItemReader(model.program, strict=options["strict"])
    with progress.bar("starting", len(items), enabled=not options["no_progress"]) as advance:
        place = {"port": options["port"], "baud": options["baud"]}
        with model.on(options["backend"], **place, report=lambda what: advance(0, what)) as running:
            advance(0, "classifying")
            result = _classify(model, running, items, reader, options["invert"], advance)
    run = Run(model.program, options["backend"], result.items, result.outcomes, result.seconds, reader.failed)
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
    model: Model, running: Running, items: list[Item], reader: ItemReader, invert: bool, advance: progress.Advance
) -> _Result:
    """Stream the items through the model: they are read while it computes."""
    result = _Result()
    odd = 0
    reading = 0.0

    def codes() -> Iterator[Codes]:
        nonlocal odd, reading
        for item in items:
            started = time.perf_counter()
            pixels = reader.read(item)
            if pixels is None:
                advance()
                continue
            odd += images.looks_inverted(pixels) if model.program.input.invert else 0
            result.items.append(item)
            (found,) = images.encoded([pixels], model.program, invert=invert)
            reading += time.perf_counter() - started
            yield found

    started = time.perf_counter()
    for outcome in running.outcomes(codes()):
        result.outcomes.append(outcome)
        seconds = max(time.perf_counter() - started - reading, 1e-9)
        advance(1, f"classifying, {len(result.outcomes) / seconds:.3g} images/s")
    result.seconds = time.perf_counter() - started - reading
    if not result.items:
        reader.fail(len(items))
    if odd > len(result.items) // 2 and not invert:
        click.echo(
            f"note: {odd} images are dark on light, the model was trained on light on dark: try --invert", err=True
        )
    return result


def _watch(model: Model, watch: Watch, as_json: bool, limit: int | None, options: dict[str, Any]) -> int:
    """A line for every image that appears; ends after ``limit`` of them, or when it is interrupted."""
    reader = ItemReader(model.program, strict=options["strict"])
    under_way: deque[Item] = deque()

    def codes() -> Iterator[Codes | None]:
        taken = 0
        while limit is None or taken < limit:
            for path in watch.appeared():
                (item,) = gather_items(Selection(paths=(path,)), model.program)
                pixels = reader.read(item)
                if pixels is None:
                    click.echo(f"not read: {reader.failed.pop()}", err=True)
                    continue
                under_way.append(item)
                yield from images.encoded([pixels], model.program, invert=options["invert"])
                taken += 1
                if taken == limit:
                    return
            yield None

    with model.on(options["backend"], port=options["port"], baud=options["baud"]) as running:
        click.echo(f"watching {printable(str(watch.folder))}", err=True)
        for outcome in running.outcomes(codes()):
            run = Run(model.program, options["backend"], [under_way.popleft()], [outcome], 0.0, [])
            result = to_json(run)["results"][0]
            click.echo(json.dumps(result) if as_json else f"{printable(run.items[0].name)}: {result['label']}")
    return 0
