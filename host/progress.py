"""Progress on standard error: a bar where there is a terminal, nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

__all__ = ["Advance", "bar", "share", "status_line"]


_WHOLE = Column(no_wrap=True)  # never cut: the description gives way


def _description() -> TextColumn:
    """What is being done, as much of it as the line has room for; without markup, for names may look like it."""
    return TextColumn(
        "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )


def _elapsed() -> TimeElapsedColumn:
    return TimeElapsedColumn(table_column=_WHOLE)


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
        _description(), BarColumn(bar_width=20), MofNCompleteColumn(table_column=_WHOLE), _elapsed(),
        TimeRemainingColumn(table_column=_WHOLE),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield Advance(progress, total, what)


@contextmanager
def share(what: str, note: str, *, enabled: bool) -> Iterator[Callable[[str, float, float, str], None] | None]:
    """A bar for work of a known length with figures beside it: call it with what, done, total and the figures.

    The figures are never cut: the bar and what is being done give way. None where there is no terminal.
    """
    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield None
        return
    columns = (
        _description(), BarColumn(bar_width=16), TimeRemainingColumn(table_column=_WHOLE),
        TextColumn("{task.fields[note]}", markup=False, table_column=_WHOLE),
    )  # fmt: skip
    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task(what, total=None, note=note)
        yield lambda what, done, total, note: progress.update(
            task, description=what, completed=done, total=total, note=note
        )


class _Note(ProgressColumn):
    """What a function says at the moment."""

    def __init__(self, note: Callable[[], str]) -> None:
        super().__init__(table_column=_WHOLE)
        self._note = note

    def render(self, task: Task) -> Text:
        return Text(self._note())


@contextmanager
def status_line(note: Callable[[], str], *, enabled: bool) -> Iterator[Progress | None]:
    """A line with a description, elapsed time and a note, for work whose length is not known."""
    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield None
        return
    with Progress(_description(), _elapsed(), _Note(note), console=console, transient=True, expand=True) as progress:
        yield progress
