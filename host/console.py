"""The one way to print: a console for standard output, and tables that lose no column.

On a terminal a table is as wide as it needs to be, and fits 80 columns where it can. In a pipe nothing is wrapped or
cut: a line of a table is a line of the output, whatever COLUMNS says.
"""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.table import Table

__all__ = ["Output", "make_table", "output"]

_UNLIMITED = 1 << 16


class Output(Console):
    """Standard output. Text is printed as it is: no markup, no colours for numbers."""

    def __init__(self, file: IO[str] | None = None, *, width: int | None = None, terminal: bool | None = None) -> None:
        super().__init__(file=file, width=width, force_terminal=terminal, markup=False, highlight=False, emoji=False)
        if not self.is_terminal:
            self.width = _UNLIMITED

    def say(self, text: str = "") -> None:
        """A line of text; on a terminal it is wrapped at words, in a pipe it is one line."""
        self.print(text, soft_wrap=not self.is_terminal)

    def table(self, table: Table) -> None:
        """A table. One that needs more than the terminal has is printed at the width that it needs."""
        needed = table.__rich_measure__(self, self.options.update(max_width=_UNLIMITED)).maximum
        if needed <= self.width:
            self.print(table)
            return
        before, self.width = self.width, needed
        try:
            self.print(table, crop=False, no_wrap=True)
        finally:
            self.width = before

    def on_broken_pipe(self) -> None:
        """Leave it to the one place that ends the command (rich would exit with 1 here)."""
        raise


def output() -> Output:
    """Standard output as it is now."""
    return Output()


def make_table(*left: str, right: tuple[str, ...] = (), title: str | None = None, gap: int = 2) -> Table:
    """A plain table: columns of text, then columns of numbers; `gap` blanks between them."""
    table = Table(
        *left, title=title, title_justify="left", box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold",
        show_header=bool(left or right),
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = True
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
