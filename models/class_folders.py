"""Data sets of people's own: ``train/CLASS/`` and ``test/CLASS/`` with pictures of any size, grey or colour.

The conventions are torchvision's: classes are the folders, in sorted order; pictures may lie in folders below them; a
class without any is an error. Hidden files and folders are left out, which torchvision does not do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.image_set import Images, ImageSet, image_set
from reverb_fpga.models.pictures import SUFFIXES, cropped, find_pictures, fitted, is_hidden, picture_shape, read_image

__all__ = ["DEFAULT_SIDE", "IMAGENET_SIDE", "load_folder", "load_imagenet"]

IMAGENET_SIDE = 224
DEFAULT_SIDE = 32
"""What pictures of different sizes are brought to, unless a size is asked for."""

_MAX_BYTES = 8 << 30
_MAX_NAME = 200

Size = tuple[int, int]
Fit = Callable[[Images, tuple[int, int, int]], Images]


def load_imagenet(root: Path, split: str, size: Size | None, strict: bool) -> ImageSet:
    """ImageNet's layout: ``train/`` and ``val/`` (or ``test/``), colour, the middle of every picture at 224 x 224."""
    folder = "val" if split == "test" and (root / "val").is_dir() else split
    return load_folder(root, folder, size or (IMAGENET_SIDE, IMAGENET_SIDE), 3, strict, cropped)


def load_folder(
    root: Path, split: str, size: Size | None, channels: int | None, strict: bool, fit: Fit = fitted
) -> ImageSet:
    """Pictures of one split.

    Parameters
    ----------
    size : (height, width) or None
        What they are brought to; None: their own, or 32 x 32 where they differ.
    channels : int or None
        1 or 3; None: 1 if all are grey, else 3.
    strict : bool
        A picture that cannot be read is an error; otherwise it is left out and named.
    fit : callable
        Brings a picture to (height, width, channels).
    """
    base = root / split
    if not base.is_dir():
        raise InputError(f"{base}: no such folder; a folder data set holds train/CLASS/*.png and test/CLASS/*.png")
    classes = _classes(base)
    files = [(path, label) for label, name in enumerate(classes) for path in _pictures(base / name)]
    reader = _Reader(strict, fit)
    notes = _loose(base)
    if size is None:
        size, note = reader.common_size([path for path, _ in files])
        notes += note
    if len(files) * size[0] * size[1] * 3 > _MAX_BYTES:
        raise InputError(
            f"{base}: {len(files):,} pictures of {size[1]} x {size[0]} pixels are more than {_MAX_BYTES >> 30} GiB; "
            "ask for a smaller size (--image-size)"
        )
    found = [(image, label) for path, label in files if (image := reader.read(path, size, channels)) is not None]
    if not found:
        raise InputError(reader.skipped[0])
    kinds = Counter(image.shape[-1] for image, _ in found)
    if len(kinds) > 1:
        notes.append(f"{base}: {kinds[1]} grey pictures are taken as colour, like the other {kinds[3]}")
    shape = (*size, max(kinds))
    images = np.stack([fitted(image, shape) for image, _ in found])
    missing = [name for index, name in enumerate(classes) if index not in {label for _, label in found}]
    if missing:
        raise InputError(f"{base}: no picture of {', '.join(missing[:5])} can be read; {reader.skipped[0]}")
    checked = image_set(images, np.asarray([label for _, label in found]), classes, str(base))
    return ImageSet(checked.images, checked.labels, classes, tuple(notes), tuple(reader.skipped))


class _Reader:
    """Reads pictures, and keeps what cannot be read."""

    def __init__(self, strict: bool, fit: Fit) -> None:
        self.strict, self._fit = strict, fit
        self.skipped: list[str] = []
        self._bad: set[Path] = set()

    def common_size(self, paths: list[Path]) -> tuple[Size, list[str]]:
        """The size of all pictures, or the default; and a note in the second case."""
        sizes: Counter[Size] = Counter()
        for path in paths:
            try:
                sizes[picture_shape(path)] += 1
            except InputError as error:
                self._skip(path, error)
        if len(sizes) == 1:
            return next(iter(sizes)), []
        side = DEFAULT_SIDE
        if not sizes:
            return (side, side), []
        (height, width), count = sizes.most_common(1)[0]
        return (side, side), [
            f"pictures of {len(sizes)} sizes, most often {width} x {height} ({count:,} of {sizes.total():,}), are "
            f"brought to {side} x {side}; --image-size N chooses another size"
        ]

    def read(self, path: Path, size: Size, channels: int | None) -> Images | None:
        if path in self._bad:
            return None
        try:
            image = read_image(path)
        except InputError as error:
            self._skip(path, error)
            return None
        return self._fit(image, (*size, channels or image.shape[-1]))

    def _skip(self, path: Path, error: InputError) -> None:
        if self.strict:
            raise error
        self.skipped.append(str(error))
        self._bad.add(path)


def _classes(base: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in base.iterdir() if entry.is_dir() and not is_hidden(entry.name)))
    if not classes:
        raise InputError(f"{base}: holds no class folders")
    for name in classes:
        if not name.isprintable() or len(name) > _MAX_NAME:
            raise InputError(
                f"{base / name}: a class cannot have this name, which is kept in the network: at most {_MAX_NAME} "
                "printable characters; rename the folder"
            )
    return classes


def _pictures(folder: Path) -> list[Path]:
    found = find_pictures(folder)
    if not found:
        raise InputError(f"{folder}: a class folder without pictures ({', '.join(SUFFIXES)}); fill or remove it")
    return found


def _loose(base: Path) -> list[str]:
    names = [entry.name for entry in base.iterdir() if not entry.is_dir()]
    count = sum(Path(name).suffix.lower() in SUFFIXES and not is_hidden(name) for name in names)
    return [f"{base}: {count} pictures beside the class folders belong to no class and are left out"] if count else []
