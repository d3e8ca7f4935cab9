"""The notebooks of ``examples`` run from top to bottom, and are kept without output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("bokeh")

EXAMPLES = Path(__file__).parent.parent / "examples"
SLOW = {"own_pictures.ipynb"}


def _notebooks() -> list[object]:
    paths = sorted(EXAMPLES.glob("*.ipynb"))
    return [pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW)) for path in paths]


def test_there_are_three() -> None:
    assert len(_notebooks()) == 3


@pytest.mark.parametrize("path", _notebooks())
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.name in SLOW:
        pytest.importorskip("torch")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear its output"
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = "".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "Traceback" not in shown
    assert "error:" not in shown
