"""Accuracy and density of training runs, as their logs have them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.curve import read_metrics

__all__ = ["RunCurve", "read_runs"]

_LOG = "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class RunCurve:
    """One run: a point per epoch.

    Parameters
    ----------
    name : str
    epochs : tuple of int
    density : tuple of float
        Share of non-zero events over all layers, 0..1.
    accuracy : tuple of float
        On the images that training held out, percent.
    """

    name: str
    epochs: tuple[int, ...]
    density: tuple[float, ...]
    accuracy: tuple[float, ...]


def read_runs(path: Path) -> tuple[RunCurve, ...]:
    """The log at a path: a file, the folder of a run, or a folder of such folders.

    Raises
    ------
    InputError
        There is none that holds a finished epoch.
    """
    logs = [path] if path.is_file() else sorted([*path.glob(_LOG), *path.glob(f"*/{_LOG}")])
    curves = [_curve(log, path) for log in logs]
    found = tuple(curve for curve in curves if curve.epochs)
    if not found:
        raise InputError(f"{path}: holds no run with a finished epoch ({_LOG}, also in folders of it)")
    return found


def _curve(log: Path, path: Path) -> RunCurve:
    lines = [line for line in read_metrics(log) if all(map(_is_number, (line["epoch"], *_figures(line))))]
    pairs = [_figures(line) for line in lines]
    return RunCurve(
        name=log.name if log == path else log.parent.name,
        epochs=tuple(int(line["epoch"]) for line in lines),
        density=tuple(float(density) for density, _ in pairs),
        accuracy=tuple(float(accuracy) for _, accuracy in pairs),
    )


def _figures(line: dict[str, Any]) -> tuple[Any, Any]:
    return line["density"], line["accuracy"]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e9
