"""What ``classify`` is to classify: image files, bundled images or a data set, with the truth where it is known."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import InputError

from . import bundled, images

__all__ = ["Item", "Selection", "gather_items"]

_MESSAGE_NAMES = 3


@dataclasses.dataclass(frozen=True)
class Item:
    """One image.

    Parameters
    ----------
    name : str
        Path, or data set and index.
    truth : int or None
        Index of its true label, where known.
    load : callable
        Its pixels, (H, W, C) uint8.
    """

    name: str
    truth: int | None
    load: Callable[[], NDArray[np.uint8]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Which images: paths, or a data set, or neither (the bundled images).

    Parameters
    ----------
    paths : tuple of Path
    dataset : str or None
    data_dir : Path or None
    limit : int or None
        At most so many.
    """

    paths: tuple[Path, ...] = ()
    dataset: str | None = None
    data_dir: Path | None = None
    limit: int | None = None


def gather_items(selection: Selection, program: Program) -> list[Item]:
    """The images that a selection names, in order.

    Raises
    ------
    InputError
        Paths and a data set together, a missing path, no bundled images for this model, other classes.
    """
    if selection.dataset is not None and selection.paths:
        raise InputError("give either image files or --dataset, not both")
    if (selection.dataset is None) != (selection.data_dir is None):
        raise InputError("--dataset NAME and --data-dir DIR go together")
    if selection.dataset is not None and selection.data_dir is not None:
        items = _from_dataset(selection.dataset, selection.data_dir, program)
    elif selection.paths:
        items = [_from_file(path, program) for path in images.find_images(selection.paths)]
    else:
        items = _bundled(program)
    return items[: selection.limit]


def _from_dataset(name: str, data_dir: Path, program: Program) -> list[Item]:
    from reverb_fpga.models.data import load_split

    split = load_split(name, data_dir, "test")
    if tuple(split.classes) != program.labels:
        raise InputError(
            f"data set {name} and model {program.name} ({program.dataset}) have different classes: "
            f"{_some(split.classes)} and {_some(program.labels)}"
        )

    def pixels(index: int) -> Callable[[], NDArray[np.uint8]]:
        return lambda: split.images[index]

    return [Item(f"{name}/test[{i}]", int(label), pixels(i)) for i, label in enumerate(split.labels)]


def _bundled(program: Program) -> list[Item]:
    found = bundled.bundled_images(program.dataset)
    if not found:
        raise InputError(f"no images of {program.dataset} are bundled; give image files, or --dataset and --data-dir")
    return [Item(image.path.name, _index(image.label, program), _loader(image.path)) for image in found]


def _from_file(path: Path, program: Program) -> Item:
    """The truth of a file is the name of its folder, if that is a label of the model."""
    folder = _plain(path.resolve().parent.name)
    truth = next((i for i, label in enumerate(program.labels) if _plain(label) == folder), None)
    return Item(str(path), truth, _loader(path))


def _loader(path: Path) -> Callable[[], NDArray[np.uint8]]:
    return lambda: images.read_image(path)


def _index(label: str, program: Program) -> int | None:
    return program.labels.index(label) if label in program.labels else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = ", ..." if len(listed) > _MESSAGE_NAMES else ""
    return ", ".join(listed[:_MESSAGE_NAMES]) + more
