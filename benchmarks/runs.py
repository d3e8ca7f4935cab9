"""What benchmarks that train have in common: the options of their runs, and runs that are trained once and resumed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.augment import Augmentation
from reverb_fpga.models.description import DENSITY_OVER
from reverb_fpga.models.run_folder import RunFolder
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.train import Progress, Trainer
from reverb_fpga.models.zoo import usual_arch

__all__ = ["settings_of", "title_of", "trained", "training_options"]

_OPTIONS = (
    click.option("--dataset", default="cifar10", show_default=True),
    click.option("--arch", default=None, help="Network.  [default: fmnist, or cnv for CIFAR]"),
    click.option("--data-dir", default="data", show_default=True),
    click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True),
    click.option("--epochs", default=12, show_default=True),
    click.option("--width", default=1.0, show_default=True, help="Times the channels."),
    click.option("--limit", default=0, show_default=True, help="Images (0: all)."),
    click.option("--batch-size", default=64, show_default=True),
    click.option("--lr", default=2e-3, show_default=True),
    click.option("--latent-rate", default=4.0, show_default=True, help="Rate of latent binary weights, times --lr."),
    click.option("--prune-ratio", default=0.0, show_default=True, help="Share of well-known images an epoch omits."),
    click.option("--activity-penalty", default=1.0, show_default=True, help="Weight of density above the target."),
    click.option(
        "--density-over",
        type=click.Choice(DENSITY_OVER),
        default="layer",
        show_default=True,
        help="What must meet the target.",
    ),
    click.option("--qat-start", default=0.6, show_default=True, help="Share of the epochs before rounding, if any."),
    click.option("--holdout", default=2000, show_default=True, help="Training images for choosing the best epoch."),
    click.option("--init", default="", help="Checkpoint that every run starts from."),
    click.option("--threads", default=None, type=click.IntRange(1), help="CPU threads.  [default: all cores]"),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a click command the options of its runs; all but `out` go on to :func:`settings_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settings_of(dataset: str, arch: str | None, threads: int | None, **fields: Any) -> TrainSettings:
    """The settings that all runs share; `fields` are those of :class:`TrainSettings`. Sets torch's threads."""
    if threads:
        torch.set_num_threads(threads)
    return TrainSettings(
        arch=arch or usual_arch(dataset),
        dataset=dataset,
        augmentation=Augmentation.usual(dataset),
        **fields,
    )


def title_of(settings: TrainSettings, width: float) -> str:
    """Of a plot of runs: what was trained, and for how long."""
    images = f" of {settings.limit:,} images" if settings.limit else ""
    start = ", from trained weights" if settings.init else ""
    return f"{settings.arch} on {settings.dataset}, width {width:g}, {settings.epochs} epochs{images}{start}"


def trained(settings: TrainSettings, out: Path) -> dict[str, Any]:
    """What ``result.json`` of a run says (test accuracy in percent, density, ...); trains it unless it has finished.

    A run that was cut short is resumed. Raises InputError where the folder holds one with other settings.
    """
    folder = RunFolder(out)
    if folder.result() is None:
        Trainer(settings, out, resume=folder.last.is_file(), progress=_show).run()
    elif differing := folder.differing(settings):
        raise InputError(f"{out}: holds a run with other settings ({', '.join(differing)}); choose another --out")
    return folder.result() or {}


def _show(state: Progress) -> None:
    if state.step == state.steps:
        print(f"  epoch {state.epoch + 1}/{state.epochs}: loss {state.loss:.3f}", file=sys.stderr)
