"""Progress on standard error: a bar where there is a terminal, nothing where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Advance", "bar", "status_line"]


class Advance:
    """Handle of one bar: call it with the number of units done and, if it changes, what is being done."""

    def __init__(self, progress: Progress | None, total: int, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total) if progress is not None else None

    def __call__(self, done: int = 1, what: str | None = None) -> None:
        if self._progress is None or self._task is None:
            return
        self._progress.update(self._task, advance=done)
        if what is not None:
            self._progress.update(self._task, description=what)


@contextmanager
def bar(what: str, total: int, *, enabled: bool) -> Iterator[Advance]:
    """A bar of ``total`` units for the duration of the block."""
    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield Advance(None, total, what)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Advance(progress, total, what)


@contextmanager
def status_line(*, enabled: bool) -> Iterator[Progress | None]:
    """A spinner with a description and elapsed time, for work whose length is not known."""
    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield None
        return
    with Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as progress:
        yield progress
