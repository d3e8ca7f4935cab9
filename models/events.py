"""Files of event cameras: what N-MNIST, DVS128-Gesture and CIFAR10-DVS are distributed as.

* ``.bin``, N-MNIST (34 x 34): five bytes an event, x, y, polarity (1 bit) and time in microseconds (23 bits,
  big-endian); an event with y = 240 carries no pixel but adds 2**13 to all later times.
* ``.aedat`` 2.0, CIFAR10-DVS (128 x 128): lines that begin with ``#``, then address and time in microseconds, 32 bits
  each, big-endian. x and y are exchanged and mirrored and the polarity is inverted, as ``dat2mat.m``, which comes with
  the data, does.
* ``.aedat`` 3.1, DVS128-Gesture (128 x 128): a header, then packets, little-endian; polarity events alone are taken.

Read here because no kept library does without a deep-learning framework: ``aedat`` on PyPI reads version 4 alone.
Files come from strangers: lengths and coordinates are checked. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import read_regular

__all__ = ["SUFFIXES", "Events", "read_events"]

SUFFIXES = (".bin", ".aedat")

_MAX_BYTES = 2 << 30
_MAX_HEADER = 1 << 20
_NMNIST_SIDE = 34
_DVS128_SIDE = 128
_OVERFLOW_Y = 240
_OVERFLOW_TIME = 1 << 13
_POLARITY_EVENT = 1
_PACKET_HEADER = np.dtype(
    [("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("offset", "<i4"), ("overflow", "<i4"), ("capacity", "<i4"),
     ("number", "<i4"), ("valid", "<i4")]
)  # fmt: skip

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Events:
    """A recording: one entry per event in every array.

    Attributes
    ----------
    x, y : int64 array
        Column and row, within `width` and `height`.
    polarity : int64 array
        1 where it became brighter, else 0.
    time : int64 array
        Microseconds; need not be sorted.
    """

    x: Ints
    y: Ints
    polarity: Ints
    time: Ints
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.x)

    def between(self, start: int, end: int) -> Events:
        """The events with ``start <= time < end``."""
        at = (self.time >= start) & (self.time < end)
        return Events(self.x[at], self.y[at], self.polarity[at], self.time[at], self.height, self.width)


def read_events(path: Path) -> Events:
    """The events of one file.

    Raises
    ------
    InputError
        It cannot be read, is no such file, is cut short, larger than 2 GiB, or has events outside the camera.
    """
    data = read_regular(path, _MAX_BYTES)
    if path.suffix.lower() == ".bin":
        events = _nmnist(path, data)
    elif data.startswith(b"#!AER-DAT2.0"):
        events = _aedat2(path, data)
    elif data.startswith(b"#!AER-DAT3."):
        events = _aedat3(path, data)
    else:
        kind = "version 4" if data.startswith(b"#!AER-DAT4") else "no header of a known version"
        raise InputError(f"{path}: not an AEDAT file of version 2.0 or 3.1 ({kind}); convert it to frames (.npz)")
    for name, values, side in (("x", events.x, events.width), ("y", events.y, events.height)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < side:
            raise InputError(f"{path}: an event at {name} = {int(values.max())}, outside of {side} pixels")
    return events


def _nmnist(path: Path, data: bytes) -> Events:
    if len(data) % 5:
        raise InputError(f"{path}: cut short: {len(data):,} bytes are no whole number of events of 5 bytes")
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).T.astype(np.int64)
    overflow = y == _OVERFLOW_Y
    time = ((high & 127) << 16 | middle << 8 | low) + _OVERFLOW_TIME * np.cumsum(overflow)
    kept = ~overflow
    return Events(x[kept], y[kept], high[kept] >> 7, time[kept], _NMNIST_SIDE, _NMNIST_SIDE)


def _after_header(path: Path, data: bytes) -> int:
    """Where the lines that begin with ``#`` end."""
    place = 0
    while data[place : place + 1] == b"#":
        line_end = data.find(b"\n", place, place + _MAX_HEADER)
        if line_end < 0:
            raise InputError(f"{path}: its header has no end")
        last = data[place:line_end].strip() == b"#!END-HEADER"
        place = line_end + 1
        if last or place > _MAX_HEADER:
            break
    return place


def _aedat2(path: Path, data: bytes) -> Events:
    place = _after_header(path, data)
    if (len(data) - place) % 8:
        raise InputError(f"{path}: cut short: {len(data) - place:,} bytes are no whole number of events of 8 bytes")
    address, time = np.frombuffer(data, ">u4", offset=place).reshape(-1, 2).T.astype(np.int64)
    pixel = address >> 15 == 0  # the others are signals from outside
    address, time = address[pixel], time[pixel]
    top = _DVS128_SIDE - 1
    x, y = top - (address >> 8 & top), top - (address >> 1 & top)
    return Events(x, y, 1 - (address & 1), time, _DVS128_SIDE, _DVS128_SIDE)


def _aedat3(path: Path, data: bytes) -> Events:
    place = _after_header(path, data)
    found: list[NDArray[np.uint32]] = []
    times: list[Ints] = []
    while place < len(data):
        if len(data) - place < _PACKET_HEADER.itemsize:
            raise InputError(f"{path}: cut short in the header of a packet")
        header = np.frombuffer(data, _PACKET_HEADER, 1, place)[0]
        place += _PACKET_HEADER.itemsize
        size, capacity, number = int(header["size"]), int(header["capacity"]), int(header["number"])
        if size < 1 or not 0 <= number <= capacity or capacity * size > len(data) - place:
            raise InputError(f"{path}: damaged, or cut short: a packet of {capacity} events of {size} bytes")
        if header["type"] == _POLARITY_EVENT:
            if size != 8:
                raise InputError(f"{path}: damaged: polarity events of {size} bytes, not 8")
            words = np.frombuffer(data, "<u4", 2 * number, place).reshape(-1, 2)
            words = words[(words[:, 0] & 1).astype(bool)]  # the others were filtered out by the recorder
            found.append(words[:, 0])
            times.append(words[:, 1].astype(np.int64) + (int(header["overflow"]) << 31))
        place += capacity * size
    word = np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)
    time = np.concatenate(times) if times else np.zeros(0, np.int64)
    return Events(word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, word >> 1 & 1, time, _DVS128_SIDE, _DVS128_SIDE)
