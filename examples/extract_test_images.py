"""Writes test images of a data set as PNG files with a table of labels: how host/assets/images was made.

Usage: python examples/extract_test_images.py DATASET DATA_DIR OUTPUT [--per-class N] [--skip FILE.json]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from PIL import Image

from reverb_fpga.models.data import load_split


def extract(dataset: str, data_dir: Path, output: Path, per_class: int, skip: set[int]) -> int:
    """Write the first ``per_class`` test images of each class, in test order; how many were written."""
    split = load_split(dataset, data_dir, "test")
    taken: Counter[int] = Counter()
    table = {}
    output.mkdir(parents=True, exist_ok=True)
    for index, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
        if taken[int(label)] == per_class or index in skip:
            continue
        taken[int(label)] += 1
        name = f"{index:05d}.png"
        Image.fromarray(pixels.squeeze()).save(output / name, optimize=True)
        table[name] = split.classes[int(label)]
    (output / "labels.json").write_text(json.dumps(table, indent=1) + "\n")
    return len(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--skip", type=Path, help="JSON list of test indices to leave out")
    options = parser.parse_args()
    skip = set(json.loads(options.skip.read_text())) if options.skip else set()
    count = extract(options.dataset, options.data_dir, options.output, options.per_class, skip)
    print(f"{count} images in {options.output}")


if __name__ == "__main__":
    main()
