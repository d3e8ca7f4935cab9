"""Event recordings as T frames: counts of events per pixel and polarity, (T, H, W, 2) uint8.

A frame is an equal share of the time from the first event to the last; channel 0 counts events that became darker,
channel 1 those that became brighter, at most 255. Where another size is asked for, pixels that fall together are added.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models import events
from reverb_fpga.models.events import Events
from reverb_fpga.models.files import read_regular

__all__ = ["SUFFIXES", "Frames", "bin_events", "read_frames"]

SUFFIXES = (".npy", ".npz", *events.SUFFIXES)

Frames = NDArray[np.uint8]
Size = tuple[int, int]

_MAX_BYTES = 1 << 30
_MAX_CODE = 255


def bin_events(recording: Events, steps: int, size: Size | None = None) -> Frames:
    """`steps` frames of `size` (height, width); None: the camera's own."""
    height, width = size or (recording.height, recording.width)
    first = int(recording.time.min())
    span = int(recording.time.max()) - first + 1
    step = (recording.time - first) * steps // span
    row, column = recording.y * height // recording.height, recording.x * width // recording.width
    place = ((step * height + row) * width + column) * 2 + recording.polarity
    counts = np.bincount(place, minlength=steps * height * width * 2)
    return np.minimum(counts, _MAX_CODE).astype(np.uint8).reshape(steps, height, width, 2)


def read_frames(path: Path, steps: int, size: Size | None = None) -> Frames:
    """(T, H, W, 2) of a recording, or of frames that are stored as (T, 2, H, W) in .npy, or in .npz as ``frames``.

    Raises
    ------
    InputError
        The file cannot be read, holds no event, or frames of another number, size or type than whole numbers 0..255.
    """
    if path.suffix.lower() in events.SUFFIXES:
        recording = events.read_events(path)
        if not len(recording):
            raise InputError(f"{path}: holds no events")
        return bin_events(recording, steps, size)
    return _resized(path, _stored(path, steps), size)


def _stored(path: Path, steps: int) -> Frames:
    data = read_regular(path, _MAX_BYTES)
    array = _array(path, _member(path, data) if path.suffix.lower() == ".npz" else data)
    if array.ndim != 4 or array.shape[1] != 2 or 0 in array.shape:
        raise InputError(f"{path}: an array of shape {array.shape}; event frames are (T, 2, H, W)")
    if len(array) != steps:
        raise InputError(f"{path}: {len(array)} frames, the network takes T = {steps}")
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise InputError(f"{path}: not frames of numbers")
    whole = array.astype(np.int64)
    if not (whole == array).all() or whole.min() < 0 or whole.max() > _MAX_CODE:
        raise InputError(f"{path}: frames are counts of events: whole numbers from 0 to {_MAX_CODE}")
    return np.ascontiguousarray(whole.astype(np.uint8).transpose(0, 2, 3, 1))


def _member(path: Path, data: bytes) -> bytes:
    """The array ``frames`` of an .npz file, or the only one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [info.filename for info in archive.infolist()]
            chosen = "frames.npy" if "frames.npy" in names else names[0] if len(names) == 1 else None
            if chosen is None:
                raise InputError(f"{path}: holds {len(names)} arrays and none is called 'frames'")
            if archive.getinfo(chosen).file_size > _MAX_BYTES:
                raise InputError(f"{path}: unpacks to more than {_MAX_BYTES >> 20} MiB")
            return archive.read(chosen)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path}: not an .npz file ({str(error)[:80]})") from None


def _array(path: Path, data: bytes) -> NDArray[Any]:
    """The array of an .npy file. Not with ``numpy.load``, which believes the header's size before it reads."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not an .npy array ({str(error).splitlines()[0][:80]})") from None
    count = 1
    for side in shape:
        count *= side
    rest = len(data) - file.tell()
    if dtype.hasobject or count * dtype.itemsize != rest:
        raise InputError(f"{path}: damaged: {rest:,} bytes for an array of {shape} {dtype}")
    array = np.frombuffer(data, dtype, count, file.tell())
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _resized(path: Path, frames: Frames, size: Size | None) -> Frames:
    """Frames of another size, where pixels that fall together are added; larger ones only by whole factors."""
    if size is None or frames.shape[1:3] == size:
        return frames
    steps, height, width, _ = frames.shape
    if size[0] > height or size[1] > width:
        raise InputError(f"{path}: frames of {width}x{height}, smaller than the {size[1]}x{size[0]} that are asked for")
    rows, columns = np.arange(height) * size[0] // height, np.arange(width) * size[1] // width
    result = np.zeros((steps, *size, 2), np.int64)
    place = (np.arange(steps)[:, None, None], rows[:, None], columns)
    np.add.at(result, place, frames)
    return np.minimum(result, _MAX_CODE).astype(np.uint8)
