"""The folder of a training run.

It holds ``settings.json``, ``metrics.jsonl`` (one line per epoch), ``last.safetensors`` (to resume),
``best.safetensors`` (the network with the best accuracy on held-out training images), ``curve.png`` and, at the end,
``result.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.curve import draw_curve, read_metrics
from reverb_fpga.models.files import FolderLock, write_whole
from reverb_fpga.models.settings import TrainSettings

__all__ = ["RunFolder"]

_LENGTH = "epochs"  # the one setting that may change when a run goes on


class RunFolder:
    """The files of one run below `path`, and whose run it is.

    From :meth:`claim` or :meth:`reopen` to :meth:`release` no other process can have it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best, self.last = path / "best.safetensors", path / "last.safetensors"
        self._settings, self._metrics = path / "settings.json", path / "metrics.jsonl"
        self._curve, self._result = path / "curve.png", path / "result.json"
        self._lock: FolderLock | None = None

    def claim(self, settings: TrainSettings) -> None:
        """Begin a run here. Raises InputError where one has already finished an epoch, or is under way."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._claimed():
            if self.last.exists() or self._result.exists():
                raise InputError(f"{self.path}: already holds a run; choose another --out or give --resume")
            self._metrics.unlink(missing_ok=True)  # of a run that was cut short in its first epoch
            self._keep(settings)

    def _keep(self, settings: TrainSettings) -> None:
        _write(self._settings, json.dumps(asdict(settings), indent=2, sort_keys=True) + "\n")

    def reopen(self, settings: TrainSettings) -> None:
        """Go on with the run that is here. Raises InputError for none, one under way, or one with other settings.

        A run may become longer or shorter: the schedule goes by the share of the epochs.
        """
        if not self.last.is_file():
            raise InputError(f"{self.path}: nothing to resume; it holds no finished epoch (leave --resume out)")
        with self._claimed():
            differing = self.differing(settings)
            if unlike := [name for name in differing if name != _LENGTH]:
                raise InputError(
                    f"{self._settings}: --resume needs the settings of the run; they differ in {', '.join(unlike)}"
                )
            if differing:
                self._keep(settings)

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """The folder is this process's from here on, unless the block fails."""
        self._lock = FolderLock(self.path)
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Leave the folder to others."""
        if self._lock is not None:
            self._lock.release()

    def differing(self, settings: TrainSettings) -> list[str]:
        """Names of the settings in which the run here differs; the place of the data does not count.

        Raises InputError where its settings cannot be read.
        """
        try:
            theirs = _flat(dict(json.loads(self._settings.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            raise InputError(f"{self._settings}: the settings of the run are missing or damaged") from None
        ours = _flat(asdict(settings))
        # a run of an older version knew fewer settings, and did what their defaults do
        usual = _flat(asdict(TrainSettings(settings.arch, settings.dataset, settings.data_dir)))
        theirs = usual | theirs
        return sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))

    def log(self, line: Mapping[str, Any]) -> None:
        """Add the figures of an epoch, in place of any of it or later ones."""
        kept = [entry for entry in read_metrics(self._metrics) if entry["epoch"] < line["epoch"]]
        _write(self._metrics, "".join(json.dumps(entry) + "\n" for entry in [*kept, line]))

    def draw(self) -> None:
        """Draw what was logged."""
        draw_curve(read_metrics(self._metrics), self._curve, self.path.resolve().name)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Note what the run gave on the test split."""
        _write(self._result, json.dumps(result, indent=2) + "\n")

    def result(self) -> dict[str, Any] | None:
        """What :meth:`finish` noted; None before that."""
        if not self._result.is_file():
            return None
        value: dict[str, Any] = json.loads(self._result.read_text(encoding="utf-8"))
        return value


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the network and of augmentation beside the others, as on the command line; without `data_dir`."""
    nested = [value for value in settings.values() if isinstance(value, dict)]
    plain = {name: value for name, value in settings.items() if not isinstance(value, dict) and name != "data_dir"}
    return plain | {name: value for table in nested for name, value in table.items()}


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode())
