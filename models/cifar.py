"""CIFAR-10 and CIFAR-100: the binary version, or the pickled one, read without unpickling anything but plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import read_regular
from reverb_fpga.models.image_set import DataMissing, Images, ImageSet, Labels, image_set
from reverb_fpga.models.plain_pickle import ByteArray, read_pickle

__all__ = ["load_cifar", "split_files"]

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_MAX_FILE = 256 << 20  # the largest, CIFAR-100's training split, has 155 MB
_MAX_NAMES = 1 << 20
_MOST_CLASSES = 100


@dataclass(frozen=True)
class _Cifar:
    """Where one CIFAR lies and how its records look."""

    python_folder: str
    binary_folder: str
    python_files: dict[str, tuple[str, ...]]
    binary_files: dict[str, tuple[str, ...]]
    label_key: bytes
    label_bytes: int  # the label is the last of them


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_CIFARS = {
    "cifar10": _Cifar(
        "cifar-10-batches-py",
        "cifar-10-batches-bin",
        {"train": _BATCHES, "test": ("test_batch",)},
        {"train": tuple(f"{b}.bin" for b in _BATCHES), "test": ("test_batch.bin",)},
        b"labels",
        1,
    ),
    "cifar100": _Cifar(
        "cifar-100-python",
        "cifar-100-binary",
        {"train": ("train",), "test": ("test",)},
        {"train": ("train.bin",), "test": ("test.bin",)},
        b"fine_labels",
        2,
    ),
}


def load_cifar(name: str, root: Path, split: str) -> ImageSet:
    """The ``train`` or ``test`` split of ``cifar10`` or ``cifar100``; errors as `load_split`."""
    form = _CIFARS[name]
    paths, pickled = split_files(name, root, split)
    if pickled:
        parts = [_read_pickled(path, form.label_key) for path in paths]
    else:
        parts = [_read_binary(path, form.label_bytes) for path in paths]
    return _joined(name, paths[0].parent, parts, split)


def split_files(name: str, root: Path, split: str) -> tuple[list[Path], bool]:
    """Files of a split, and whether they are Python batches (else the binary form). Raises DataMissing."""
    form = _CIFARS[name]
    for own, files, pickled in (
        (form.binary_folder, form.binary_files[split], False),
        (form.python_folder, form.python_files[split], True),
    ):
        for folder in (own, name, ""):
            paths = [root / folder / file for file in files]
            if all(path.exists() and not path.is_dir() for path in paths):
                return paths, pickled
    raise DataMissing(
        f"{root}: {name} {split} split not found; looked for {form.binary_files[split][0]} and "
        f"{form.python_files[split][0]} there, in {form.binary_folder} and in {form.python_folder}"
    )


def _joined(name: str, folder: Path, parts: list[tuple[Images, Labels]], split: str) -> ImageSet:
    flat = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    images = np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    classes = _CIFAR10 if name == "cifar10" else _cifar100_classes(folder)
    return image_set(images, labels, classes, f"{folder}: {name} {split}")


def _cifar100_classes(folder: Path) -> tuple[str, ...]:
    text, pickled = folder / "fine_label_names.txt", folder / "meta"
    names: list[str] = []
    if text.exists():
        names = read_regular(text, _MAX_NAMES).decode("utf-8", "replace").split()
    elif pickled.exists():
        raw = read_pickle(pickled, _MAX_NAMES).get(b"fine_label_names")
        entries = raw if isinstance(raw, list) else []
        names = [n.decode("utf-8", "replace") if type(n) is bytes else n if type(n) is str else "" for n in entries]
    usable = len(names) == 100 and all(0 < len(name) <= 100 and name.isprintable() for name in names)
    return tuple(names) if usable else tuple(f"class {index}" for index in range(100))


def _read_binary(path: Path, label_bytes: int) -> tuple[Images, Labels]:
    data = np.frombuffer(read_regular(path, _MAX_FILE), np.uint8)
    record = label_bytes + 3072
    if data.size == 0 or data.size % record:
        raise InputError(f"{path}: {data.size} bytes are not whole records of {record}; truncated or damaged")
    table = data.reshape(-1, record)
    return table[:, label_bytes:], table[:, label_bytes - 1].astype(np.int64)


def _read_pickled(path: Path, key: bytes) -> tuple[Images, Labels]:
    batch = read_pickle(path, _MAX_FILE)
    data, labels = batch.get(b"data"), batch.get(key)
    if not isinstance(data, ByteArray) or len(data.shape) != 2 or data.shape[1] != 3072:
        raise InputError(f"{path}: its 'data' is not an array of unsigned bytes (N, 3072)")
    images = data.array()
    if not isinstance(labels, list) or len(labels) != len(images) or not all(type(v) is int for v in labels):
        raise InputError(f"{path}: its {key.decode()!r} is not a list of {len(images)} integers")
    if not all(0 <= value < _MOST_CLASSES for value in labels):
        raise InputError(f"{path}: its {key.decode()!r} holds a number that is no label")
    return images, np.asarray(labels, np.int64)
