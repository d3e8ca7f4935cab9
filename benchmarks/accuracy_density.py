"""Accuracy against density: the same network trained at several density targets, ending in a plot.

    python benchmarks/accuracy_density.py --dataset fashion-mnist --data-dir data --epochs 6 --out runs/curve
    python benchmarks/accuracy_density.py --data-dir data --init runs/cnv/best.safetensors --epochs 3 --lr 1e-3 \
        --qat-start 0 --activity-penalty 2 --out runs/curve-tuned

Every target is a run of its own below --out; one that has finished is not repeated, one that was cut short is resumed.
Writes curve.json (target, accuracy on the test split, density, per layer) and curve.png.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from runs import settings_of, title_of, trained, training_options

from reverb_fpga.host import cli
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.zoo import Options

UNCONSTRAINED = 1.0
TARGETS = (0.05, 0.1, 0.15, 0.2, 0.3, UNCONSTRAINED)


def at_target(settings: TrainSettings, target: float) -> TrainSettings:
    """The settings of one point: the penalty acts above `target`, or not at all."""
    penalty = settings.activity_penalty if target < UNCONSTRAINED else 0.0
    return replace(settings, activity_penalty=penalty, density_target=target)


def draw(points: list[dict[str, Any]], title: str, picture: Path) -> None:
    """Accuracy over density, every point labelled with its target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    ordered = sorted(points, key=lambda entry: float(entry["density"]))
    densities = [100 * float(entry["density"]) for entry in ordered]
    accuracies = [float(entry["accuracy"]) for entry in ordered]
    axes.plot(densities, accuracies, marker="o")
    for x, y, entry in zip(densities, accuracies, ordered, strict=True):
        label = "no penalty" if entry["target"] is None else f"target {entry['target']}"
        axes.annotate(label, (x, y), textcoords="offset points", xytext=(4, -12), fontsize=8)
    axes.margins(x=0.15, y=0.15)  # room for the labels
    axes.set_xlabel("density: non-zero events [%]")
    axes.set_ylabel("test accuracy [%]")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


@click.command(help=__doc__)
@training_options
@click.option("--act-bits", type=click.IntRange(2, 8), default=8, show_default=True, help="Of the activations.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--target",
    "targets",
    type=click.FloatRange(0, 1, min_open=True),
    multiple=True,
    default=TARGETS,
    show_default=True,
    help="Density target, once for each point; 1: no penalty.",
)
def main(out: Path, width: float, act_bits: int, targets: tuple[float, ...], **options: Any) -> None:
    """Entry point."""
    settings = settings_of(options=Options(act_bits=act_bits, width=width), **options)
    points = []
    for target in targets:
        print(f"density target {target:g}", file=sys.stderr)
        result = trained(at_target(settings, target), out / f"target-{target:g}")
        points.append({"target": None if target >= UNCONSTRAINED else target, **result})
    (out / "curve.json").write_text(json.dumps(points, indent=2) + "\n", encoding="utf-8")
    draw(points, title_of(settings, width), out / "curve.png")
    click.echo("target       test accuracy %   density %")
    for entry in points:
        target = "no penalty" if entry["target"] is None else f"{entry['target']:g}"
        click.echo(f"{target:12} {entry['accuracy']:15.2f} {100 * entry['density']:11.1f}")


if __name__ == "__main__":
    cli.run(main, "accuracy_density.py")
