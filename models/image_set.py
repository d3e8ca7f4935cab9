"""Images with their labels, as every reader of data sets gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError

__all__ = ["DataMissing", "ImageSet", "Images", "Labels", "class_difference", "even_sample", "image_set"]

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
_NAMED = 5


class DataMissing(InputError):
    """The files of a data set are not there, as opposed to damaged; says what was looked for and where."""


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set.

    Attributes
    ----------
    images : uint8 array
        (N, H, W, C), pixel codes; of event data (N, T, H, W, C), a frame for every time step.
    labels : int64 array
        (N,), indices into `classes`.
    classes : tuple of str
        Names of the classes.
    notes : tuple of str
        What was done to the pictures that a user may not expect.
    skipped : tuple of str
        A line for every picture that could not be read.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, count: int) -> ImageSet:
        """`count` images (0: all), of :func:`even_sample`."""
        if not count:
            return self
        chosen = even_sample(self.labels, count)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def even_sample(labels: Labels, count: int) -> NDArray[np.int64]:
    """Ascending indices of `count` images, the same ones every time: as many of every class, as far as there are.

    Folders of classes come in their order: the first so many images would be those of one class.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    place, rank = np.empty_like(order), np.empty_like(order)
    place[order] = np.arange(len(order))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        rank[own] = np.arange(len(own))
    return np.sort(np.lexsort((place, rank))[:count])


def image_set(images: Images, labels: NDArray[Any], classes: tuple[str, ...], where: str) -> ImageSet:
    """A split, checked: as many labels as images, none of them outside the classes, no image without pixels."""
    if len(images) != len(labels):
        raise InputError(f"{where}: {len(images)} images but {len(labels)} labels")
    if images.size == 0:
        raise InputError(f"{where}: holds no images" if len(images) == 0 else f"{where}: its images have no pixels")
    if int(labels.max()) >= len(classes) or int(labels.min()) < 0:
        raise InputError(f"{where}: a label is outside 0..{len(classes) - 1}")
    return ImageSet(images, labels.astype(np.int64), classes)


def class_difference(ours: Sequence[str], theirs: Sequence[str], us: str, them: str) -> str:
    """What two lists of classes do not share, in words; '' if they are equal."""
    parts = []
    for some, others, who in ((ours, theirs, us), (theirs, ours, them)):
        if only := [name for name in some if name not in set(others)]:
            more = ", ..." if len(only) > _NAMED else ""
            parts.append(f"only {who} has {', '.join(only[:_NAMED])}{more}")
    if not parts and tuple(ours) != tuple(theirs):
        parts.append(f"{us} and {them} have them in different order")
    return "; ".join(parts)
