"""A small *synthetic* data set of event recordings, for trying out and for tests: no event camera was involved.

    python examples/make_synthetic_events.py --out data/synthetic --format bin
    reverb-fpga train --dataset events --data-dir data/synthetic --timesteps 10 --out runs/events

A picture of a class (disc, square, cross or bars) makes three saccades, as in N-MNIST; a pixel that becomes brighter or
darker by a step emits an event, and a few more come from nowhere. Files have the format of N-MNIST (``bin``),
CIFAR10-DVS (``aedat``) or are frames (``npz``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASSES = ("bars", "cross", "disc", "square")
STEPS = 60  # pictures of a recording
STEP_US = 5000
Events = NDArray[np.int64]  # columns x, y, polarity, time in microseconds
Writer = Callable[[Path, Events, int, int], None]


def picture(name: str, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The shape of a class, of random size, on a canvas twice as wide as the camera."""
    y, x = np.mgrid[-side:side, -side:side] + 0.5
    radius = side * rng.uniform(0.18, 0.28)
    inside = np.maximum(np.abs(x), np.abs(y)) < radius
    shapes = {
        "disc": x * x + y * y < radius * radius,
        "square": inside,
        "cross": inside & (np.minimum(np.abs(x), np.abs(y)) < radius / 3),
        "bars": inside & (np.floor(y / radius * 2.5) % 2 == 0),
    }
    return shapes[name].astype(float)


def saccades(canvas: NDArray[np.float64], side: int, rng: np.random.Generator) -> Events:
    """Events of three straight movements back to the start, as in N-MNIST."""
    reach = side * 0.15
    corners = np.array([[0, 0], [0.5, 1], [1, 0], [0, 0]]) * reach + rng.uniform(-reach, reach, 2)
    way = np.concatenate([np.linspace(a, b, STEPS // 3) for a, b in pairwise(corners)])
    places = np.rint(side / 2 + way).astype(int)
    views = np.stack([canvas[row : row + side, column : column + side] for row, column in places])
    views += rng.random(views.shape) < 0.002  # noise
    step, y, x = np.nonzero(np.diff(views, axis=0))
    polarity = (np.diff(views, axis=0)[step, y, x] > 0).astype(np.int64)
    time = step * STEP_US + rng.integers(0, STEP_US, len(step))
    order = np.argsort(time, kind="stable")
    return np.stack([x, y, polarity, time], axis=1)[order].astype(np.int64)


def write_bin(path: Path, events: Events, side: int, steps: int) -> None:
    """N-MNIST's format; see ``models/events.py``."""
    x, y, polarity, time = events.T
    columns = [x, y, polarity << 7 | time >> 16, time >> 8 & 255, time & 255]
    path.with_suffix(".bin").write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


def write_aedat(path: Path, events: Events, side: int, steps: int) -> None:
    """CIFAR10-DVS's format, the picture in the middle of its 128 x 128 pixels."""
    x, y, polarity, time = events.T
    column, row = x + (128 - side) // 2, y + (128 - side) // 2
    address = (127 - column) << 8 | (127 - row) << 1 | 1 - polarity
    body = np.stack([address, time], axis=1).astype(">u4").tobytes()
    path.with_suffix(".aedat").write_bytes(b"#!AER-DAT2.0\r\n# synthetic, not from a camera\r\n" + body)


def write_npz(path: Path, events: Events, side: int, steps: int) -> None:
    """Frames (T, 2, H, W) of equal duration."""
    x, y, polarity, time = events.T
    frames = np.zeros((steps, 2, side, side), np.int64)
    span = int(time.max()) - int(time.min()) + 1
    np.add.at(frames, ((time - time.min()) * steps // span, polarity, y, x), 1)
    np.savez_compressed(path.with_suffix(".npz"), frames=frames.clip(0, 255).astype(np.uint8))


WRITERS: dict[str, Writer] = {"bin": write_bin, "aedat": write_aedat, "npz": write_npz}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--format", choices=sorted(WRITERS), default="bin")
    parser.add_argument("--train", type=int, default=200, help="recordings per class")
    parser.add_argument("--test", type=int, default=50, help="recordings per class")
    parser.add_argument("--side", type=int, default=34, help="pixels, 16..128; .bin: at most 34")
    parser.add_argument("--timesteps", type=int, default=10, help="frames of .npz")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if not 16 <= given.side <= (34 if given.format == "bin" else 128):
        parser.error("--side: 16 to 34 for bin, to 128 for the others")
    for split, count in (("train", given.train), ("test", given.test)):
        for label, name in enumerate(CLASSES):
            folder = given.out / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                rng = np.random.default_rng((given.seed, split == "test", label, index))
                events = saccades(picture(name, given.side, rng), given.side, rng)
                WRITERS[given.format](folder / f"synthetic{index:04d}", events, given.side, given.timesteps)
    print(f"{given.out}: {len(CLASSES)} classes, {given.train} and {given.test} synthetic recordings each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
