"""Distillation: a trained network's answers to the training images are learned beside the labels.

The loss of an image is ``(1 - w) * CE(logits, label) + w * t**2 * KL(softmax(teacher / t) || softmax(logits / t))``
(Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2). The teacher answers once
for every image, so that it costs nothing while training: the mean of its logits for the image and its mirror image,
where training mirrors images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.augment import batches
from reverb_fpga.models.checkpoint import load_checkpoint
from reverb_fpga.models.data import ImageSet
from reverb_fpga.models.image_set import class_difference
from reverb_fpga.models.network import Network
from reverb_fpga.models.tuning import bfloat16_pays

__all__ = ["Lessons", "answers", "load_teacher"]


@torch.no_grad()
def load_teacher(path: str, data: ImageSet) -> Network:
    """The network of the checkpoint at `path`.

    Raises InputError where the classes that it knows, or the size of its images, are not those of `data`.
    """
    teacher = load_checkpoint(path)
    if difference := class_difference(teacher.spec.labels, data.classes, "the teacher", "the data set"):
        raise InputError(f"{path}: the teacher knows other classes than the data set: {difference}")
    pixels, _ = next(batches(data, 1))
    try:
        teacher(pixels)
    except InputError as error:
        raise InputError(f"{path}: the teacher takes other images than those of the data set: {error}") from None
    return teacher


@torch.no_grad()
def answers(teacher: Network, data: ImageSet, mirror: bool, device: torch.device) -> Tensor:
    """Logits (N, classes) of `teacher` for all images of `data`, on the CPU; `mirror`: the mean with those of the
    mirror images."""
    teacher = teacher.to(device, memory_format=torch.channels_last)
    found = []
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_pays(device)):
        for pixels, _ in batches(data, 250):
            logits = teacher(pixels.to(device)).float()
            if mirror:
                logits = (logits + teacher(pixels.flip(-1).to(device)).float()) / 2
            found.append(logits.cpu())
    return torch.cat(found)


@dataclass(frozen=True)
class Lessons:
    """What a teacher says of every training image.

    Attributes
    ----------
    logits : Tensor
        (N, classes).
    weight : float
        Share of the loss that it has.
    temperature : float
        What logits are divided by.
    """

    logits: Tensor
    weight: float
    temperature: float

    def mix(self, losses: Tensor, logits: Tensor, positions: Tensor) -> Tensor:
        """`losses` (N,) of the labels and those of the teacher together, (N,); `positions` are the images', (N,)."""
        wanted = F.log_softmax(self.logits[positions].to(logits.device) / self.temperature, dim=1)
        given = F.log_softmax(logits / self.temperature, dim=1)
        apart = F.kl_div(given, wanted, reduction="none", log_target=True).sum(1)
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * apart
