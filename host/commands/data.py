"""``reverb-fpga data``: which data sets a folder holds, and whether they are whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.models.data import DEFAULT_DATA_DIR, load_split
from reverb_fpga.models.image_set import DataMissing
from reverb_fpga.models.published import PUBLISHED, verdict

from ..console import make_table, output

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  reverb-fpga data               what there is in ./data
  reverb-fpga data /srv/images --json

\b
Where the data sets come from, and where in DIR they belong (torchvision's layout is found, too):
"""
_SOURCES = "\n".join(f"  {name:<14} {known.source}\n{'':<17}{known.place}" for name, known in PUBLISHED.items())


@dataclass(frozen=True)
class Split:
    """One split of one data set that was looked for.

    Attributes
    ----------
    images, classes : int or None
        None where it is missing or cannot be read.
    found, good : bool
    said : str
        How that is known.
    """

    dataset: str
    split: str
    images: int | None
    classes: int | None
    found: bool
    good: bool
    said: str


@click.command(name="data", epilog=_EXAMPLES + _SOURCES)
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[DIR]", default=DEFAULT_DATA_DIR)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(folder: Path, as_json: bool) -> None:
    """Tell which data sets a folder holds, and check them: files, counts, checksums.

    DIR is the folder that --data-dir of the other commands names, by default ./data. Nothing is downloaded: the help
    of this command tells where the files come from.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; 'reverb-fpga data --help' tells where data sets come from")
    splits = [split for name in PUBLISHED for split in _look_for(name, folder)]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "splits": [asdict(split) for split in splits]}))
    else:
        _print(folder, splits)
    if wrong := [f"{split.dataset} {split.split}" for split in splits if split.found and not split.good]:
        raise InputError(f"{folder}: not as published: {', '.join(wrong)}")
    if not any(split.found for split in splits):
        raise InputError(f"{folder}: holds none of {', '.join(PUBLISHED)}; see 'reverb-fpga data --help'")


def _look_for(name: str, folder: Path) -> list[Split]:
    """Both splits; where there is one, the other one must be there, too."""
    splits = [_look(name, folder, split) for split in ("train", "test")]
    return [replace(split, found=any(s.found for s in splits)) for split in splits]


def _look(name: str, folder: Path, split: str) -> Split:
    try:
        images = load_split(name, folder, split)
    except DataMissing:
        return Split(name, split, None, None, False, False, "its files are not there")
    except InputError as error:
        return Split(name, split, None, None, True, False, str(error))
    good, said = verdict(name, folder, split, images)
    return Split(name, split, len(images), len(images.classes), True, good, said)


def _print(folder: Path, splits: list[Split]) -> None:
    console = output()
    table = make_table("data set", "split", "images", "check")
    table.columns[2].justify = "right"
    for split in splits:
        if split.found:
            count = "" if split.images is None else f"{split.images:,}"
            mark = "ok" if split.good else "WRONG"
            table.add_row(split.dataset, split.split, count, printable(f"{mark}: {split.said}"))
    if table.row_count:
        console.table(table)
    missing = [name for name in PUBLISHED if not any(s.found for s in splits if s.dataset == name)]
    if missing:
        console.say(printable(f"not in {folder}: {', '.join(missing)}"))
