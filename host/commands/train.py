"""``reverb-fpga train``: train a network, with progress, resume and a curve."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reverb_fpga.hw import interrupts
from reverb_fpga.hw.config import PRESETS
from reverb_fpga.hw.errors import EnvironmentMissing, Interrupted, printable
from reverb_fpga.models.data import DEFAULT_DATA_DIR
from reverb_fpga.models.description import BINARY_SPIKES, DENSITY_OVER, EVENTS, FLOAT, SYSTEMS

from .. import progress
from ..target_check import fits

if TYPE_CHECKING:
    from reverb_fpga.models.evaluation import Evaluation
    from reverb_fpga.models.settings import TrainSettings
    from reverb_fpga.models.train import Progress, Trainer

__all__ = ["command", "train"]

_SKIPPED = 10  # lines
_EXAMPLES = """\b
Examples:
  reverb-fpga train --dataset fashion-mnist --data-dir data --out runs/fmnist
  reverb-fpga train --arch cnv --dataset cifar10 --data-dir data --epochs 46 --batch-size 64 --lr 2e-3 \\
                    --prune-ratio 0.5 --out runs/cnv
  reverb-fpga train --arch cnv --dataset cifar10 --data-dir data --timesteps 2 --v-th 0.25 \\
                    --init runs/cnv/best.safetensors --lr 1e-3 --epochs 5 --out runs/cnv-t2
  reverb-fpga train ... --out runs/cnv --resume
  torchrun --nproc-per-node 4 -m reverb_fpga.host.cli train --arch cnv --dataset cifar10 --out runs/cnv

The folder given by --out receives best.safetensors (compile it with `reverb-fpga compile`), last.safetensors,
metrics.jsonl, curve.png, settings.json and result.json. The best epoch is chosen on held-out training images;
the test split is read once, at the end."""


@click.command(epilog=_EXAMPLES)
@click.option("--arch", default=None, help="Network, for example cnv or resnet20-classic.  [default: by data set]")
@click.option(
    "--dataset",
    type=click.Choice(["fashion-mnist", "mnist", "cifar10", "cifar100", "folder", "imagenet", "events"]),
    default="fashion-mnist",
    show_default=True,
    help="Data set; 'folder' is train/CLASS/ and test/CLASS/ with pictures, 'imagenet' the same "
    "with the middle cut out, 'events' the same with recordings of "
    "event cameras.",
)
@click.option("--data-dir", default=DEFAULT_DATA_DIR, show_default=True, help="Folder with the data set's files.")
@click.option(
    "--image-size",
    type=click.IntRange(8, 1024),
    metavar="N",
    help="Data sets folder, imagenet, events: bring pictures to N x N.  [default: their size; imagenet: 224]",
)
@click.option("--strict", is_flag=True, help="Data set folder: stop at a picture that cannot be read.")
@click.option(
    "--target",
    type=click.Choice([*PRESETS, "none"]),
    default="ulx3s-85f",
    show_default=True,
    help="Configuration that the network must fit, as for `compile`; checked before training. none: no check.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option(
    "--system",
    type=click.Choice([*SYSTEMS, FLOAT]),
    default="reverb-learnable",
    show_default=True,
    help="Real-valued spikes with binary weights, without or with learnable scales, or with ternary weights; spikes of "
    "0 and 1 with weights of several bits (snn), binary ones (bsnn), and binary ones with a gate (agmm-bsnn); "
    "float: real weights and real-valued spikes, a --teacher that does not compile.",
)
@click.option("--timesteps", type=click.IntRange(1, 64), default=1, show_default=True, help="Time steps T.")
@click.option(
    "--v-th",
    type=click.FloatRange(0, 100),
    default=None,
    help="Threshold.  [default: 0; events: 0.25; binary spikes: 0.5]",
)
@click.option("--tau", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="Leak per time step.")
@click.option(
    "--act-bits",
    type=click.Choice(["8", "6", "4", "float"]),
    default="8",
    show_default=True,
    help="Bits of activations, with learned scales; float: quantised by the compiler.",
)
@click.option("--first-bits", type=click.IntRange(1, 8), help="Weights, first layer.  [default: 4; (agmm-)bsnn: 8]")
@click.option("--last-bits", type=click.IntRange(2, 8), help="Weights, last layer.  [default: 4; (agmm-)bsnn: 8]")
@click.option(
    "--weight-bits",
    type=click.Choice(["8", "6", "4", "2", "float"]),
    help="Weights of system snn; float does not compile.  [default: 8]",
)
@click.option(
    "--shortcuts",
    type=click.Choice(["block", "double"]),
    help="Residual networks: around two convolutions or around each.  [default: block; (agmm-)bsnn: double]",
)
@click.option(
    "--gate-mean",
    type=click.Choice(["channel", "layer"]),
    default="channel",
    show_default=True,
    help="System agmm-bsnn: what the mean in its gate runs over.",
)
@click.option(
    "--pool-mode",
    type=click.Choice(["current", "spike"]),
    default="current",
    show_default=True,
    help="Average the current before the neuron, or the spikes after it.",
)
@click.option("--width", type=click.FloatRange(0.01, 16), default=1.0, show_default=True, help="Times the channels.")
@click.option("--epochs", type=click.IntRange(1, 10_000), default=12, show_default=True)
@click.option("--batch-size", type=click.IntRange(2, 65_536), default=128, show_default=True)
@click.option(
    "--lr",
    type=click.FloatRange(0, 10, min_open=True, max_open=True),
    default=3e-3,
    show_default=True,
    help="Peak learning rate (AdamW, cosine).",
)
@click.option(
    "--latent-rate",
    type=click.FloatRange(0.001, 999),
    default=4.0,
    show_default=True,
    help="Learning rate of the latent binary weights, times --lr.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(0, 100),
    default=0.0,
    show_default=True,
    help="Of real and multi-bit weights (AdamW, times the rate); latent weights that count by sign have none.",
)
@click.option(
    "--average",
    type=click.FloatRange(0, 1000),
    default=0.0,
    show_default=True,
    metavar="EPOCHS",
    help="Keep the average of the weights over about so many of the last epochs; 0: the last weights.",
)
@click.option(
    "--small-side",
    type=click.IntRange(0, 4096),
    default=0,
    metavar="PIXELS",
    help="Begin with images of this side (progressive resizing); for networks that end in a mean over the map.",
)
@click.option(
    "--small-until",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the epochs that have such images.",
)
@click.option(
    "--prune-ratio",
    type=click.FloatRange(0, 0.99),
    default=0.0,
    show_default=True,
    help="Leave out this share of the images whose loss is below the mean, in each epoch (InfoBatch); 0: none.",
)
@click.option(
    "--teacher",
    default="",
    metavar="FILE",
    help="Checkpoint of a trained network whose answers to the training images are learned, too (distillation).",
)
@click.option(
    "--teacher-weight",
    type=click.FloatRange(0, 1),
    default=0.7,
    show_default=True,
    help="Share of the loss that the teacher's answers have; the labels have the rest.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0.1, 100),
    default=4.0,
    show_default=True,
    help="By which logits are divided before they are compared with the teacher's.",
)
@click.option("--label-smoothing", type=click.FloatRange(0, 0.9), default=0.05, show_default=True)
@click.option(
    "--activity-penalty",
    type=click.FloatRange(0, 1000),
    default=1.0,
    show_default=True,
    help="Weight of the penalty on density above the target; 0: none.",
)
@click.option(
    "--density-target",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Share of neurons that may fire before the penalty acts.",
)
@click.option(
    "--density-over",
    type=click.Choice(DENSITY_OVER),
    default="layer",
    show_default=True,
    help="What must meet the target: every layer, or the network, whose layers may then differ.",
)
@click.option(
    "--penalty-start",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the epochs before the penalty acts: late costs less accuracy than from the start.",
)
@click.option(
    "--initial-density",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.35,
    show_default=True,
    help="Share of neurons per layer that fire at the start; without effect on --init.",
)
@click.option(
    "--qat-start",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Share of the epochs before activations are rounded; the last epoch always is.",
)
@click.option("--shift", type=click.IntRange(0, 64), default=None, help="Augmentation: pixels.  [default: by data set]")
@click.option("--mirror/--no-mirror", default=None, help="Augmentation: left-right.  [default: by data set]")
@click.option("--cutout", type=click.IntRange(0, 64), default=0, show_default=True, help="Augmentation: square side.")
@click.option(
    "--holdout",
    type=click.IntRange(1, 1_000_000),
    default=2000,
    show_default=True,
    help="Training images kept for choosing the best epoch; at most a fifth of all.",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=0,
    help="So many training and test images, of every class (0: all).",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--init", default="", help="Start from the weights of this checkpoint.")
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch of --out; --epochs may differ.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option("--threads", type=click.IntRange(1, 1024), default=None, help="CPU threads.  [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
def train(
    out: Path, resume: bool, device: str, threads: int | None, as_json: bool, no_progress: bool, target: str,
    **options: Any,
) -> None:  # fmt: skip
    """Train a network with binary weights and real-valued spikes.

    Activations are trained in float first and then with the rounding that the hardware does, so that the accuracy
    reported is what the compiled model gives. Density (the share of non-zero events) is logged per layer, for the
    accelerator's time is proportional to it.
    """
    try:
        import torch

        from reverb_fpga.models.parallel import join_team
        from reverb_fpga.models.train import Trainer
    except ImportError as error:
        raise EnvironmentMissing(
            f"training needs {error.name}, which is not installed: pip install 'reverb-fpga[train]'"
        ) from None
    if threads is not None:
        torch.set_num_threads(threads)
    settings = _settings(options)
    started = time.perf_counter()
    team = join_team(device)
    if team.leads:
        _announce(settings)
    shown = team.leads and not no_progress
    with progress.bar("reading data", 1, enabled=shown):
        trainer = Trainer(settings, out, resume, team=team, check=fits(target) if target != "none" else None)
    if team.leads:
        _tell(trainer)
    with _progress_bar(settings.epochs, enabled=shown) as show:
        trainer.progress = _checked(show)
        try:
            result = trainer.run()
        except KeyboardInterrupt:
            done = trainer.state.epoch
            kept = f"after epoch {done}; go on with --resume" if done else "in the first epoch; nothing was kept"
            raise Interrupted(f"interrupted {kept}") from None
    if team.leads:
        _report(trainer, result, out, time.perf_counter() - started, as_json)


command = train


def _settings(options: dict[str, Any]) -> TrainSettings:
    from reverb_fpga.models.augment import Augmentation
    from reverb_fpga.models.settings import TrainSettings
    from reverb_fpga.models.zoo import Options, usual_arch

    dataset, system = options.pop("dataset"), options.pop("system")
    v_th, act_bits, weight_bits = (options.pop(name) for name in ("v_th", "act_bits", "weight_bits"))
    if system == "snn":
        weight_bits = weight_bits or "8"
    network = Options(
        system=system,
        timesteps=options.pop("timesteps"),
        v_th=_usual_threshold(system, dataset) if v_th is None else v_th,
        tau=options.pop("tau"),
        act_bits=None if act_bits == "float" else int(act_bits),
        weight_bits=None if weight_bits in (None, "float") else int(weight_bits),
        first_bits=options.pop("first_bits"),
        last_bits=options.pop("last_bits"),
        pool_mode=options.pop("pool_mode"),
        shortcuts=options.pop("shortcuts"),
        gate_mean=options.pop("gate_mean"),
        width=options.pop("width"),
    )
    shift, mirror = options.pop("shift"), options.pop("mirror")
    usual = Augmentation.usual(dataset)
    augmentation = Augmentation(
        shift=usual.shift if shift is None else shift,
        mirror=usual.mirror if mirror is None else mirror,
        cutout=options.pop("cutout"),
    )
    arch = options.pop("arch") or usual_arch(dataset)
    options["image_size"] = options["image_size"] or 0
    return TrainSettings(arch=arch, dataset=dataset, options=network, augmentation=augmentation, **options)


def _usual_threshold(system: str, dataset: str) -> float:
    if system in BINARY_SPIKES:
        return 0.5
    return 0.25 if dataset == EVENTS else 0.0


def _announce(settings: TrainSettings) -> None:
    """What a user may not expect of these settings."""
    options = settings.options
    if options.timesteps > 1 and options.v_th == 0 and settings.dataset != "events":
        click.echo(
            f"with --v-th 0 and still images all {options.timesteps} steps are the same: one is computed", err=True
        )


def _tell(trainer: Trainer) -> None:
    """What became of the pictures that a user may not expect."""
    for note in trainer.notes:
        click.echo(f"note: {printable(note)}", err=True)
    for line in trainer.skipped[:_SKIPPED]:
        click.echo(f"not read: {line}", err=True)
    if trainer.skipped:
        click.echo(f"note: {len(trainer.skipped)} pictures could not be read and are left out", err=True)


@contextmanager
def _progress_bar(epochs: int, enabled: bool) -> Iterator[Any]:
    """A bar over all epochs on standard error; yields the callback, or None where there is no terminal to show it."""
    with progress.share(f"epoch 1/{epochs}", "starting", enabled=enabled) as bar:
        if bar is None:
            yield None
            return

        def show(state: Progress) -> None:
            accuracy = "" if state.accuracy is None else f", held out {state.accuracy:.2f} %"
            done = state.epoch + state.step / state.steps
            figures = f"loss {state.loss:.3f}, {state.images_per_second:.0f} images/s{accuracy}"
            bar(f"epoch {state.epoch + 1}/{state.epochs}", done, state.epochs, figures)

        yield show


def _checked(show: Any) -> Callable[[Progress], None]:
    """After every batch: what libraries may have swallowed of a Ctrl-C is raised here, where nothing swallows it."""

    def step(state: Progress) -> None:
        interrupts.check()
        if show is not None:
            show(state)

    return step


def _report(trainer: Trainer, result: Evaluation, out: Path, seconds: float, as_json: bool) -> None:
    best = out / "best.safetensors"
    if as_json:
        value = {
            "checkpoint": str(best),
            "accuracy": round(result.accuracy, 3),
            "test_images": result.images,
            "held_out_accuracy": round(trainer.state.best, 3),
            "density": round(result.density, 4),
            "densities": {name: round(share, 4) for name, share in result.densities.items()},
            "seconds": round(seconds, 1),
            "skipped": list(trainer.skipped),
        }
        click.echo(json.dumps(value))
        return
    layers = ", ".join(f"{name} {100 * share:.0f}" for name, share in result.densities.items())
    click.echo(
        f"test accuracy {result.accuracy:.2f} % ({result.images:,} images), "
        f"density {100 * result.density:.1f} % (per layer: {layers})"
    )
    click.echo(
        f"trained in {seconds:.0f} s; network: {printable(str(best))}; curve: {printable(str(out / 'curve.png'))}"
    )
    if all(layer.weight.kind != "real" for layer in trainer.network.spec.layers):
        click.echo(printable(f"next: reverb-fpga compile {best} -o {out.resolve().name}.rvb"))
