"""Data sets of event recordings: a folder per class, or DVS128-Gesture as it is distributed.

``train/CLASS/`` and ``test/CLASS/`` hold recordings or frames (:mod:`reverb_fpga.models.event_frames`); N-MNIST's own
``Train`` and ``Test`` are found, too. A folder with ``trials_to_train.txt`` and ``trials_to_test.txt`` is
DVS128-Gesture: every line of a ``*_labels.csv`` is a sample.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.event_frames import SUFFIXES, Frames, bin_events, read_frames
from reverb_fpga.models.events import read_events
from reverb_fpga.models.files import read_regular
from reverb_fpga.models.image_set import ImageSet, image_set

__all__ = ["GESTURES", "find_recordings", "load_events"]

GESTURES = (
    "hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise",
    "left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures",
)  # fmt: skip
"""Classes of DVS128-Gesture, 1 to 11 in its files."""

_MAX_BYTES = 8 << 30
_MAX_TEXT = 1 << 20

Size = tuple[int, int]
Sample = tuple[Path, int, Frames | InputError]


def load_events(root: Path, split: str, steps: int, size: Size | None, strict: bool) -> ImageSet:
    """Frames of one split, ``images`` (N, T, H, W, 2).

    Parameters
    ----------
    steps : int
        Frames of every sample.
    size : (height, width) or None
        What they are brought to; None: the camera's, or that of the stored frames.
    strict : bool
        A recording that cannot be read is an error; otherwise it is left out and named.
    """
    gestures = (root / "trials_to_train.txt").is_file()
    base = root if gestures else _split_folder(root, split)
    classes = GESTURES if gestures else _classes(base)
    samples = _gesture_samples(root, split, steps, size) if gestures else _samples(base, classes, steps, size)
    frames: list[Frames] = []
    labels: list[int] = []
    skipped: list[str] = []
    total = 0
    for path, label, sample in samples:
        if isinstance(sample, Exception):
            if strict:
                raise sample
            skipped.append(str(sample))
            continue
        if frames and sample.shape != frames[0].shape:
            raise InputError(
                f"{path}: frames of {sample.shape[2]}x{sample.shape[1]}, those before it "
                f"{frames[0].shape[2]}x{frames[0].shape[1]}; ask for one size (--image-size)"
            )
        total += sample.nbytes
        if total > _MAX_BYTES:
            raise InputError(f"{base}: more than {_MAX_BYTES >> 30} GiB of frames; ask for smaller ones (--image-size)")
        frames.append(sample)
        labels.append(label)
    if not frames:
        raise InputError(skipped[0] if skipped else f"{base}: holds no recordings")
    images = np.stack(frames)
    checked = image_set(images, np.asarray(labels), classes, str(base))
    return ImageSet(checked.images, checked.labels, classes, (), tuple(skipped))


def find_recordings(folder: Path) -> list[Path]:
    """Recordings and frames below `folder`, in sorted order; hidden files are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _split_folder(root: Path, split: str) -> Path:
    for name in (split, split.capitalize()):
        if (root / name).is_dir():
            return root / name
    raise InputError(
        f"{root / split}: no such folder; event data is train/CLASS/ and test/CLASS/ with {', '.join(SUFFIXES)}"
    )


def _classes(base: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in base.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise InputError(f"{base}: holds no class folders")
    for name in classes:
        if not name.isprintable() or len(name) > 200:
            raise InputError(f"{base / name}: a class cannot have this name; rename the folder")
    return classes


def _samples(base: Path, classes: tuple[str, ...], steps: int, size: Size | None) -> Iterator[Sample]:
    for label, name in enumerate(classes):
        paths = find_recordings(base / name)
        if not paths:
            raise InputError(f"{base / name}: a class folder without recordings; fill or remove it")
        for path in paths:
            try:
                yield path, label, read_frames(path, steps, size)
            except InputError as error:
                yield path, label, error


def _gesture_samples(root: Path, split: str, steps: int, size: Size | None) -> Iterator[Sample]:
    for line in _lines(root / f"trials_to_{split}.txt"):
        path = root / line.strip()
        if not line.strip():
            continue
        if path.parent != root:
            raise InputError(f"{root}: trials_to_{split}.txt names a file elsewhere: {line[:80]!r}")
        try:
            recording = read_events(path)
            stretches = list(_stretches(path.with_name(f"{path.stem}_labels.csv")))
        except InputError as error:
            yield path, 0, error
            continue
        for label, start, end in stretches:
            part = recording.between(start, end)
            if len(part):
                yield path, label, bin_events(part, steps, size)
            else:
                yield path, label, InputError(f"{path}: no events from {start} to {end} us")


def _stretches(path: Path) -> Iterator[tuple[int, int, int]]:
    """Class index, start and end (microseconds) of every sample in a recording."""
    rows = list(csv.reader(_lines(path)))
    for row in rows[1:]:
        try:
            label, start, end = (int(field) for field in row)
        except ValueError:
            raise InputError(
                f"{path}: expected class, start and end in every line, got {','.join(row)[:80]!r}"
            ) from None
        if not 1 <= label <= len(GESTURES):
            raise InputError(f"{path}: class {label}, expected 1..{len(GESTURES)}")
        yield label - 1, start, end


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path, _MAX_TEXT).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text") from None
