"""Float and golden accuracy of a checkpoint on its whole test split, by one command.

python benchmarks/accuracy.py runs/fmnist/best.safetensors --data-dir data
python benchmarks/accuracy.py runs/cnv/best.safetensors --data-dir data --limit 1000 -o out/accuracy.json
python benchmarks/accuracy.py runs/cnv/best.safetensors --data-dir data --flip
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.pipeline import CompileOptions, compile_checkpoint
from reverb_fpga.host import cli
from reverb_fpga.host.images import to_codes
from reverb_fpga.hw.config import preset
from reverb_fpga.models.checkpoint import load_checkpoint
from reverb_fpga.models.data import load_split
from reverb_fpga.models.evaluation import evaluate
from reverb_fpga.sim.golden import GoldenModel


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data-dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--target", default="ulx3s-85f", show_default=True, help="Configuration to compile for.")
@click.option(
    "--limit", type=click.IntRange(0), default=0, show_default=True, help="So many test images of all classes (0: all)."
)
@click.option(
    "--flip", is_flag=True, help="Also tell the accuracy of the summed logits of an image and its mirror image."
)
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures as JSON, too.")
def main(checkpoint: Path, data_dir: Path, target: str, limit: int, flip: bool, out: Path | None) -> None:
    """Entry point."""
    network = load_checkpoint(checkpoint)
    test = load_split(network.spec.dataset, data_dir, "test").sample(limit)
    trained = evaluate(network, test)
    program = compile_checkpoint(checkpoint, preset(target), CompileOptions(name=checkpoint.stem)).program
    model = GoldenModel(program, preset(target))
    golden = model.run(to_codes(list(test.images), program.input))
    figures = {
        "checkpoint": str(checkpoint),
        "images": len(test),
        "timesteps": program.timesteps,
        "density": round(trained.density, 4),
        "float_accuracy": round(trained.accuracy, 3),
        "golden_accuracy": _percent(golden, test.labels),
    }
    if flip:
        mirrored = model.run(to_codes(list(test.images[..., ::-1, :]), program.input))
        figures["golden_accuracy_flipped"] = _percent(golden + mirrored, test.labels)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")
    click.echo(
        f"{len(test)} test images: float {figures['float_accuracy']} %, golden model {figures['golden_accuracy']} % "
        f"(T = {program.timesteps}, density {figures['density']})"
    )
    if flip:
        click.echo(f"golden model, each image and its mirror image: {figures['golden_accuracy_flipped']} %")


def _percent(logits: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    return round(100 * float(np.mean(logits.argmax(axis=1) == labels)), 3)


if __name__ == "__main__":
    cli.run(main, "accuracy.py")
