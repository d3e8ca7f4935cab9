"""Distillation: a trained network's answers to the training images are learned beside the labels.

The loss of an image is ``(1 - w) * CE(logits, label) + w * t**2 * KL(softmax(teacher / t) || softmax(logits / t))``
(Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2). The teacher answers once
for every image, the mean of its logits for the image and its mirror image, so that it costs nothing while training.
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
from reverb_fpga.models.tuning import bfloat16_pays

__all__ = ["Lessons", "answers"]


@torch.no_grad()
def answers(path: str, data: ImageSet, mirror: bool, device: torch.device) -> Tensor:
    """Logits (N, classes) of the checkpoint at `path` for all images of `data`, on the CPU.

    Raises InputError where the classes that it knows, or the size of its images, are not those of `data`.
    """
    teacher = load_checkpoint(path).to(device, memory_format=torch.channels_last)
    theirs, ours = teacher.spec.labels, data.classes
    if theirs != ours:
        raise InputError(f"{path}: the teacher knows other classes ({len(theirs)}) than the data set ({len(ours)})")
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
