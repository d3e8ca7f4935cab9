"""The one reader of pictures, for training, data sets and ``classify`` alike: what a network learned is what it gets.

PNG, JPEG, BMP, WebP, TIFF and the first frame of GIF are read with Pillow, NPY with numpy (never pickled); the content
decides, but for NPY. Files come from strangers: only regular files of bounded size are opened, no other decoder of
Pillow is ever asked, and whatever is wrong with a file is one :class:`~reverb_fpga.hw.errors.InputError` that names it.

What becomes of a picture:

- 16 bits a sample: ``floor(sample / 257 + 0.5)``; real samples (TIFF, NPY) lie in 0..1: ``floor(255 * sample + 0.5)``;
- transparency is laid on black, or on white where nothing of the picture would show on black;
- the orientation that a camera noted is applied; other notes are not read;
- black and white, grey, and palettes that hold only greys give one channel, everything else three.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import open_regular

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Pixels",
    "cropped",
    "find_pictures",
    "fitted",
    "is_hidden",
    "picture_shape",
    "read_image",
]

Pixels = NDArray[np.uint8]
"""(height, width, channels), 1 (grey) or 3 (RGB) channels, 0..255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".npy")
MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
_KINDS = "PNG, JPEG, BMP, WebP, TIFF, GIF or NPY"
_MAX_BYTES = 512 << 20
_ORIENTATION = 0x0112
_BLOCK = 1 << 20
_STANDARD_ERROR = 2
_HOUSEKEEPING = ("@eaDir", "#recycle", "__MACOSX")  # thumbnails and bins of network drives, and of zip archives


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nobody's picture: hidden, or the housekeeping of a system."""
    return name.startswith(".") or name in _HOUSEKEEPING


def find_pictures(folder: Path) -> list[Path]:
    """The files below `folder` that are named like pictures, in sorted order; hidden ones are left out.

    Links are followed, each folder is visited once. Raises InputError where a folder cannot be read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:  # no recursion: folders can be nested deeper than calls
        place = waiting.pop()
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                visible = [entry for entry in entries if not is_hidden(entry.name)]
        except (OSError, ValueError) as error:
            raise InputError(f"{place}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
        waiting += [place / entry.name for entry in visible if entry.is_dir()]
        named = [entry.name for entry in visible if os.path.splitext(entry.name)[1].lower() in SUFFIXES]
        found += [place / name for name in named if not (place / name).is_dir()]
    return sorted(found)


def read_image(path: Path) -> Pixels:
    """Pixels of one file, as the module's docstring says.

    Raises
    ------
    InputError
        If the file cannot be read, is no picture, or is larger than 64 million pixels or 512 MiB.
    """
    with open_regular(path, _MAX_BYTES) as file:
        return _read_npy(path, file) if _is_npy(path) else _read_picture(path, file)


def picture_shape(path: Path) -> tuple[int, int]:
    """(height, width) of a file as its header says, turned upright; errors as :func:`read_image`, where they show."""
    with open_regular(path, _MAX_BYTES) as file:
        if _is_npy(path):
            shape, _, _ = _npy_header(path, file)
            return _npy_layout(path, shape)[:2]
        with _opened(path, file) as image:
            # Pillow turns TIFF itself, and would decode a PNG to look for notes behind its pixels
            told = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            turned = told and _orientation(image) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)


def fitted(pixels: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """`pixels` with the channels and the size of `shape` (height, width, channels).

    Bilinear, averaging where it shrinks; colour becomes grey as ITU-R 601-2 has it. A picture of that shape is
    returned unchanged.
    """
    if pixels.shape == shape:
        return pixels
    height, width, channels = shape
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(shape)


def cropped(pixels: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """`pixels` with the channels and the size of `shape` as is usual for ImageNet: the middle, unstretched.

    For 224 x 224 that is the middle of the picture whose shorter side became 256; in general seven eighths of it.
    """
    height, width, channels = shape
    rows, columns = pixels.shape[:2]
    scale = max(height / rows, width / columns) * 8 / 7
    inner = height / scale, width / scale  # of the picture as it is: a long thin one is never enlarged as a whole
    top, left = (rows - inner[0]) / 2, (columns - inner[1]) / 2
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image = image.convert("L" if channels == 1 else "RGB")
    box = (left, top, left + inner[1], top + inner[0])
    image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(image, dtype=np.uint8).reshape(shape)


# ---------------------------------------------------------------- Pillow


@contextmanager
def _opened(path: Path, file: BinaryIO) -> Iterator[Image.Image]:
    """The picture in an open file, not yet decoded; whatever Pillow raises in the block becomes one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged notes beside the picture; the size is checked here
            image = Image.open(file, formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path}: {image.width} x {image.height} pixels is more than {MAX_PIXELS:,}")
            yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image this program reads ({_KINDS})") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({' '.join(str(reason).split())[:120]})") from None


def _read_picture(path: Path, file: BinaryIO) -> Pixels:
    with _opened(path, file) as image:
        with _silenced() if image.format == "TIFF" else nullcontext():
            image.load()
        return np.ascontiguousarray(_upright(_pixels(path, image), _orientation(image)))


@contextmanager
def _silenced() -> Iterator[None]:
    """Drops what C code writes to standard error meanwhile: libtiff does so before Pillow raises its error."""
    try:
        kept = os.dup(_STANDARD_ERROR)
    except OSError:  # closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), _STANDARD_ERROR)
        yield
    finally:
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)


def _pixels(path: Path, image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        return _sixteen_bits(path, image)
    if image.mode == "F":
        return _by_blocks(np.asarray(image), lambda block: _from_reals(path, block))[..., None]
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        array = np.asarray(_opaque(image))
    else:
        array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if array.ndim == 2:
        return array[..., None]
    return array[..., :1] if image.mode in ("P", "PA") and _is_grey(array) else array


def _sixteen_bits(path: Path, image: Image.Image) -> Pixels:
    samples = np.asarray(image)
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise InputError(f"{path}: samples of {low}..{high}; pictures of 8 or 16 bits a sample are read")
    pixels = _by_blocks(samples, lambda block: (block.astype(np.uint32) + 128) // 257)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        pixels[samples == clear] = 0
    return pixels[..., None]


def _opaque(image: Image.Image) -> Image.Image:
    """Laid on black; on white where that leaves nothing to see."""
    grey = image.mode in ("1", "L", "LA", "La")
    over = image.convert("LA" if grey else "RGBA")
    cover = over.getchannel("A")
    canvas = Image.new("L" if grey else "RGB", over.size, 0)
    canvas.paste(over, mask=cover)
    if canvas.getbbox() is None and cover.getbbox() is not None and cover.getextrema() != (255, 255):
        canvas = Image.new(canvas.mode, over.size, 255 if grey else (255, 255, 255))
        canvas.paste(over, mask=cover)
    return canvas


def _is_grey(array: Pixels) -> bool:
    return bool((array[..., 0] == array[..., 1]).all() and (array[..., 0] == array[..., 2]).all())


def _orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF counts; 1 where the notes are damaged: the picture may be whole."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # whatever a parser of EXIF or XMP raises
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(array: Pixels, orientation: int) -> Pixels:
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


# ---------------------------------------------------------------- NPY


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _read_npy(path: Path, file: BinaryIO) -> Pixels:
    """An array (H, W), (H, W, 1 or 3) or (1 or 3, H, W): integers 0..255, or floats 0..1."""
    shape, fortran, dtype = _npy_header(path, file)
    height, width, channels = _npy_layout(path, shape)
    count = height * width * channels
    try:
        data = file.read(count * dtype.itemsize)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) != count * dtype.itemsize:
        raise InputError(f"{path}: cannot be read (truncated: {count:,} samples of {dtype} were expected)")
    convert = _from_reals if dtype.kind == "f" else _from_integers
    pixels = _by_blocks(np.frombuffer(data, dtype), lambda block: convert(path, block))
    pixels = pixels.reshape(shape, order="F" if fortran else "C")
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels[..., None])
    return np.ascontiguousarray(pixels if pixels.shape == (height, width, channels) else np.moveaxis(pixels, 0, -1))


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if reader is None:
            raise ValueError(f"version {version}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python about escape sequences in damaged literals
            shape, fortran, dtype = reader(file)
    except Exception:  # whatever its parser of Python literals raises
        raise InputError(f"{path}: cannot be read (not a plain NPY array)") from None
    if dtype.hasobject:
        raise InputError(f"{path}: cannot be read (not a plain NPY array)")
    if dtype.kind not in "uif" or dtype.subdtype is not None:
        raise InputError(f"{path}: holds {dtype}; integers 0..255 or floats 0..1 were expected")
    return shape, fortran, dtype


def _npy_layout(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of an array of that shape."""
    layout = shape
    if len(shape) == 2:
        layout = (*shape, 1)
    elif len(shape) == 3 and shape[-1] not in (1, 3) and shape[0] in (1, 3):
        layout = (*shape[1:], shape[0])
    if len(layout) != 3 or layout[-1] not in (1, 3) or min(layout) < 1:
        raise InputError(f"{path}: shape {shape!s:.80} is not an image; (H, W), (H, W, 3) or (3, H, W) is")
    if layout[0] * layout[1] > MAX_PIXELS:
        raise InputError(f"{path}: {layout[1]} x {layout[0]} pixels is more than {MAX_PIXELS:,}")
    return layout[0], layout[1], layout[2]


def _by_blocks(values: NDArray[Any], convert: Callable[[NDArray[Any]], NDArray[Any]]) -> Pixels:
    """`convert` of all values, without a second array of their size and type."""
    flat, pixels = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, flat.size, _BLOCK):
        pixels[start : start + _BLOCK] = convert(flat[start : start + _BLOCK])
    return pixels.reshape(values.shape)


def _from_integers(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.min() < 0 or values.max() > 255:
        raise InputError(f"{path}: values of {values.dtype} must lie in 0..255")
    return values


def _from_reals(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    reals = values.astype(np.float64)
    if not np.all(np.isfinite(reals)) or reals.min() < 0 or reals.max() > 1:
        raise InputError(f"{path}: values of {values.dtype} must lie in 0..1")
    return np.floor(reals * 255 + 0.5)
