"""Loss and accuracy of a run as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curve", "read_metrics"]


_FEW = 10  # epochs that are marked one by one
_FIGURES = {"epoch", "quantised", "loss", "train_loss", "accuracy", "train_accuracy", "density", "densities"}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that hold an epoch's figures; none where there is no file."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            value = json.loads(text)
        except ValueError:
            continue  # cut short, when the machine was
        if isinstance(value, dict) and value.keys() >= _FIGURES:
            lines.append(value)
    return lines


def draw_curve(lines: Sequence[Mapping[str, Any]], picture: Path, title: str) -> None:
    """Draw the figures of a run into a PNG: loss, accuracy and density (per layer, too) over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [line["epoch"] for line in lines]
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    pairs = (("loss", "train_loss"), ("accuracy", "train_accuracy"), ("density",))
    for axes, names, unit in zip(panels, pairs, ("loss", "accuracy [%]", "share of non-zero events"), strict=True):
        for name in names:
            label = "training" if name.startswith("train_") else "all layers" if name == "density" else "held out"
            axes.plot(epochs, [line[name] for line in lines], marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
    for name in lines[-1]["densities"]:
        layer = [line["densities"].get(name) for line in lines]
        mark = "x" if len(epochs) < _FEW else None
        panels[2].plot(epochs, layer, linewidth=0.8, alpha=0.6, zorder=1, label=name, marker=mark)
    panels[2].legend(fontsize=7, ncols=2)
    if len(epochs) == 1:
        _single(panels, epochs[0])
    rounded = [line["epoch"] for line in lines if line["quantised"]]
    if rounded and len(rounded) < len(epochs):
        for axes in panels:
            axes.axvline(rounded[0] - 0.5, color="grey", linestyle=":", label="rounding starts")
    panels[0].legend()
    figure.suptitle(title)
    figure.savefig(picture, dpi=110)


def _single(panels: Sequence[Axes], epoch: int) -> None:
    """One epoch is no curve: its points are marked with their values."""
    for axes in panels:
        axes.set_xlim(epoch - 0.3, epoch + 1.7)  # the legend is on the right
        axes.set_xticks([epoch])
        axes.margins(y=0.25)
        for line in axes.get_lines():
            value = float(np.asarray(line.get_ydata())[0])
            axes.annotate(f"{value:.3g}", (epoch, value), (8, -3), textcoords="offset points", color=line.get_color())
