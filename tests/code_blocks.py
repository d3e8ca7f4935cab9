"""Code blocks of the documentation, and how they are run.

A block is fenced or indented, and what is to be done with it stands in a comment after it::

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

_FENCE = re.compile(r'```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?')
_COMMENT = re.compile(r"<!-- (.*) -->")
_INDENT = " " * 4
_CODE = (
    "reverb-fpga", "python", "python3", "pytest", "pip", "torchrun", "git", "cd", "apt", "pre-commit", ".ci/run",
    "import", "from",
)  # fmt: skip
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
    def is_code(self) -> bool:
        """Commands, Python or a file; else it is a figure, a formula, or what was printed."""
        first = self.text.split(maxsplit=1)[0]
        return self.language in ("bash", "python", "toml") or (not self.language and first in _CODE)

    @property
    def commands(self) -> str:
        """What is given to the shell."""
        lines = self.text.splitlines()
        return "\n".join(lines[1:] if self.note.startswith("run: second line") else lines)


def blocks_of(path: Path, page: str) -> list[Block]:
    """The blocks of a page, in order. Raises ValueError for a note that is none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found, at = [], 0
    while at < len(lines):
        fence, start = _FENCE.fullmatch(lines[at]), at
        if fence is not None:
            at = lines.index("```", at + 1) + 1
            language, title, body = fence["language"], fence["title"], lines[start + 1 : at - 1]
        elif lines[at].startswith(_INDENT) and (at == 0 or not lines[at - 1]):
            while at < len(lines) and (not lines[at] or lines[at].startswith(_INDENT)):
                at += 1
            while not lines[at - 1]:
                at -= 1
            language, title, body = "", None, [line[len(_INDENT) :] for line in lines[start:at]]
        else:
            at += 1
            continue
        after = next((line for line in lines[at : at + 2] if line), "")
        comment = _COMMENT.fullmatch(after)
        block = Block(page, start + 1, language, "\n".join(body) + "\n", title, comment[1] if comment else "")
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
