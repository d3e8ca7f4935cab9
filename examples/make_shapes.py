"""A small data set of pictures, drawn here: discs, squares and crosses, for trying out and for tests.

python examples/make_shapes.py --out shapes
reverb-fpga train --dataset folder --data-dir shapes --arch fmnist --image-size 16 --out runs/shapes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 16
KINDS = ("cross", "disc", "square")


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """A grey picture of SIDE x SIDE, with a shape of random place, size and brightness."""
    picture = Image.new("L", (SIDE, SIDE), int(rng.integers(0, 60)))
    pen, (x, y), size = ImageDraw.Draw(picture), rng.integers(5, 11, 2).tolist(), int(rng.integers(3, 6))
    grey = int(rng.integers(140, 256))
    box = (x - size, y - size, x + size, y + size)
    if kind == "disc":
        pen.ellipse(box, fill=grey)
    elif kind == "square":
        pen.rectangle(box, outline=grey)
    else:
        pen.line(box, fill=grey)
        pen.line((x - size, y + size, x + size, y - size), fill=grey)
    return picture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=160, help="pictures per class")
    parser.add_argument("--test", type=int, default=40, help="pictures per class")
    given = parser.parse_args()
    for split, number in (("train", given.train), ("test", given.test)):
        for label, kind in enumerate(KINDS):
            folder = given.out / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(number):
                rng = np.random.default_rng((split == "test", label, index))
                draw(kind, rng).save(folder / f"{index:03}.png")
    print(f"{given.out}: {', '.join(KINDS)}; {given.train} and {given.test} pictures each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
