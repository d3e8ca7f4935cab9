"""Models and images that come with the package."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import PRESETS
from reverb_fpga.hw.errors import InputError

__all__ = [
    "ASSETS",
    "BundledImage",
    "advice",
    "bundled_images",
    "bundled_models",
    "find_model",
    "knowledge",
    "load_model",
]

ASSETS = Path(__file__).parent / "assets"
_PREFERRED = "fashion-mnist"


@dataclasses.dataclass(frozen=True)
class BundledImage:
    """One image of a test set.

    Parameters
    ----------
    path : Path
    label : str
        Its true class.
    """

    path: Path
    label: str


def bundled_models() -> dict[str, Path]:
    """Bundled compiled models by name; the one used when none is asked for comes first."""
    paths = {path.stem: path for path in sorted((ASSETS / "models").glob("*.rvb"))}
    return dict(sorted(paths.items(), key=lambda item: (_PREFERRED not in item[0], item[0])))


def bundled_images(dataset: str) -> list[BundledImage]:
    """Bundled test images of a data set, in the order of its test split; empty if there are none."""
    known = {entry.name: entry for entry in (ASSETS / "images").glob("*")}
    if dataset not in known:  # a name from a stranger's file, which is no path
        return []
    directory = known[dataset]
    table = directory / "labels.json"
    if not table.is_file():
        return []
    return [BundledImage(directory / name, label) for name, label in json.loads(table.read_text()).items()]


def find_model(model: str | None) -> Path:
    """File of a bundled model by name, or of a ``.rvb`` path; None is the preferred bundled model.

    Raises
    ------
    InputError
        If there is no such file or model; lists the bundled ones.
    """
    models = bundled_models()
    if model is None:
        if not models:
            raise InputError("no model is bundled with this installation; give --model FILE.rvb")
        return next(iter(models.values()))
    if model in models:
        return models[model]
    path = Path(model)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{model}: is a directory; --model takes a .rvb file or a bundled model")
    raise InputError(f"{model}: no such file or bundled model; bundled are: {', '.join(models) or 'none'}")


def advice(digest: int) -> str:
    """What to do with a board of the configuration of this digest: the programs that it takes."""
    name = next((config.name for config in PRESETS.values() if config.digest == digest), None)
    if name is None:
        return "build its bitstream with this version and program the board again"
    fitting = [model for model in bundled_models() if load_model(model).config_digest == digest]
    bundled = f"; bundled for it: {', '.join(fitting)}" if fitting else ""
    return f"take a program that was compiled with --target {name}{bundled}"


def knowledge() -> str:
    """What the model that is used without ``--model`` knows, and which other bundled ones know something else."""
    programs = [load_model(name) for name in bundled_models()]
    others: dict[tuple[str, ...], str] = {}
    for program in programs[1:]:
        if program.labels != programs[0].labels:
            others.setdefault(program.labels, program.name)
    more = "".join(f"; --model {name} knows {', '.join(labels)}" for labels, name in others.items())
    return f"{programs[0].name} knows {', '.join(programs[0].labels)}, and nothing else{more}"


def load_model(model: str | None) -> Program:
    """Program of :func:`find_model`, with every check that :func:`reverb_fpga.compiler.rvb.load` makes."""
    from reverb_fpga.compiler import rvb

    return rvb.load(find_model(model))
