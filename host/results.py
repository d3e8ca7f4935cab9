"""What ``classify`` prints: the JSON object and the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import printable

from .backends import Outcome
from .console import make_table, output
from .inputs import Item

__all__ = ["Run", "print_table", "to_json"]

_MAX_ROWS = 200


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A finished classification.

    Parameters
    ----------
    program : Program
    backend : str
    items, outcomes : lists of equal length
    failed : list of str
        A line for every image that could not be read.
    seconds : float
        Inference alone, without reading images or starting the backend.
    """

    program: Program
    backend: str
    items: list[Item]
    outcomes: list[Outcome]
    seconds: float
    failed: list[str] = dataclasses.field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """Rate of inference."""
        return len(self.items) / self.seconds if self.seconds > 0 else 0.0

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, 0 to 1, among the images whose truth is known; None if it never is."""
        judged = [(i.truth, best(o)) for i, o in zip(self.items, self.outcomes, strict=True) if i.truth is not None]
        return sum(truth == found for truth, found in judged) / len(judged) if judged else None

    @property
    def cycles(self) -> list[int] | None:
        """Clock cycles per image, where the backend has a clock."""
        counts = [outcome.cycles for outcome in self.outcomes if outcome.cycles is not None]
        return counts if counts else None


def best(outcome: Outcome) -> int:
    """Index of the largest logit; the first of equals."""
    return int(np.argmax(outcome.logits))


def confidences(outcome: Outcome, logit_scale: float) -> NDArray[np.float64]:
    """Softmax of the real-valued logits."""
    real = np.asarray(outcome.logits, dtype=np.float64) * logit_scale
    powers = np.exp(real - real.max())
    return np.asarray(powers / powers.sum())


def to_json(run: Run) -> dict[str, Any]:
    """The object of ``--json``; confidences are the softmax of logits times ``logit_scale``."""
    return {
        "model": run.program.name,
        "backend": run.backend,
        "results": [
            {
                "image": item.name,
                "label": run.program.labels[best(outcome)],
                "index": best(outcome),
                "confidence": float(confidences(outcome, run.program.logit_scale)[best(outcome)]),
                "truth": None if item.truth is None else run.program.labels[item.truth],
                "logits": list(outcome.logits),
            }
            for item, outcome in zip(run.items, run.outcomes, strict=True)
        ],
        "failed": run.failed,
        "logit_scale": run.program.logit_scale,
        "accuracy": run.accuracy,
        "images_per_second": run.images_per_second,
        "cycles": run.cycles,
    }


def print_table(run: Run, top: int) -> None:
    """Table of images with a row for each of their ``top`` best labels, and a summary, on standard output."""
    console = output()
    known = any(item.truth is not None for item in run.items)
    several = top > 1
    table = make_table(*(("rank",) if several else ()), "label", "confidence", *(("truth",) if known else ()), "image")
    table.columns[2 if several else 1].justify = "right"
    for item, outcome in list(zip(run.items, run.outcomes, strict=True))[:_MAX_ROWS]:
        for rank, row in enumerate(_rows(run.program, item, outcome, top, known), start=1):
            table.add_row(*((str(rank),) if several else ()), *row)
    console.table(table)
    if len(run.items) > _MAX_ROWS:
        console.say(f"... and {len(run.items) - _MAX_ROWS} more (--json lists all)")
    console.say(_summary(run))


def _rows(program: Program, item: Item, outcome: Outcome, top: int, known: bool) -> Iterator[list[Text]]:
    """A row for each of the best labels. The image comes last, where a long name pushes nothing away."""
    chances = confidences(outcome, program.logit_scale)
    order = sorted(range(len(chances)), key=lambda i: -outcome.logits[i])[:top]
    right = item.truth == order[0]
    truth = "" if item.truth is None else program.labels[item.truth]
    verdict = Text(truth, style="green" if right else "red") + Text("" if right or not truth else "  wrong")
    for index in order:
        row = [Text(program.labels[index]), Text(f"{100 * chances[index]:.1f} %")]
        yield [*row, *([verdict] if known else []), Text(printable(item.name))]


def _summary(run: Run) -> str:
    program = run.program
    parts = [f"{program.name} ({program.arch}, {program.system}, T = {program.timesteps}) on {run.backend}"]
    parts.append(f"{len(run.items)} image{'s' if len(run.items) != 1 else ''}")
    if run.accuracy is not None:
        parts.append(f"{100 * run.accuracy:.2f} % right")
    rate = run.images_per_second
    parts.append(f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.3g} images/s")
    if run.cycles:
        parts.append(f"{sum(run.cycles) / len(run.cycles):,.0f} cycles an image")
    return ", ".join(parts)
