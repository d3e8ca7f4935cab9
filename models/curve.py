"""Loss and accuracy of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["draw_curve"]


def draw_curve(metrics: Path, picture: Path) -> None:
    """Draw ``metrics.jsonl`` of a run into a PNG: loss, accuracy and density over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.strip()]
    epochs = [line["epoch"] for line in lines]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    pairs = (("loss", "train_loss"), ("accuracy", "train_accuracy"), ("density",))
    for axes, names, unit in zip(panels, pairs, ("loss", "accuracy [%]", "share of non-zero events"), strict=True):
        for name in names:
            label = "training" if name.startswith("train_") else "held out"
            axes.plot(epochs, [line[name] for line in lines], marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
    rounded = [line["epoch"] for line in lines if line["quantised"]]
    if rounded and len(rounded) < len(epochs):
        for axes in panels:
            axes.axvline(rounded[0] - 0.5, color="grey", linestyle=":", label="rounding starts")
    panels[0].legend()
    figure.savefig(picture, dpi=110)
