"""MNIST and Fashion-MNIST in their idx files, gzipped or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import open_regular
from reverb_fpga.models.image_set import DataMissing, Images, ImageSet, image_set

__all__ = ["KNOWN_LABELS", "load_idx"]

_CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip
_FOLDERS = {
    "mnist": ("", "mnist", "MNIST", "MNIST/raw", "raw"),
    "fashion-mnist": ("", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST", "raw"),
}
_MAX_FILE = 256 << 20  # packed or not; the largest of these data sets has 47 MB

KNOWN_LABELS = {0xBA07E8EF: "mnist", 0xEE8604D9: "mnist", 0x2ED6E46A: "fashion-mnist", 0x242BC73F: "fashion-mnist"}
"""CRC-32 of the labels of either split, without their header: the two sets differ in nothing else that tells."""


def load_idx(name: str, root: Path, split: str) -> ImageSet:
    """The ``train`` or ``test`` split of ``mnist`` or ``fashion-mnist``; errors as `load_split`."""
    stem = "train" if split == "train" else "t10k"
    arrays = []
    for kind, rank in (("images-idx3", 3), ("labels-idx1", 1)):
        base = f"{stem}-{kind}-ubyte"
        dotted = base.replace("-idx", ".idx")
        files = (base + ".gz", base, dotted, dotted + ".gz")
        arrays.append(_read(_find(root, _folders(name), files, f"{name} {split} {kind[:6]}"), rank))
    images, labels = arrays
    actual = KNOWN_LABELS.get(zlib.crc32(labels.tobytes()), name)
    if actual != name:
        raise DataMissing(f"{root}: holds {actual}, not {name}; both sets have files of these names")
    return image_set(images[..., None], labels, _CLASSES[name], f"{root}: {name} {split}")


def _find(root: Path, folders: Sequence[str], files: Sequence[str], what: str) -> Path:
    for folder in folders:
        for file in files:
            path = root / folder / file
            if path.exists() and not path.is_dir():
                return path
    raise DataMissing(
        f"{root}: {what} not found; looked for {files[0]} there and in {', '.join(filter(None, folders))}"
    )


def _folders(name: str) -> tuple[str, ...]:
    """The data set's own sub-folders first: MNIST and Fashion-MNIST use the same file names."""
    given, *own = _FOLDERS[name]
    return (*own, given)


def _read(path: Path, rank: int) -> Images:
    """An idx file of unsigned bytes: 0, 0, type 8, rank, big-endian sizes, data. Gzipped or raw."""
    with open_regular(path, _MAX_FILE) as file:
        try:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                return _array(path, file, rank)
            with gzip.GzipFile(fileobj=file) as stream:
                return _array(path, stream, rank)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None


def _array(path: Path, stream: BinaryIO | gzip.GzipFile, rank: int) -> Images:
    head = stream.read(4 + 4 * rank)
    if len(head) < 4 + 4 * rank or head[:4] != bytes((0, 0, 8, rank)):
        raise InputError(f"{path}: not an idx file of unsigned bytes with {rank} dimension(s)")
    shape = struct.unpack(f">{rank}I", head[4:])
    count = 1
    for side in shape:
        count *= side
    if count > _MAX_FILE:
        raise InputError(f"{path}: {count:,} bytes when unpacked; of such a file at most {_MAX_FILE:,} are read")
    data = stream.read(count + 1)  # no more than was announced, whatever a gzip holds
    if len(data) != count:
        held = f"{len(data)} bytes" if len(data) < count else "more"
        raise InputError(f"{path}: holds {held}, its header says {count}; truncated or damaged")
    return np.frombuffer(data, np.uint8).reshape(shape)
