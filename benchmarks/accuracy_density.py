"""Accuracy against density: the same network trained at several density targets, ending in a plot.

    python benchmarks/accuracy_density.py --dataset fashion-mnist --data-dir data --epochs 6 --out runs/curve

Every target is a run of its own below --out; one that has finished is not repeated, one that was cut short is resumed.
Writes curve.json (target, accuracy on the test split, density, per layer) and curve.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from reverb_fpga.hw.errors import InputError, ReverbError
from reverb_fpga.models.augment import Augmentation
from reverb_fpga.models.train import Progress, Trainer, TrainSettings
from reverb_fpga.models.zoo import Options

UNCONSTRAINED = 1.0
TARGETS = (0.05, 0.1, 0.15, 0.2, 0.3, UNCONSTRAINED)


def point(settings: TrainSettings, target: float, out: Path) -> dict[str, object]:
    """Train at one density target (or read the finished run) and return its point of the curve."""
    free = target >= UNCONSTRAINED
    settings = replace(
        settings,
        activity_penalty=0.0 if free else settings.activity_penalty,
        density_target=target,
        initial_density=0.5 if free else max(0.1, min(0.5, 1.5 * target)),
    )
    result = out / "result.json"
    if not result.is_file():
        Trainer(settings, out, resume=(out / "last.safetensors").is_file(), progress=_show).run()
    value = json.loads(result.read_text(encoding="utf-8"))
    return {"target": None if free else target, **value}


def _show(state: Progress) -> None:
    if state.step == state.steps:
        print(f"  epoch {state.epoch + 1}/{state.epochs}: loss {state.loss:.3f}", file=sys.stderr)


def draw(points: list[dict[str, object]], title: str, picture: Path) -> None:
    """Accuracy over density, every point labelled with its target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    ordered = sorted(points, key=lambda entry: float(str(entry["density"])))
    densities = [100 * float(str(entry["density"])) for entry in ordered]
    accuracies = [float(str(entry["accuracy"])) for entry in ordered]
    axes.plot(densities, accuracies, marker="o")
    for x, y, entry in zip(densities, accuracies, ordered, strict=True):
        label = "no penalty" if entry["target"] is None else f"target {entry['target']}"
        axes.annotate(label, (x, y), textcoords="offset points", xytext=(4, -12), fontsize=8)
    axes.set_xlabel("density: non-zero events [%]")
    axes.set_ylabel("test accuracy [%]")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--arch", default=None, help="default: fmnist, or cnv for CIFAR")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=0, help="images (0: all)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--latent-rate", type=float, default=1.0, help="rate of latent binary weights, times --lr")
    parser.add_argument("--prune-ratio", type=float, default=0.0, help="share of well-known images left out")
    parser.add_argument("--penalty", type=float, default=2.0)
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS, help="1: no penalty")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        if not all(0 < target <= 1 for target in given.targets):
            raise InputError("every target must lie in 0..1 (1: no penalty)")
        small = "mnist" in given.dataset
        settings = TrainSettings(
            arch=given.arch or ("fmnist" if small else "cnv"),
            dataset=given.dataset,
            data_dir=given.data_dir,
            options=Options(act_bits=8, width=given.width),
            augmentation=Augmentation(2, given.dataset != "mnist"),
            epochs=given.epochs,
            batch_size=given.batch_size,
            lr=given.lr,
            latent_rate=given.latent_rate,
            prune_ratio=given.prune_ratio,
            limit=given.limit,
            activity_penalty=given.penalty,
            seed=given.seed,
        )
        points = []
        for target in given.targets:
            print(f"density target {target:g}", file=sys.stderr)
            points.append(point(settings, target, given.out / f"target-{target:g}"))
    except ReverbError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    (given.out / "curve.json").write_text(json.dumps(points, indent=2) + "\n", encoding="utf-8")
    draw(points, f"{settings.arch} on {given.dataset}, {given.epochs} epochs", given.out / "curve.png")
    for entry in points:
        print(f"target {entry['target']}: accuracy {entry['accuracy']} %, density {entry['density']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
