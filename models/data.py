"""Data sets by name. numpy and Pillow only; nothing here imports torch.

Files come from strangers: sizes, headers and labels are checked before anything large is read, and nothing is executed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.cifar import load_cifar
from reverb_fpga.models.class_folders import load_folder, load_imagenet
from reverb_fpga.models.description import EVENTS
from reverb_fpga.models.event_set import load_events
from reverb_fpga.models.idx import load_idx
from reverb_fpga.models.image_set import Images, ImageSet

__all__ = ["DATASETS", "DEFAULT_DATA_DIR", "IMAGENET", "ImageSet", "Images", "load_split", "statistics"]

IMAGENET = "imagenet"
DATASETS = ("mnist", "fashion-mnist", "cifar10", "cifar100", "folder", IMAGENET, EVENTS)
DEFAULT_DATA_DIR = "data"
"""Where every command looks for data sets unless told otherwise."""

_SPLITS = ("train", "test")


def load_split(
    name: str,
    data_dir: Path | str,
    split: str,
    shape: tuple[int | None, int | None, int | None] = (None, None, None),
    *,
    strict: bool = False,
    steps: int = 1,
) -> ImageSet:
    """Read the ``train`` or ``test`` split of a data set.

    Parameters
    ----------
    name : str
        ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, or ``folder``: one sub-folder of pictures per class,
        below ``train/`` and ``test/`` (:mod:`reverb_fpga.models.class_folders`).
        ``imagenet``: the same in ``train/`` and ``val/``, of which the middle is cut out at 224 x 224;
        ``events``: recordings of event cameras or frames of them, likewise (:mod:`reverb_fpga.models.event_set`).
    data_dir : path
        Where the files lie, or a folder above: torchvision's layout and the archives' own are searched.
    split : str
        ``train`` or ``test``.
    shape : (height, width, channels)
        What the pictures of a folder are brought to; None: as they are. The other data sets have one shape.
    steps : int
        Frames of every sample of ``events``.
    strict : bool
        Whether a picture of a folder that cannot be read is an error; otherwise it is left out, and named in
        ``skipped``.

    Raises
    ------
    InputError
        No such data set, files missing (names what was looked for and where), damaged or unreasonably large.
    """
    root = Path(data_dir)
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if split not in _SPLITS:
        raise InputError(f"unknown split {split!r}; known: train, test")
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder; --data-dir must hold the files of {name}")
    if name in ("mnist", "fashion-mnist"):
        return load_idx(name, root, split)
    if name == EVENTS:
        return load_events(root, split, steps, _size(shape), strict)
    if name == IMAGENET:
        return load_imagenet(root, split, _size(shape), strict)
    if name == "folder":
        return load_folder(root, split, _size(shape), shape[2], strict)
    return load_cifar(name, root, split)


def _size(shape: tuple[int | None, int | None, int | None]) -> tuple[int, int] | None:
    height, width, _ = shape
    return None if height is None or width is None else (height, width)


def statistics(images: Images) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Mean (rounded to an integer pixel code) and deviation (pixel codes) per channel of (N, ..., H, W, C).

    The deviation is that of all channels together: input codes are then differences of pixels and nothing is rounded,
    where each channel's own would give codes of different steps (docs/numerics.md).
    """
    channels = images.shape[-1]
    counts = [np.bincount(images[..., c].ravel(), minlength=256).astype(float) for c in range(channels)]
    codes = np.arange(256.0)
    means = [float(count @ codes / count.sum()) for count in counts]
    variances = [float(count @ (codes - mean) ** 2 / count.sum()) for count, mean in zip(counts, means, strict=True)]
    std = round(max(float(np.sqrt(np.mean(variances))), 1.0), 4)
    return tuple(round(mean) for mean in means), (std,) * channels
