"""Pictures of any size as the input codes of a model. They are read by :mod:`reverb_fpga.models.pictures`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import InputTransform, Program
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.pictures import SUFFIXES, Pixels, cropped, find_pictures, fitted, read_image

__all__ = ["SUFFIXES", "encoded", "find_images", "fit", "looks_inverted", "over_time", "read_image", "to_codes"]


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The given files, and the images below the given directories, in sorted order; hidden ones are left out.

    Raises
    ------
    InputError
        A path does not exist, or a directory cannot be read or holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = find_pictures(path)
            if not inside:
                raise InputError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or directory")
    return found


def fit(pixels: Pixels, transform: InputTransform, *, crop: bool = False) -> Pixels:
    """The pixels brought to the model's size and channels, as training brings its pictures to theirs.

    Event frames (T, H, W, 2) have been read in the model's size. `crop`: the middle is cut out, as of ImageNet.

    Raises
    ------
    InputError
        The model takes no images.
    """
    shape = (transform.height, transform.width, transform.channels)
    if pixels.ndim == 4 and pixels.shape[1:] == shape:
        return pixels
    if transform.array is not None:
        sides = ", ".join(map(str, transform.array.shape))
        raise InputError(f"the model takes arrays of numbers (N, {sides}), not pictures")
    if transform.channels not in (1, 3):
        raise InputError(f"the model takes {transform.channels} channels; images have 1 or 3")
    return cropped(pixels, shape) if crop and pixels.shape != shape else fitted(pixels, shape)


def over_time(codes: NDArray[np.uint8], program: Program) -> NDArray[np.uint8]:
    """Codes for every time step that a program reads, (N, T, H, W, C): an image that stands still is the same at each.

    Event frames, which have their steps, are returned unchanged.
    """
    if codes.ndim == 5:
        return codes
    steps = program.input_records // (program.input.height * program.input.width)
    return np.repeat(codes[:, None], steps, axis=1)


def looks_inverted(pixels: Pixels) -> bool:
    """Whether an image is dark on light: its border is brighter than half."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(border.mean() > 127.5)


def to_codes(images: Sequence[Pixels], transform: InputTransform, *, invert: bool = False) -> NDArray[np.uint8]:
    """Input codes of images of any size: ``(N, height, width, channels)``, uint8; of event frames (N, T, ...).

    Arrays of numbers come as codes (:mod:`reverb_fpga.host.arrays`), and stay what they are.

    ``code = clip(floor(pixel * scale[c] + offset[c] + 0.5), 0, 255)``; ``invert`` takes ``255 - pixel`` first.
    """
    pixels = np.stack([fit(image, transform) for image in images])
    if transform.array is not None:
        return pixels
    if invert:
        pixels = 255 - pixels
    scaled = pixels * np.asarray(transform.scale) + np.asarray(transform.offset)
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def encoded(images: Sequence[Pixels], program: Program, *, invert: bool = False) -> NDArray[np.uint8]:
    """What a program reads of images of any size: :func:`to_codes` :func:`over_time`, (N, T_in, H, W, C)."""
    return over_time(to_codes(images, program.input, invert=invert), program)
