"""Training: data, schedule, quantisation-aware phase, checkpoints. Everything follows from the settings' seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.activity import activity_penalty, set_initial_density
from reverb_fpga.models.augment import Batch, TrainingSet, steps_of
from reverb_fpga.models.averaging import SETTLED_ON, WeightAverage
from reverb_fpga.models.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from reverb_fpga.models.data import ImageSet, load_split, statistics
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.distillation import Lessons, answers
from reverb_fpga.models.evaluation import Evaluation, evaluate
from reverb_fpga.models.flips import SignFlips
from reverb_fpga.models.image_set import class_difference
from reverb_fpga.models.network import Network
from reverb_fpga.models.optimise import Schedule, make_optimiser
from reverb_fpga.models.parallel import Team
from reverb_fpga.models.pruning import LossPruning
from reverb_fpga.models.run_folder import RunFolder
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.state import RunState, load_state, save_state
from reverb_fpga.models.tuning import bfloat16_pays, keep_memory
from reverb_fpga.models.zoo import DatasetSpec, build

__all__ = ["Progress", "Trainer"]


@dataclass(frozen=True)
class Progress:
    """Where training stands, after each step; `accuracy` is that of the last finished epoch (percent) or None."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    accuracy: float | None


class _Tally:
    """Sums over the images of an epoch, and the last loss of each of them."""

    def __init__(self, images: int, processes: int) -> None:
        self.started = time.perf_counter()
        self.processes = processes
        self.loss, self.correct, self.seen = 0.0, 0, 0
        self.losses, self.trained = torch.zeros(images), torch.zeros(images)

    def add(self, batch: Batch, losses: Tensor, logits: Tensor) -> None:
        losses = losses.cpu()
        self.loss += float(losses.sum())
        self.correct += int((logits.argmax(1).cpu() == batch.labels).sum())
        self.seen += len(losses)
        self.losses[batch.positions] = losses
        self.trained[batch.positions] = 1

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def rate(self) -> float:
        """Images per second, all processes together."""
        return self.processes * self.seen / self.seconds


class Trainer:
    """One run.

    Parameters
    ----------
    settings : TrainSettings
        What to train and how.
    out : Path
        Run folder; made where missing.
    resume : bool
        Go on from ``last.safetensors`` of the folder; the settings must be those of the run, but for the epochs.
    progress : callable, optional
        Called with a :class:`Progress` after every step.
    team : Team, optional
        The processes that train together, and the device of this one.
    check : callable, optional
        Called with the untrained network before anything is written; raises InputError for one that is of no use.

    Attributes
    ----------
    notes, skipped : tuple of str
        What was done to the pictures and is to be known of --init, and pictures that could not be read.

    Raises
    ------
    InputError
        Data missing, settings that do not fit, nothing to resume, or a folder that already holds a run.
    """

    def __init__(
        self,
        settings: TrainSettings,
        out: Path,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
        team: Team | None = None,
        check: Callable[[Network], None] | None = None,
    ) -> None:
        self.settings, self.folder, self.progress = settings, RunFolder(out), progress
        self.team = team or Team()
        settings.check(self.team.size)
        full, self.test = _load(settings)
        start = read_checkpoint(settings.init) if settings.init else None
        self.notes = full.notes + self.test.notes + _held_out_twice(settings, start)
        self.skipped = full.skipped + self.test.skipped
        train, self.held_out = _split(full, settings.holdout, settings.seed)
        self.network = _network(settings, full, start).to(self.team.device, memory_format=torch.channels_last)
        if len(train) < 2 * self.team.size:
            raise InputError(f"{len(train)} training images are too few for {self.team.size} process(es)")
        if check is not None:
            check(self.network)
        # only now, so that nothing is written for data or settings that are wrong
        if self.team.leads:
            (self.folder.reopen if resume else self.folder.claim)(settings)
        self.team.wait()
        self.training = TrainingSet(train, settings.augmentation, self.network.spec.input.mean)
        self.optimiser = make_optimiser(self.network, settings.lr, settings.weight_decay, settings.latent_rate)
        self.steps = steps_of(len(train), settings.batch_size)
        self.schedule = Schedule(settings.lr, settings.warmup, self.steps * settings.epochs)
        self.pruning = LossPruning(len(train), settings.prune_ratio, settings.epochs, settings.seed, 2 * self.team.size)
        self.rounds = any(tensor.learned_step for tensor in self.network.spec.tensors)
        self.average = WeightAverage(self.network, settings.average * self.steps) if settings.average else None
        self.state = RunState()
        if resume:
            self.state = load_state(self.folder.last, self._networks(), self.optimiser, self.pruning.scores)
            if self.average is not None:
                self.average.go_on()
            if self.state.epoch >= settings.epochs and not self.folder.best.is_file():
                raise InputError(
                    f"{out}: {self.state.epoch} epochs are done, none of them rounded; --epochs must be more"
                )
        self.flips = SignFlips(self.network)
        self.network.count_events(settings.activity_penalty > 0)
        self.lessons = _lessons(settings, train, self.team.device)
        self.short = bfloat16_pays(self.team.device)

    def run(self) -> Evaluation:
        """Train to the end; returns the test split's evaluation of the best network, which its file then notes."""
        keep_memory()
        try:
            for epoch in range(self.state.epoch, self.settings.epochs):
                self._epoch(epoch)
            return self._finish()
        finally:
            self.folder.release()

    def _epoch(self, epoch: int) -> None:
        settings = self.settings
        start = min(settings.qat_start * settings.epochs, settings.epochs - 1)
        quantised = self.rounds and epoch >= start
        for network in self._networks().values():
            network.set_quantised(quantised)
        self.network.train()
        tally = _Tally(len(self.training), self.team.size)
        drawn = self.pruning.draw(epoch)
        weights, positions = torch.from_numpy(drawn), np.flatnonzero(drawn)
        steps = steps_of(len(positions), settings.batch_size)
        share = (self.team.rank, self.team.size)
        source = self.training.epoch(settings.batch_size, settings.seed, epoch, share, positions)
        for step, batch in enumerate(source):
            if quantised and not self.state.quantised:
                self._start_rounding(batch.images)
            # an epoch that leaves images out takes fewer steps: the schedule goes by the share of the epoch
            position = (epoch + step / steps) * self.steps
            tally.add(batch, *self._step(position, batch, weights[batch.positions]))
            if self.progress is not None:
                mean = tally.loss / tally.seen
                self.progress(
                    Progress(epoch, settings.epochs, step + 1, steps, mean, tally.rate, self.state.last_accuracy)
                )
        self._finish_epoch(epoch, quantised, tally)

    def _start_rounding(self, pixels: Tensor) -> None:
        """Measure the steps of the quantisers on one batch, normalised by itself as in training.

        The running statistics of a network that has not trained yet would make the steps grow from layer to layer.
        """
        self.network.initialise_scales(pixels.to(self.team.device))
        self.team.share(self.network)
        if self.average is not None:
            self.average.restart()
        self.state = replace(self.state, quantised=True)

    def _networks(self) -> dict[str, Network]:
        """What a run consists of, by its name in the state."""
        trained = {"network": self.network}
        return trained if self.average is None else trained | {"average": self.average.network}

    @property
    def _judged(self) -> Network:
        """The network that the run gives: the average where there is one."""
        return self.network if self.average is None else self.average.network

    def _settle(self, epoch: int) -> None:
        """Give the average batch statistics of its own, on training images as they were drawn in `epoch`."""
        if self.average is None:
            return
        source = self.training.epoch(self.settings.batch_size, self.settings.seed, epoch)
        count = -(-SETTLED_ON // self.settings.batch_size)
        with torch.autocast(self.team.device.type, torch.bfloat16, enabled=self.short):
            self.average.settle(batch.images for batch in islice(source, count))

    def _finish_epoch(self, epoch: int, quantised: bool, tally: _Tally) -> None:
        seconds, rate = tally.seconds, tally.rate
        self.pruning.learn(self.team.sum(tally.losses).numpy(), self.team.sum(tally.trained).numpy() > 0)
        self.team.share(self.network)  # the parameters are equal already; the running statistics become rank 0's
        self._settle(epoch)
        result = evaluate(self._judged, self.held_out)
        flips = self.flips.share()
        self._record(
            {
                "epoch": epoch + 1,
                "quantised": quantised,
                "lr": self.schedule.rate((epoch + 1) * self.steps - 1),
                "train_loss": round(tally.loss / tally.seen, 5),
                "train_accuracy": round(100 * tally.correct / tally.seen, 3),
                "accuracy": round(result.accuracy, 3),
                "loss": round(result.loss, 5),
                "density": round(result.density, 4),
                "sign_flips": None if flips is None else round(flips, 5),
                "densities": {name: round(value, 4) for name, value in result.densities.items()},
                "images": self.team.size * tally.seen,
                "seconds": round(seconds, 1),
                "images_per_second": round(rate, 1),
            },
            result,
        )
        self.team.wait()

    def _step(self, position: float, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; returns the loss of every image and the logits."""
        settings, device = self.settings, self.team.device
        rate = self.schedule.rate(position)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        # codes of up to 8 bits and signs are exact in bfloat16; maps of averages stay in float32
        with torch.autocast(device.type, torch.bfloat16, enabled=self.short):
            logits = self.network(batch.images.to(device)).float()
        labels = batch.labels.to(device)
        losses = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing, reduction="none")
        if self.lessons is not None:
            losses = self.lessons.mix(losses, logits, torch.from_numpy(batch.positions))
        total = (losses * weights.to(device)).mean()
        if settings.activity_penalty and position >= settings.penalty_start * settings.epochs * self.steps:
            total = total + settings.activity_penalty * activity_penalty(self.network, settings.density_target)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.team.average_gradients(self.network)
        self.optimiser.step()
        self.network.constrain()
        if self.average is not None:
            self.average.add(self.network)
        if not math.isfinite(value := float(total.detach())):
            raise InputError(f"training diverged (loss {value}) in epoch {self.state.epoch + 1}; lower --lr")
        return losses.detach(), logits.detach()

    def _record(self, line: dict[str, object], result: Evaluation) -> None:
        # a checkpoint is used with rounding: epochs before it began would mislead
        counts = not self.rounds or self.state.quantised
        improved = counts and result.accuracy > self.state.best
        best = result.accuracy if improved else self.state.best
        epoch = int(str(line["epoch"]))
        state = RunState(epoch, best, self.state.quantised, result.accuracy)
        if self.team.leads:
            if improved:
                info = {"epoch": epoch, "held_out_accuracy": result.accuracy, "seed": self.settings.seed}
                save_checkpoint(self._judged, self.folder.best, info)
            self.folder.log(line)
            save_state(self.folder.last, self._networks(), self.optimiser, state, self.pruning.scores)
        self.state = state  # not before it is on disk: an interruption tells which epoch --resume goes on from
        if self.team.leads:
            self.folder.draw()

    def _finish(self) -> Evaluation:
        best = load_checkpoint(self.folder.best).to(self.team.device)
        result = evaluate(best, self.test)
        if not self.team.leads:
            return result
        info: dict[str, float | int | str] = {
            "accuracy": round(result.accuracy, 3),
            "test_images": result.images,
            "density": round(result.density, 5),
            "epochs": self.settings.epochs,
            "seed": self.settings.seed,
            "held_out_accuracy": round(self.state.best, 3),
        }
        save_checkpoint(best, self.folder.best, info)
        self.folder.finish(info | {"densities": result.densities})
        return result


def _load(settings: TrainSettings) -> tuple[ImageSet, ImageSet]:
    """Training and test images, of one shape and with the same classes."""
    side = settings.image_size or None
    where = (settings.dataset, settings.data_dir)
    how: dict[str, Any] = {"strict": settings.strict, "steps": settings.options.timesteps}
    train = load_split(*where, "train", (side, side, None), **how)
    test = load_split(*where, "test", train.images.shape[-3:], **how)
    if difference := class_difference(train.classes, test.classes, "train", "test"):
        raise InputError(f"{settings.data_dir}: training and test images have different classes: {difference}")
    if test.images.shape[1:] != train.images.shape[1:]:
        raise InputError(f"{settings.data_dir}: training and test images of {settings.dataset} differ in size")
    return train.sample(settings.limit), test.sample(settings.limit)


def _split(data: ImageSet, holdout: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training images and held-out ones (at most a fifth), chosen by the seed."""
    count = min(holdout, len(data) // 5)
    if count < 1:
        raise InputError(f"{len(data)} training images are too few to hold some out; at least 5 are needed")
    order = np.random.default_rng((seed, 1 << 20)).permutation(len(data))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return (
        ImageSet(data.images[kept], data.labels[kept], data.classes),
        ImageSet(data.images[held], data.labels[held], data.classes),
    )


def _lessons(settings: TrainSettings, train: ImageSet, device: torch.device) -> Lessons | None:
    if not settings.teacher:
        return None
    logits = answers(settings.teacher, train, settings.augmentation.mirror, device)
    return Lessons(logits, settings.teacher_weight, settings.temperature)


def _network(settings: TrainSettings, data: ImageSet, start: Checkpoint | None) -> Network:
    mean, std = statistics(data.images)
    height, width, channels = data.images.shape[-3:]
    shape = InputSpec(channels, height, width, mean, std)
    network = build(settings.arch, DatasetSpec(settings.dataset, shape, data.classes), settings.options, settings.seed)
    set_initial_density(network, settings.initial_density)
    if start is not None:
        _transfer(start, network, settings.init)
    return network


def _held_out_twice(settings: TrainSettings, start: Checkpoint | None) -> tuple[str, ...]:
    """What is to be said of weights that may have seen images which this run holds out: those of another seed."""
    if start is None or start.spec.dataset != settings.dataset:
        return ()
    seed = start.info.get("seed", settings.seed)
    if seed == settings.seed:
        return ()
    told = f"{settings.init} was trained with --seed {seed}, which held out other images"
    return (f"{told}: accuracy on those held out now may be far too high; give its seed",)


def _transfer(source: Checkpoint, target: Network, path: str) -> None:
    """Copy every tensor of `source` that `target` has; steps of codes that it lacks are set when rounding starts."""
    theirs, ours = source.tensors, target.state_dict()
    for name in target.spec.tensor_shapes():
        if name in theirs and theirs[name].shape == ours[name].shape:
            ours[name].copy_(torch.from_numpy(theirs[name].copy()))
        elif not name.endswith((".scale", ".alpha")):
            raise InputError(f"{path}: does not fit {target.spec.arch}: {name} is missing or of another shape")
