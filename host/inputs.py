"""What ``classify`` is to classify: image files, bundled images or a data set, with the truth where it is known."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models import event_frames
from reverb_fpga.models.data import DEFAULT_DATA_DIR, IMAGENET, load_split
from reverb_fpga.models.description import EVENTS
from reverb_fpga.models.event_set import find_recordings
from reverb_fpga.models.image_set import class_difference, even_sample

from . import bundled, images
from .arrays import ARRAY_SUFFIX, array_items, wanted

__all__ = ["Item", "ItemReader", "Selection", "gather_items", "truth_of"]

_MESSAGES = 10


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
    XX
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
        Where the data set lies, if not in the usual place.
    limit : int or None
        At most so many.
    """

    paths: tuple[Path, ...] = ()
    dataset: str | None = None
    data_dir: Path | None = None
    limit: int | None = None


class ItemReader:
    """Reads images for one model, and keeps what cannot be read.

    Parameters
    ----------
    program : Program
        The model; pictures are brought to its size one by one, so that large ones are not kept.
    strict : bool
        Raise InputError for the first that cannot be read.

    Attributes
    ----------
    failed : list of str
        A line for every image that could not be read.
    """

    def __init__(self, program: Program, *, strict: bool) -> None:
        self.failed: list[str] = []
        self._transform, self._strict = program.input, strict
        self._crop = program.dataset == IMAGENET

    def read(self, item: Item) -> images.Pixels | None:
        """Pixels of the model's size and channels; None if the image cannot be read."""
        try:
            return images.fit(item.load(), self._transform, crop=self._crop)
        except InputError as error:
            if self._strict:
                raise
            self.failed.append(str(error))
            return None

    def read_all(self, items: Sequence[Item]) -> tuple[list[Item], list[images.Pixels]]:
        """The items that can be read, and their pixels. Raises InputError if none can."""
        found = [(item, pixels) for item in items if (pixels := self.read(item)) is not None]
        if not found:
            self.fail(len(items))
        return [item for item, _ in found], [pixels for _, pixels in found]

    def fail(self, count: int) -> NoReturn:
        """Raise InputError: none of `count` images could be read."""
        raise InputError(self.failed[0] if count == 1 else f"none of {count} images can be read; {self.failed[0]}")

    def complain(self, count: int) -> int:
        """Name on standard error what could not be read of `count` images; returns the command's exit code."""
        for line in self.failed[:_MESSAGES]:
            click.echo(f"not read: {line}", err=True)
        if self.failed:
            listed = f", {_MESSAGES} of them listed" if len(self.failed) > _MESSAGES else ""
            click.echo(
                f"{len(self.failed)} of {count} images could not be read{listed}; --strict stops there", err=True
            )
        return InputError.exit_code if self.failed else 0


def gather_items(selection: Selection, program: Program) -> list[Item]:
    """The images that a selection names, in order.

    Raises
    ------
    InputError
        Paths and a data set together, a missing path, no bundled images for this model, other classes.
    """
    if selection.dataset is not None and selection.paths:
        raise InputError("give either image files or --dataset, not both")
    if selection.dataset is None and selection.data_dir is not None:
        raise InputError("--data-dir DIR goes with --dataset NAME")
    if selection.dataset is not None:
        items = _from_dataset(selection, program)
    elif selection.paths:
        items = [item for path in selection.paths for item in _from_path(path, program)]
    else:
        items = _bundled(program)
    return items[: selection.limit]


def _from_dataset(selection: Selection, program: Program) -> list[Item]:
    name, data_dir = selection.dataset or "", selection.data_dir or Path(DEFAULT_DATA_DIR)
    source = program.input
    shape = (source.height, source.width, source.channels)
    split = load_split(name, data_dir, "test", shape, steps=program.timesteps)
    if difference := class_difference(split.classes, program.labels, "the data set", "the model"):
        raise InputError(
            f"data set {name} and model {program.name} ({program.dataset}) have different classes: {difference}"
        )

    def pixels(index: int) -> Callable[[], NDArray[np.uint8]]:
        return lambda: split.images[index]

    def failing(line: str) -> Callable[[], NDArray[np.uint8]]:
        def fail() -> NoReturn:
            raise InputError(line)

        return fail

    chosen = even_sample(split.labels, selection.limit or len(split))
    read = [Item(f"{name}/test[{i}]", int(split.labels[i]), pixels(i)) for i in chosen]
    return read + [Item(f"{name}/test", None, failing(line)) for line in split.skipped]


def _bundled(program: Program) -> list[Item]:
    found = bundled.bundled_images(program.dataset)
    if program.input.array is not None:
        shape = wanted(program.input.array.shape, program.input_records // (program.input.height * program.input.width))
        raise InputError(f"no inputs of {program.name} are bundled; give a {ARRAY_SUFFIX} file of some, {shape}")
    if not found:
        raise InputError(f"no images of {program.dataset} are bundled; give image files, or --dataset and --data-dir")
    return [Item(image.path.name, _index(image.label, program), _loader(image.path)) for image in found]


def _from_path(path: Path, program: Program) -> list[Item]:
    """An image, or all images below a folder. Folders that are named like labels of the model tell their truth.

    A model of event data takes recordings and frames of event cameras; one of arrays, a file of them.
    """
    if program.input.array is not None:
        return [Item(name, None, load) for name, load in array_items(path, program)]
    items = []
    events = program.dataset == EVENTS
    for file in _recordings(path) if events else images.find_images([path]):
        depth = max(
            1, len(file.parts) - len(path.parts) - 1
        )  # folders below the one that was given, or the image's own
        truth = truth_of([_name(folder) for folder in file.parents[:depth]], program.labels)
        if truth is None and file != path:
            truth = truth_of([_name(path)], program.labels)
        items.append(Item(str(file), truth, _event_loader(file, program) if events else _loader(file)))
    return items


def _recordings(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = find_recordings(path)
    if not found:
        raise InputError(f"{path}: holds no event recordings ({', '.join(event_frames.SUFFIXES)})")
    return found


def _event_loader(path: Path, program: Program) -> Callable[[], NDArray[np.uint8]]:
    size = (program.input.height, program.input.width)
    return lambda: event_frames.read_frames(path, program.timesteps, size)


def _name(folder: Path) -> str:
    # not resolved: the link that lies in a class folder belongs to that class, wherever the picture is
    return os.path.basename(os.path.abspath(folder))


def truth_of(folders: Sequence[str], labels: Sequence[str]) -> int | None:
    """Index of the label that folders of these names stand for; None where they tell none, or more than one.

    A name stands for the label that equals it; else for the one label that differs in case or punctuation alone.
    """
    found = {index for name in folders if (index := _label_of(name, labels)) is not None}
    return found.pop() if len(found) == 1 else None


def _label_of(name: str, labels: Sequence[str]) -> int | None:
    equal = [index for index, label in enumerate(labels) if label == name]
    plain = _plain(name)
    similar = [index for index, label in enumerate(labels) if plain and _plain(label) == plain]
    found = equal or similar
    return found[0] if len(found) == 1 else None


def _loader(path: Path) -> Callable[[], NDArray[np.uint8]]:
    return lambda: images.read_image(path)


def _index(label: str, program: Program) -> int | None:
    return program.labels.index(label) if label in program.labels else None


def _plain(name: str) -> str:
    """Letters and digits of any script, without regard to case; everything else is one dash."""
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFKC", name).casefold()).strip("-")
