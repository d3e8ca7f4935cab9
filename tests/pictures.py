"""Small data sets of 28x28 pictures as idx files, which the loader of MNIST reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["write_brightness", "write_idx"]


def write_idx(folder: Path, stem: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Images (N, 28, 28) and labels (N,), both uint8, of the split `stem`: ``train`` or ``t10k``."""
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes()
        (folder / f"{stem}-{kind}-ubyte").write_bytes(head + array.tobytes())


def write_brightness(folder: Path, train: int, test: int) -> None:
    """Two classes, one brighter than the other; so many pictures in each split."""
    rng = np.random.default_rng(1)
    for stem, count in (("train", train), ("t10k", test)):
        labels = rng.integers(0, 2, count).astype(np.uint8)
        images = (rng.integers(0, 90, (count, 28, 28)) + 120 * labels[:, None, None]).astype(np.uint8)
        write_idx(folder, stem, images, labels)
