"""Training: data, schedule, quantisation-aware phase, checkpoints. Everything follows from the settings' seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.activity import activity_penalty
from reverb_fpga.models.augment import Batch, TrainingSet, steps_of
from reverb_fpga.models.averaging import SETTLED_ON, WeightAverage
from reverb_fpga.models.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from reverb_fpga.models.distillation import load_teacher
from reverb_fpga.models.evaluation import Evaluation, evaluate
from reverb_fpga.models.flips import SignFlips
from reverb_fpga.models.network import Network
from reverb_fpga.models.optimise import Schedule, make_optimiser
from reverb_fpga.models.parallel import Team
from reverb_fpga.models.pruning import LossPruning
from reverb_fpga.models.resizing import resized
from reverb_fpga.models.run_folder import RunFolder
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.starting import (
    held_out_twice,
    initial_network,
    lessons,
    load_images,
    smaller,
    split,
)  # fmt: skip
from reverb_fpga.models.state import RunState, load_state, save_state
from reverb_fpga.models.tuning import bfloat16_pays, keep_memory

__all__ = ["Progress", "Trainer"]

_NEAR = 1.05  # times the target: a density that has settled about it


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
        full, self.test = load_images(settings)
        start = read_checkpoint(settings.init) if settings.init else None
        self.notes = full.notes + self.test.notes + held_out_twice(settings, start)
        self.skipped = full.skipped + self.test.skipped
        train, self.held_out = split(full, settings.holdout, settings.seed)
        self.network = initial_network(settings, full, start).to(self.team.device, memory_format=torch.channels_last)
        self.small = smaller(settings, self.network)
        if len(train) < 2 * self.team.size:
            raise InputError(f"{len(train)} training images are too few for {self.team.size} process(es)")
        if check is not None:
            check(self.network)
        teacher = load_teacher(settings.teacher, train) if settings.teacher else None
        # only now, so that nothing is written for data or settings that are wrong
        if self.team.leads:
            (self.folder.reopen if resume else self.folder.claim)(settings)
        self.team.wait()
        self.training = TrainingSet(train, settings.augmentation, self.network.spec.input.mean)
        self.optimiser = make_optimiser(self.network, settings.lr, settings.weight_decay, settings.latent_rate)
        self.steps = steps_of(len(train), settings.batch_size)
        self.schedule = Schedule(settings.lr, settings.warmup, self.steps * settings.epochs)
        self.pruning = LossPruning(len(train), settings.prune_ratio, settings.epochs, settings.seed, 2 * self.team.size)
        self.rounds = self.network.spec.rounds
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
        for network in (self.network, self.small or self.network):
            network.count_events(settings.activity_penalty > 0)
        self.lessons = lessons(settings, teacher, train, self.team.device)
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
        network = self._running(epoch)
        for every in (network, *self._networks().values()):
            every.set_quantised(quantised)
        network.train()
        tally = _Tally(len(self.training), self.team.size)
        drawn = self.pruning.draw(epoch)
        weights, positions = torch.from_numpy(drawn), np.flatnonzero(drawn)
        steps = steps_of(len(positions), settings.batch_size)
        share = (self.team.rank, self.team.size)
        source = self.training.epoch(settings.batch_size, settings.seed, epoch, share, positions)
        for step, batch in enumerate(source):
            if quantised and not self.state.quantised:
                self._start_rounding(network, batch.images)
            # an epoch that leaves images out takes fewer steps: the schedule goes by the share of the epoch
            position = (epoch + step / steps) * self.steps
            tally.add(batch, *self._step(network, position, batch, weights[batch.positions]))
            if self.progress is not None:
                mean = tally.loss / tally.seen
                self.progress(
                    Progress(epoch, settings.epochs, step + 1, steps, mean, tally.rate, self.state.last_accuracy)
                )
        self._finish_epoch(epoch, quantised, tally)

    def _running(self, epoch: int) -> Network:
        """What takes the images of an epoch: the network, or its twin for smaller ones."""
        if self.small is None or epoch >= self.settings.small_until * self.settings.epochs:
            return self.network
        return self.small

    def _start_rounding(self, network: Network, pixels: Tensor) -> None:
        """Measure the steps of the quantisers on one batch, normalised by itself as in training.

        The running statistics of a network that has not trained yet would make the steps grow from layer to layer.
        """
        network.initialise_scales(self._input(network, pixels))
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

    def _input(self, network: Network, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.team.device)
        return pixels if network is self.network else resized(pixels, self.settings.small_side)

    def _step(self, network: Network, position: float, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; returns the loss of every image and the logits."""
        settings, device = self.settings, self.team.device
        rate = self.schedule.rate(position)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        # codes of up to 8 bits and signs are exact in bfloat16; maps of averages stay in float32
        with torch.autocast(device.type, torch.bfloat16, enabled=self.short):
            logits = network(self._input(network, batch.images)).float()
        labels = batch.labels.to(device)
        losses = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing, reduction="none")
        if self.lessons is not None:
            losses = self.lessons.mix(losses, logits, torch.from_numpy(batch.positions))
        total = (losses * weights.to(device)).mean()
        if settings.activity_penalty and position >= settings.penalty_start * settings.epochs * self.steps:
            penalty = activity_penalty(network, settings.density_target, settings.density_over)
            total = total + settings.activity_penalty * penalty
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
        sparse = self._sparse(result.density)
        improved = counts and (sparse, result.accuracy) > (self.state.sparse, self.state.best)
        best, of_best = (result.accuracy, sparse) if improved else (self.state.best, self.state.sparse)
        epoch = int(str(line["epoch"]))
        state = RunState(epoch, best, self.state.quantised, result.accuracy, of_best)
        if self.team.leads:
            if improved:
                info = {"epoch": epoch, "held_out_accuracy": result.accuracy, "seed": self.settings.seed}
                save_checkpoint(self._judged, self.folder.best, info)
            self.folder.log(line)
            save_state(self.folder.last, self._networks(), self.optimiser, state, self.pruning.scores)
        self.state = state  # not before it is on disk: an interruption tells which epoch --resume goes on from
        if self.team.leads:
            self.folder.draw()

    def _sparse(self, density: float) -> bool:
        """Whether a penalty has brought the density to its target: denser epochs are more accurate, and not wanted."""
        settings = self.settings
        return settings.activity_penalty > 0 and density <= settings.density_target * _NEAR

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
