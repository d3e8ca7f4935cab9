"""What the published data sets hold, and where they come from: to tell a whole copy from another one.

MNIST and Fashion-MNIST are compared by their pixels and labels, in whatever form the files are; the digests were taken
from copies whose files have the MD5 sums that their authors publish. CIFAR's Python batches are compared by the MD5
sums that are published for them; for the files of its binary form none are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverb_fpga.models.cifar import split_files
from reverb_fpga.models.image_set import ImageSet

__all__ = ["PUBLISHED", "Published", "verdict"]


@dataclass(frozen=True)
class Published:
    """One data set.

    Attributes
    ----------
    source : str
        Where its authors offer it.
    place : str
        Where its files belong, below the data folder.
    images : tuple of int
        Images of the training and of the test split.
    classes : int
    """

    source: str
    place: str
    images: tuple[int, int]
    classes: int


PUBLISHED: dict[str, Published] = {
    "fashion-mnist": Published(
        "https://github.com/zalandoresearch/fashion-mnist (four files, data/fashion)",
        "fashion-mnist/*-ubyte.gz", (60_000, 10_000), 10,
    ),
    "mnist": Published(
        "https://yann.lecun.com/exdb/mnist (four files)", "mnist/*-ubyte.gz", (60_000, 10_000), 10
    ),
    "cifar10": Published(
        "https://www.cs.toronto.edu/~kriz/cifar.html (cifar-10-binary.tar.gz, unpacked)",
        "cifar-10-batches-bin/*.bin", (50_000, 10_000), 10,
    ),
    "cifar100": Published(
        "https://www.cs.toronto.edu/~kriz/cifar.html (cifar-100-binary.tar.gz, unpacked)",
        "cifar-100-binary/*.bin", (50_000, 10_000), 100,
    ),
}  # fmt: skip

_CONTENT = {  # SHA-256 of the pixels (N, H, W, C), then the labels, a byte each
    ("mnist", "train"): "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b",
    ("mnist", "test"): "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b",
    ("fashion-mnist", "train"): "16d82e2b505296aa2b78bd5ea0992634f30419a4c97def7c907d154a35ac6157",
    ("fashion-mnist", "test"): "9f1ec356a747bfe4ebab3cfb722d3694c9ca737e2570f6f90cf31d7b6fd689d4",
}
_FILES = {  # MD5
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
}


def verdict(name: str, root: Path, split: str, images: ImageSet) -> tuple[bool, str]:
    """Whether a split that was read can be the published one, and how that is known."""
    published = PUBLISHED[name]
    expected = published.images[split == "test"]
    counts = np.bincount(images.labels, minlength=published.classes)
    if len(images) != expected:
        return False, f"{expected:,} images were published"
    if name in ("cifar10", "cifar100") and len(set(counts.tolist())) != 1:
        return False, "not the same number of images in every class, as published"
    if (name, split) in _CONTENT:
        same = _content(images) == _CONTENT[name, split]
        return same, "pixels and labels as published" if same else "pixels or labels differ from what was published"
    return _files(name, root, split)


def _content(images: ImageSet) -> str:
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.astype(np.uint8).tobytes())
    return digest.hexdigest()


def _files(name: str, root: Path, split: str) -> tuple[bool, str]:
    paths, pickled = split_files(name, root, split)
    if not pickled:
        return True, "counts as published (no checksums are published for the binary files)"
    for path in paths:
        if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != _FILES[name][path.name]:
            return False, f"{path.name} has not the published MD5 sum"
    return True, "MD5 sums as published"
