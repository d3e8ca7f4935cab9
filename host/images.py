"""Image files of any size, brought to the input codes of a model.

PNG and JPEG are read with Pillow, NPY with numpy (never pickled). Files come from strangers: whatever is wrong with one
is an :class:`~reverb_fpga.hw.errors.InputError` that names it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reverb_fpga.compiler.program import InputTransform
from reverb_fpga.hw.errors import InputError

__all__ = ["SUFFIXES", "find_images", "fit", "looks_inverted", "read_image", "to_codes"]

Pixels = NDArray[np.uint8]
"""(height, width, channels), 1 (grey) or 3 (RGB) channels, 0..255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".npy")
_FORMATS = ("PNG", "JPEG")
_MAX_PIXELS = 64_000_000
_MAX_NPY_BYTES = 1 << 30
_NOT_AN_IMAGE = "not an image this program reads (PNG, JPEG or NPY)"


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The given files, and the images below the given directories, in sorted order.

    Raises
    ------
    InputError
        A path does not exist, or a directory holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise InputError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or directory")
    return found


def read_image(path: Path) -> Pixels:
    """Pixels of one file. Transparency is laid on black; the orientation that a camera noted is applied.

    Raises
    ------
    InputError
        If the file cannot be read, is no image, or is unreasonably large.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise InputError(f"{path}: {image.width} x {image.height} pixels is more than {_MAX_PIXELS}")
                return _pixels(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise InputError(f"{path}: {_NOT_AN_IMAGE}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: more than {_MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason[:120]})") from None


def _pixels(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey
        return (np.clip(np.asarray(image, dtype=np.int64), 0, 65535) // 257).astype(np.uint8)[..., None]
    if "A" in image.getbands() or "transparency" in image.info:
        grey = image.mode in ("LA", "La")
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert(
            "L" if grey else "RGB"
        )
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    array = np.asarray(image, dtype=np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _read_npy(path: Path) -> Pixels:
    """An array (H, W), (H, W, 1 or 3) or (1 or 3, H, W): integers 0..255, or floats 0..1."""
    try:
        if path.stat().st_size > _MAX_NPY_BYTES:
            raise InputError(f"{path}: larger than 1 GiB; one image was expected")
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or "not a plain NPY array"
        raise InputError(f"{path}: cannot be read ({reason})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an NPZ archive, not an NPY image")
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[-1] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise InputError(f"{path}: shape {array.shape} is not an image; (H, W), (H, W, 3) or (3, H, W) is")
    return _npy_pixels(path, array)


def _npy_pixels(path: Path, array: NDArray[np.generic]) -> Pixels:
    if array.dtype == np.bool_ or array.dtype.kind not in "uif":
        raise InputError(f"{path}: holds {array.dtype}; integers 0..255 or floats 0..1 were expected")
    top = 1 if array.dtype.kind == "f" else 255
    values = np.asarray(array, dtype=np.float64)
    if not np.all(np.isfinite(values)) or values.min() < 0 or values.max() > top:
        raise InputError(f"{path}: values of {array.dtype} must lie in 0..{top}")
    return np.floor(values * (255 // top) + 0.5).astype(np.uint8)


def fit(pixels: Pixels, transform: InputTransform) -> Pixels:
    """Convert to the model's channels and resize to its input (bilinear, averaging when it shrinks).

    An image that already has the right shape is returned unchanged.
    """
    wanted = (transform.height, transform.width, transform.channels)
    if pixels.shape == wanted:
        return pixels
    image = Image.fromarray(pixels[..., 0], "L") if pixels.shape[-1] == 1 else Image.fromarray(pixels, "RGB")
    image = image.convert("L" if transform.channels == 1 else "RGB")
    if image.size != (transform.width, transform.height):
        image = image.resize((transform.width, transform.height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(wanted)


def looks_inverted(pixels: Pixels) -> bool:
    """Whether an image is dark on light: its border is brighter than half."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(border.mean() > 127.5)


def to_codes(images: Sequence[Pixels], transform: InputTransform, *, invert: bool = False) -> NDArray[np.uint8]:
    """Input codes of images of any size: ``(N, height, width, channels)``, uint8.

    ``code = clip(floor(pixel * scale[c] + offset[c] + 0.5), 0, 255)``; ``invert`` takes ``255 - pixel`` first.
    """
    if transform.channels not in (1, 3):
        raise InputError(f"the model takes {transform.channels} channels; images have 1 or 3")
    fitted = np.stack([fit(image, transform) for image in images])
    if invert:
        fitted = 255 - fitted
    scaled = fitted * np.asarray(transform.scale) + np.asarray(transform.offset)
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)
