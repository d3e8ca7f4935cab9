"""What a run starts from: its images, the network, and what a teacher says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.activity import set_initial_density
from reverb_fpga.models.checkpoint import Checkpoint
from reverb_fpga.models.data import ImageSet, load_split, statistics
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.distillation import Lessons, answers
from reverb_fpga.models.image_set import class_difference
from reverb_fpga.models.network import Network
from reverb_fpga.models.resizing import twin
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.zoo import DatasetSpec, build, describe

__all__ = ["held_out_twice", "initial_network", "lessons", "load_images", "smaller", "split"]


def load_images(settings: TrainSettings) -> tuple[ImageSet, ImageSet]:
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


def split(data: ImageSet, holdout: int, seed: int) -> tuple[ImageSet, ImageSet]:
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


def lessons(settings: TrainSettings, teacher: Network | None, train: ImageSet, device: torch.device) -> Lessons | None:
    """What the teacher of `settings` says of the images `train`; None without one."""
    if teacher is None:
        return None
    logits = answers(teacher, train, settings.augmentation.mirror, device)
    return Lessons(logits, settings.teacher_weight, settings.temperature)


def initial_network(settings: TrainSettings, data: ImageSet, start: Checkpoint | None) -> Network:
    """Random weights of the seed for images such as `data`, or those of the checkpoint `start`, which must fit."""
    mean, std = statistics(data.images)
    height, width, channels = data.images.shape[-3:]
    shape = InputSpec(channels, height, width, mean, std)
    network = build(settings.arch, DatasetSpec(settings.dataset, shape, data.classes), settings.options, settings.seed)
    set_initial_density(network, settings.initial_density)
    if start is not None:
        _transfer(start, network, settings.init)
    return network


def smaller(settings: TrainSettings, network: Network) -> Network | None:
    """The twin of `network` for the smaller images of `settings`; None without such."""
    if not settings.small_side:
        return None
    spec, side = network.spec, settings.small_side
    if side >= min(spec.input.height, spec.input.width):
        size = f"{spec.input.height} x {spec.input.width}"
        raise InputError(f"--small-side {side}: the images have no more than that, {size} pixels")
    shape = replace(spec.input, height=side, width=side)
    return twin(network, describe(settings.arch, DatasetSpec(spec.dataset, shape, spec.labels), settings.options))


def held_out_twice(settings: TrainSettings, start: Checkpoint | None) -> tuple[str, ...]:
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
