"""Code blocks of the documentation, and how they are run.

A block is fenced, and what is to be done with it stands in a comment right after it::

    <!-- run: slow -->                  with `pytest -m slow` only
    <!-- run: fails with 2 -->          a command that ends with that exit code
    <!-- run: second line; REASON -->   all but the first line
    <!-- not run: REASON -->

Blocks of ``bash`` are run, those with ``title="FILE"`` are written to that file, and a block of ``text`` after them is
what their output holds: its lines in that order, ``...`` stands for anything.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

__all__ = ["Block", "blocks_of", "expectation", "unmet"]

_FENCE = re.compile(
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$(?:\n<!-- (?P<note>.*?) -->$)?",
    re.MULTILINE | re.DOTALL,
)
_NOTE = re.compile(r"run: slow|run: fails with \d|run: second line; .+|not run: .+")


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Parameters
    ----------
    page : str
    line : int
        Of its fence.
    language, text : str
    title : str or None
        File that it is.
    note : str
        What stands after it; empty if nothing.
    """

    page: str
    line: int
    language: str
    text: str
    title: str | None
    note: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def skipped(self) -> bool:
        """Marked as not to be run."""
        return self.note.startswith("not run")

    @property
    def slow(self) -> bool:
        """Run with the slow tests only."""
        return self.note == "run: slow"

    @property
    def exit_code(self) -> int:
        """That its last command ends with."""
        found = re.search(r"fails with (\d)", self.note)
        return int(found[1]) if found else 0

    @property
    def commands(self) -> str:
        """What is given to the shell."""
        lines = self.text.splitlines()
        return "\n".join(lines[1:] if self.note.startswith("run: second line") else lines)


def blocks_of(path: Path, page: str) -> list[Block]:
    """The fenced blocks of a page, in order. Raises ValueError for a note that is none."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        block = Block(
            page, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], match["title"],
            match["note"] or "",
        )  # fmt: skip
        if block.note and not _NOTE.fullmatch(block.note):
            raise ValueError(f"{block}: no such note: {block.note}")
        found.append(block)
    return found


def expectation(block: Block) -> list[re.Pattern[str]]:
    """Lines that the output must hold."""
    lines = [line.strip() for line in block.text.splitlines() if line.strip()]
    return [re.compile(r"\s*" + _pattern(line) + r"\s*") for line in lines]


def _pattern(line: str) -> str:
    """Runs of blanks are alike; ``...`` is anything, nothing too."""
    parts = [r"\s+".join(re.escape(word) for word in part.split(" ") if word) for part in line.split("...")]
    return r"\s*.*\s*".join(parts)


def unmet(wanted: list[re.Pattern[str]], output: str) -> str | None:
    """The first line that is wanted and not found, after those before it."""
    lines = iter(output.splitlines())
    for pattern in wanted:
        if not any(pattern.fullmatch(line) for line in lines):
            return pattern.pattern
    return None
