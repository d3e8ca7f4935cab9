"""Readers for the standard files of image data sets. numpy and Pillow only; nothing here imports torch.

Files come from strangers: sizes, headers and labels are checked, and CIFAR's pickled batches are read by an
unpickler that can build plain containers and numpy arrays and nothing else.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError

__all__ = ["DATASETS", "ImageSet", "load_split", "statistics"]

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple("0123456789")
_SPLITS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MAX_IDX = 1 << 30

DATASETS = ("mnist", "fashion-mnist", "cifar10", "cifar100", "folder")


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set.

    Attributes
    ----------
    images : uint8 array
        (N, H, W, C), pixel codes.
    labels : int64 array
        (N,), indices into `classes`.
    classes : tuple of str
        Names of the classes.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> ImageSet:
        """The first `count` images (0: all)."""
        return ImageSet(self.images[:count], self.labels[:count], self.classes) if count else self


def load_split(name: str, data_dir: Path | str, split: str) -> ImageSet:
    """Read the ``train`` or ``test`` split of a data set.

    Parameters
    ----------
    name : str
        ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, or ``folder``: one sub-folder of PNG or JPEG images
        per class, below ``train/`` and ``test/``, all images of one size.
    data_dir : path
        Where the files lie, or a folder above: torchvision's layout and the archives' own are searched.
    split : str
        ``train`` or ``test``.

    Raises
    ------
    InputError
        No such data set, files missing (names what was looked for and where) or damaged.
    """
    root = Path(data_dir)
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if split not in _SPLITS:
        raise InputError(f"unknown split {split!r}; known: train, test")
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder; --data-dir must hold the files of {name}")
    if name in ("mnist", "fashion-mnist"):
        return _load_idx(name, root, split)
    if name == "folder":
        return _load_folder(root, split)
    return _load_cifar(name, root, split)


def statistics(images: Images) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Mean (rounded to an integer pixel code) and standard deviation (pixel codes) per channel of (N, H, W, C)."""
    channels = images.shape[-1]
    counts = [np.bincount(images[..., c].ravel(), minlength=256).astype(float) for c in range(channels)]
    codes = np.arange(256.0)
    means = [float(count @ codes / count.sum()) for count in counts]
    stds = [
        float(np.sqrt(count @ (codes - mean) ** 2 / count.sum())) for count, mean in zip(counts, means, strict=True)
    ]
    return tuple(round(mean) for mean in means), tuple(round(max(std, 1.0), 4) for std in stds)


def _find(root: Path, folders: Sequence[str], files: Sequence[str], what: str) -> Path:
    for folder in folders:
        for file in files:
            path = root / folder / file
            if path.is_file():
                return path
    raise InputError(f"{root}: {what} not found; looked for {files[0]} there and in {', '.join(filter(None, folders))}")


# ---------------------------------------------------------------- idx


_IDX_FOLDERS = {
    "mnist": ("", "mnist", "MNIST", "MNIST/raw", "raw"),
    "fashion-mnist": ("", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST", "raw"),
}


_KNOWN_LABELS = {0xBA07E8EF: "mnist", 0xEE8604D9: "mnist", 0x2ED6E46A: "fashion-mnist", 0x242BC73F: "fashion-mnist"}
"""CRC-32 of the labels of either split, without their header: the two sets differ in nothing else that tells."""


def _load_idx(name: str, root: Path, split: str) -> ImageSet:
    stem = "train" if split == "train" else "t10k"
    arrays = []
    for kind, rank in (("images-idx3", 3), ("labels-idx1", 1)):
        base = f"{stem}-{kind}-ubyte"
        dotted = base.replace("-idx", ".idx")
        files = (base + ".gz", base, dotted, dotted + ".gz")
        arrays.append(_read_idx(_find(root, _folders(name), files, f"{name} {split} {kind[:6]}"), rank))
    images, labels = arrays
    actual = _KNOWN_LABELS.get(zlib.crc32(labels.tobytes()), name)
    if actual != name:
        raise InputError(f"{root}: holds {actual}, not {name}; both sets have files of these names")
    classes = _FASHION if name == "fashion-mnist" else _DIGITS
    return _image_set(images[..., None], labels, classes, f"{root}: {name} {split}")


def _folders(name: str) -> tuple[str, ...]:
    """The data set's own sub-folders first: MNIST and Fashion-MNIST use the same file names."""
    given, *own = _IDX_FOLDERS[name]
    return (*own, given)


def _read_idx(path: Path, rank: int) -> Images:
    """An idx file of unsigned bytes: 0, 0, type 8, rank, big-endian sizes, data. Gzipped or raw."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(_MAX_IDX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(data) > _MAX_IDX:
        raise InputError(f"{path}: larger than 1 GiB when unpacked; not a file of this data set")
    head = 4 + 4 * rank
    if len(data) < head or data[:4] != bytes((0, 0, 8, rank)):
        raise InputError(f"{path}: not an idx file of unsigned bytes with {rank} dimension(s)")
    shape = struct.unpack(f">{rank}I", data[4:head])
    count = 1
    for side in shape:
        count *= side
    if len(data) - head != count:
        raise InputError(f"{path}: holds {len(data) - head} bytes, its header says {count}; truncated or damaged")
    return np.frombuffer(data, np.uint8, count, head).reshape(shape)


# ---------------------------------------------------------------- CIFAR


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


def _load_cifar(name: str, root: Path, split: str) -> ImageSet:
    form = _CIFARS[name]
    for folder in (form.binary_folder, name, ""):
        paths = [root / folder / file for file in form.binary_files[split]]
        if all(path.is_file() for path in paths):
            parts = [_read_binary(path, form.label_bytes) for path in paths]
            return _joined(name, root / folder, parts, split)
    for folder in (form.python_folder, name, ""):
        paths = [root / folder / file for file in form.python_files[split]]
        if all(path.is_file() for path in paths):
            parts = [_read_pickled(path, form.label_key) for path in paths]
            return _joined(name, root / folder, parts, split)
    raise InputError(
        f"{root}: {name} {split} split not found; looked for {form.binary_files[split][0]} and "
        f"{form.python_files[split][0]} there, in {form.binary_folder} and in {form.python_folder}"
    )


def _joined(name: str, folder: Path, parts: list[tuple[Images, Labels]], split: str) -> ImageSet:
    flat = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    images = np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    classes = _CIFAR10 if name == "cifar10" else _cifar100_classes(folder)
    return _image_set(images, labels, classes, f"{folder}: {name} {split}")


def _cifar100_classes(folder: Path) -> tuple[str, ...]:
    text, pickled = folder / "fine_label_names.txt", folder / "meta"
    names: list[str] = []
    if text.is_file():
        names = text.read_text(encoding="utf-8", errors="replace").split()
    elif pickled.is_file():
        raw = _unpickle(pickled).get(b"fine_label_names", [])
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in raw]
    return tuple(names) if len(names) == 100 else tuple(f"class {index}" for index in range(100))


def _read_binary(path: Path, label_bytes: int) -> tuple[Images, Labels]:
    data = np.fromfile(path, np.uint8)
    record = label_bytes + 3072
    if data.size == 0 or data.size % record:
        raise InputError(f"{path}: {data.size} bytes are not whole records of {record}; truncated or damaged")
    table = data.reshape(-1, record)
    return table[:, label_bytes:], table[:, label_bytes - 1].astype(np.int64)


def _read_pickled(path: Path, key: bytes) -> tuple[Images, Labels]:
    batch = _unpickle(path)
    data, labels = batch.get(b"data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"{path}: its 'data' is not an array of unsigned bytes (N, 3072)")
    if not isinstance(labels, list) or not all(type(v) is int for v in labels) or len(labels) != len(data):
        raise InputError(f"{path}: its {key.decode()!r} is not a list of {len(data)} integers")
    return data, np.asarray(labels, np.int64)


class _PlainUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers, texts and numpy arrays of bytes; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _plain_dtype
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _reconstruct(kind: object, shape: object, code: object) -> NDArray[np.uint8]:
    return np.empty((0,), np.uint8)


def _plain_dtype(code: object, *_: object) -> np.dtype[np.uint8]:
    if code not in ("u1", b"u1", "|u1", b"|u1"):
        raise pickle.UnpicklingError("an array that is not of unsigned bytes")
    return np.dtype(np.uint8)


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("an unusual text encoding")
    return text.encode("latin-1")


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            value = _PlainUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError,
        ImportError, MemoryError, OverflowError, struct.error,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: not a CIFAR batch: {str(error)[:100] or type(error).__name__}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a CIFAR batch: its content is not a dictionary")
    return {key.encode() if isinstance(key, str) else key: entry for key, entry in value.items()}


# ---------------------------------------------------------------- folders of images


def _load_folder(root: Path, split: str) -> ImageSet:
    base = root / split
    if not base.is_dir():
        raise InputError(f"{base}: no such folder; a folder data set holds train/CLASS/*.png and test/CLASS/*.png")
    classes = tuple(sorted(entry.name for entry in base.iterdir() if entry.is_dir()))
    if not classes:
        raise InputError(f"{base}: holds no class folders")
    images: list[Images] = []
    labels: list[int] = []
    for index, name in enumerate(classes):
        for path in sorted(p for p in (base / name).iterdir() if p.suffix.lower() in _SUFFIXES):
            image = _read_image(path)
            if images and image.shape != images[0].shape:
                raise InputError(
                    f"{path}: is {image.shape}, the others are {images[0].shape} (height, width, channels)"
                )
            images.append(image)
            labels.append(index)
    if not images:
        raise InputError(f"{base}: holds no PNG or JPEG images in its class folders")
    return _image_set(np.stack(images), np.asarray(labels), classes, str(base))


def _read_image(path: Path) -> Images:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "LA", "I;16", "I")
            array = np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({str(error)[:100]})") from None
    return array[..., None] if array.ndim == 2 else array


def _image_set(images: Images, labels: NDArray[Any], classes: tuple[str, ...], where: str) -> ImageSet:
    if len(images) != len(labels):
        raise InputError(f"{where}: {len(images)} images but {len(labels)} labels")
    if len(labels) == 0:
        raise InputError(f"{where}: holds no images")
    if int(labels.max()) >= len(classes) or int(labels.min()) < 0:
        raise InputError(f"{where}: a label is outside 0..{len(classes) - 1}")
    return ImageSet(images, labels.astype(np.int64), classes)
