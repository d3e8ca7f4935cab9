"""``reverb-fpga verify``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.verify import Verification

from .. import bundled, progress
from ..backends import BackendOptions
from ..inputs import Selection
from ..verifying import input_codes, verified

__all__ = ["command"]

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
    command with exit code 1. In simulation every image is run once more without halts, and its
    cycles are compared with the cycle model's.
    """
    program = bundled.load_model(model)
    source, codes = input_codes(program, Selection(paths=paths, limit=count), seed)
    total = len(codes) * (program.n_descriptors - (1 if options["port"] is None else 2))
    with progress.bar("starting", total, enabled=not options["no_progress"]) as advance:
        chosen = BackendOptions(port=options["port"], baud=options["baud"], report=lambda what: advance(0, what))
        result = verified(program, codes, chosen, lambda image, index: advance(1, f"image {image}, descriptor {index}"))
    report = _Report(program, source, result)
    click.echo(json.dumps(report.to_json()) if as_json else report.to_text())
    return 0 if result.difference is None else DeviceError.exit_code


@dataclasses.dataclass(frozen=True)
class _Report:
    """What is printed."""

    program: Program
    source: str
    result: Verification

    def to_json(self) -> dict[str, Any]:
        difference, cycles = self.result.difference, self.result.cycles
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
            "cycles": [measured for measured, _ in cycles] or None,
            "predicted_cycles": [predicted for _, predicted in cycles] or None,
        }

    def to_text(self) -> str:
        return f"{self.program.name} on {self.program.config_name}, {self.source}\n{self.result}"
