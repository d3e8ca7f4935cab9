"""Two processes under torchrun train one network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import write_brightness


@pytest.mark.slow
def test_torchrun_trains_one_network(tmp_path: Path) -> None:
    write_brightness(tmp_path, 800, 50)
    arguments = [
        "train", "--arch", "scnn5", "--dataset", "mnist", "--data-dir", str(tmp_path), "--width", "0.125",
        "--epochs", "6", "--batch-size", "32", "--prune-ratio", "0.5", "--device", "cpu", "--threads", "1", "--json",
        "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "reverb_fpga.host.cli", *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["accuracy"] > 90
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
