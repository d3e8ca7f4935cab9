"""Batches of augmented images: shift, mirror and cut-out of uint8 images in one gather."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reverb_fpga.models.data import Images, ImageSet

__all__ = ["Augmentation", "Batch", "TrainingSet", "batches", "steps_of"]


_TURNED = 0x7422  # the seed of which images are mirrored first


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Attributes
    ----------
    shift : int
        Largest shift in pixels, both directions; the border is mirrored.
    mirror : bool
        Left-right, every other epoch: half of the images in each, chosen at random once.
    cutout : int
        Side of a square set to `fill`; 0: none.
    """

    shift: int = 2
    mirror: bool = True
    cutout: int = 0

    @classmethod
    def usual(cls, dataset: str) -> Augmentation:
        """What is customary for a data set: CIFAR 4 pixels, others 2; no mirroring of digits and unknown images."""
        return cls(
            4 if dataset.startswith("cifar") else 2, dataset in ("fashion-mnist", "cifar10", "cifar100", "imagenet")
        )


class Batch(NamedTuple):
    """Images (N, C, H, W) or (N, T, C, H, W) uint8, labels (N,), and where they lie in the training set, (N,)."""

    images: Tensor
    labels: Tensor
    positions: NDArray[np.int64]


class TrainingSet:
    """Images ready to be drawn in batches. The frames of a sample of event data are shifted and mirrored alike.

    Parameters
    ----------
    data : ImageSet
        The images.
    augmentation : Augmentation
        What is done to them.
    fill : tuple of int
        Pixel codes of a cut-out square, one per channel.
    """

    def __init__(self, data: ImageSet, augmentation: Augmentation, fill: tuple[int, ...]) -> None:
        self.augmentation = augmentation
        images = data.images
        self._frames = images.shape[1] if images.ndim == 5 else 0
        if self._frames:  # they are channels until a batch is complete
            images = np.moveaxis(images, 1, 3).reshape(len(images), *images.shape[2:4], -1)
        self.side = images.shape[1:3]
        border = augmentation.shift
        self._padded: Images = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
        self._labels = data.labels
        self._turned = np.random.default_rng(_TURNED).integers(2, size=len(data.labels))
        self._fill = np.tile(np.asarray(fill, np.uint8), max(1, self._frames))

    def __len__(self) -> int:
        return len(self._labels)

    def epoch(
        self,
        size: int,
        seed: int,
        epoch: int,
        share: tuple[int, int] = (0, 1),
        subset: NDArray[np.int64] | None = None,
    ) -> Iterator[Batch]:
        """Shuffled batches; the last, incomplete one is left out where there are others.

        The order and the augmentation follow from `seed` and `epoch` alone, so a resumed run repeats them. `share` is
        (rank, processes): which part of every batch to yield. `subset` holds the positions of the images to use (all).
        """
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self) if subset is None else len(subset))
        if subset is not None:
            order = subset[order]
        for start in range(0, size * steps_of(len(order), size), size):
            chosen = order[start : start + size]
            images, labels = self._augmented(chosen, rng, epoch), self._labels[chosen]
            part = slice(share[0], None, share[1])
            pixels = torch.from_numpy(images[part]).permute(0, 3, 1, 2)
            if self._frames:
                pixels = pixels.unflatten(1, (self._frames, -1))
            yield Batch(pixels, torch.from_numpy(labels[part]), chosen[part])

    def _augmented(self, chosen: np.ndarray, rng: np.random.Generator, epoch: int) -> Images:
        height, width = self.side
        count, span = len(chosen), 2 * self.augmentation.shift + 1
        rows = rng.integers(span, size=(count, 1)) + np.arange(height)
        columns = rng.integers(span, size=(count, 1)) + np.arange(width)
        if self.augmentation.mirror:
            # by turns: an image drawn the same way round twice in a row teaches less (Jordan 2024, airbench)
            turned = (self._turned[chosen, None] + epoch) % 2 == 1
            columns = np.where(turned, columns[:, ::-1], columns)
        images = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        if self.augmentation.cutout:
            self._cut(images, rng)
        return images

    def _cut(self, images: Images, rng: np.random.Generator) -> None:
        height, width = self.side
        half, count = self.augmentation.cutout / 2, len(images)
        y = rng.integers(height, size=(count, 1)) + 0.5
        x = rng.integers(width, size=(count, 1)) + 0.5
        inside_y = np.abs(np.arange(height) + 0.5 - y) <= half
        inside_x = np.abs(np.arange(width) + 0.5 - x) <= half
        images[inside_y[:, :, None] & inside_x[:, None, :]] = self._fill


def steps_of(images: int, size: int) -> int:
    """Batches of `size` in an epoch of so many images: the whole ones, or one that is incomplete."""
    return max(1, images // size)


def batches(data: ImageSet, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as (N, C, H, W) or (N, T, C, H, W) uint8, and labels."""
    for start in range(0, len(data), size):
        images = torch.from_numpy(np.array(data.images[start : start + size])).movedim(-1, -3)
        yield images, torch.from_numpy(data.labels[start : start + size])
