"""``reverb-fpga verify``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import DeviceError, printable
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.verify import Target, Verification, Verifier

from .. import bundled, images, ports, progress
from ..backends import config_of, simulated_core
from ..inputs import ItemReader, Selection, gather_items

__all__ = ["command", "input_codes"]

Codes = NDArray[np.uint8]

_EXAMPLES = """\b
Examples:
  reverb-fpga verify                              bundled model, one bundled image, simulated gateware
  reverb-fpga verify model.rvb photo.png
  reverb-fpga verify model.rvb --images 10 --json
  reverb-fpga verify model.rvb --random 7         random input codes from seed 7
  reverb-fpga verify model.rvb --port /dev/ttyUSB0
"""


@click.command(name="verify", epilog=_EXAMPLES)
@click.argument("model", required=False, metavar="[FILE.rvb|NAME]")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGES|DIRS]...")
@click.option("--images", "count", type=click.IntRange(1), default=1, show_default=True, metavar="N")
@click.option("--random", "seed", type=click.IntRange(0), metavar="SEED", help="Random input codes instead of images.")
@click.option("--port", metavar="TTY|auto", help="A board on this serial port instead of the simulated gateware.")
@click.option("--baud", type=click.IntRange(1200, 12_000_000), help="Default: whichever the board answers at.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else there.")
@click.option("--no-progress", is_flag=True, help="No progress bar on standard error.")
def command(
    model: str | None, paths: tuple[Path, ...], count: int, seed: int | None, as_json: bool, **options: Any
) -> int:
    """Compare the golden model with the gateware, bit for bit.

    The gateware halts after every step of the schedule; every event of every layer's tensor and all logits are
    compared. The first difference is reported with its layer, row, column, time step and channel, and ends the
    command with exit code 1. In simulation the cycle model's prediction is compared too.
    """
    program = bundled.load_model(model)
    config = config_of(program)
    source, codes = input_codes(program, Selection(paths=paths, limit=count), seed)
    total = len(codes) * (program.n_descriptors - 2)
    with (
        progress.bar("starting", total, enabled=not options["no_progress"]) as advance,
        _target(config, options["port"], options["baud"], lambda what: advance(0, what)) as target,
    ):
        verifier = Verifier(program, config, target)
        result = verifier.run(codes, lambda image, index: advance(1, f"image {image}, descriptor {index}"))
        measured = None
        if result.difference is None and options["port"] is None:
            measured = _cycles(program, config, target, codes[-1:])
    report = _Report(program, source, result, measured)
    click.echo(json.dumps(report.to_json()) if as_json else report.to_text())
    return 0 if result.difference is None else DeviceError.exit_code


def input_codes(program: Program, selection: Selection, seed: int | None = None) -> tuple[str, Codes]:
    """What the input is, and its codes (N, T_in, H, W, C).

    Image files, or else the bundled images of the model's data set, or else (or if ``seed`` is given) random codes.
    """
    transform = program.input
    steps = program.input_records // (transform.height * transform.width)
    known = bool(selection.paths) or (transform.channels in (1, 3) and bool(bundled.bundled_images(program.dataset)))
    if seed is not None or not known:
        rng = np.random.default_rng(seed or 0)
        shape = (selection.limit or 1, steps, transform.height, transform.width, transform.channels)
        codes = np.where(rng.random(shape) < 0.5, rng.integers(0, 256, shape), 0)  # half of them are no event
        return f"random codes, seed {seed or 0}", codes.astype(np.uint8)
    items = gather_items(selection, program)
    _, pixels = ItemReader(program, strict=True).read_all(items)
    codes = images.over_time(images.to_codes(pixels, transform), program)
    return ", ".join(printable(item.name) for item in items), codes


@contextmanager
def _target(config: Config, port: str | None, baud: int | None, report: Callable[[str], None]) -> Iterator[Target]:
    if port is None:
        with simulated_core(config, report) as core:
            yield core
        return
    with ports.connect(port, baud, report) as (device, _):
        device.connect(config.digest)
        yield device


def _cycles(program: Program, config: Config, core: Any, codes: Codes) -> tuple[int, int]:
    """Cycles of one image without halts, measured and predicted."""
    from reverb_fpga.sim.cycles import CycleModel

    core.infer(GoldenModel(program, config).input_bytes(codes)[0])
    return core.cycles, CycleModel(program, config).cycles(codes)[0]


@dataclasses.dataclass(frozen=True)
class _Report:
    """What is printed."""

    program: Program
    source: str
    result: Verification
    cycles: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        difference = self.result.difference
        return {
            "model": self.program.name,
            "config": self.program.config_name,
            "input": self.source,
            "identical": difference is None,
            "images": self.result.images,
            "descriptors": self.result.descriptors,
            "events": self.result.events,
            "logits": self.result.logits,
            "difference": None if difference is None else dataclasses.asdict(difference),
            "cycles": None if self.cycles is None else self.cycles[0],
            "predicted_cycles": None if self.cycles is None else self.cycles[1],
        }

    def to_text(self) -> str:
        result = self.result
        head = f"{self.program.name} on {self.program.config_name}, {self.source}"
        amount = (
            f"{result.images} image(s), {result.descriptors} descriptors, {result.events:,} events, "
            f"{result.logits} logits"
        )
        if result.difference is not None:
            return f"{head}\nDIFFERENT after {amount}\n{result.difference}"
        text = f"{head}\nidentical: {amount}"
        if self.cycles is not None:
            measured, predicted = self.cycles
            error = 100 * (predicted / measured - 1)
            text += f"\n{measured:,} cycles per image; the cycle model predicts {predicted:,} ({error:+.2f} %)"
        return text
