"""Every code block of README and docs is run, or says why it is not; tutorials are run by tests/test_tutorials.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from build_reports import build_report
from code_blocks import Block, blocks_of
from PIL import Image

from reverb_fpga.host import bundled
from reverb_fpga.hw.boards.report import write_report

ROOT = Path(__file__).parent.parent
TUTORIALS = set(ROOT.glob("docs/tutorials/*.md"))
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - TUTORIALS)
_INSTALLED = re.compile(r"^pip install [^&]*(?:&& )?")


def _blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page, str(page.relative_to(ROOT))) if block.is_code]


RUN = [block for block in _blocks() if not block.skipped]


def test_blocks_are_found() -> None:
    assert len(_blocks()) > 25
    assert len(RUN) >= 6
    assert len({block.page for block in RUN}) >= 3


def test_what_is_not_run_says_why() -> None:
    for page in [*PAGES, *TUTORIALS]:
        for block in blocks_of(page, page.name):  # a note that is none is an error there
            assert not block.skipped or len(block.note) > len("not run: ") + 10, block


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take for granted: pictures, a model, two builds."""
    folder = tmp_path_factory.mktemp("blocks")
    picture = Image.new("RGB", (48, 40), (40, 90, 160))
    picture.save(folder / "photo.jpg")
    (folder / "folder").mkdir()
    picture.save(folder / "folder" / "one.png")
    (folder / "model.rvb").write_bytes((bundled.ASSETS / "models" / "cifar10-cnv.rvb").read_bytes())
    for name in ("old", "new"):
        (folder / "out" / name).mkdir(parents=True)
        write_report(folder / "out" / name, build_report())
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs(block: Block, place: Path) -> None:
    for module in ("torch", "bokeh", "amaranth"):
        pytest.importorskip(module)
    if block.language == "python" or block.text.startswith("import"):
        command = [sys.executable, "-c", block.text]
    else:  # what it installs is installed
        lines = [_INSTALLED.sub("", line) for line in block.commands.splitlines()]
        command = ["bash", "-e", "-c", "\n".join(lines)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == block.exit_code, done.stdout + done.stderr
    assert done.stdout
