"""Seeds on a dask cluster, with tools that only act as if."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest

from reverb_fpga.hw.boards.cluster import LOCAL, on_cluster
from reverb_fpga.hw.boards.logs import BuildPhase
from reverb_fpga.hw.boards.seeds import SeedTrials
from reverb_fpga.hw.boards.tools import Toolchain, find_toolchain
from reverb_fpga.hw.errors import BuildError, InputError

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tools that act as if are scripts")

# Seed k reaches 40 + k MHz; 13 breaks down, and 99 goes on until it is ended.
_NEXTPNR = """#!{python}
import json, os, pathlib, sys, time
if "--version" in sys.argv:
    sys.exit(print("nextpnr (Version 0.11.1)"))
assert pathlib.Path("top.json").read_text() == "netlist" and pathlib.Path("top.lpf").read_text() == "pins"
seed = int(sys.argv[sys.argv.index("--seed") + 1])
pathlib.Path("nextpnr.log").write_text("Info: Running router2...\\n" + ("ERROR: no way\\n" if seed == 13 else ""))
if seed == 13:
    sys.exit(1)
if seed == 99:
    pathlib.Path("{notes}/began").write_text(str(os.getpid()))
    time.sleep(120)
pathlib.Path("timing.json").write_text(json.dumps({{"fmax": {{"clk": {{"achieved": 40 + seed, "constraint": 50}}}}}}))
pathlib.Path("top.config").write_text(str(seed))
"""


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    """Scripts on the PATH, and a folder ``build`` with what nextpnr reads."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in ("yosys", "nextpnr-ecp5", "ecppack"):
        text = f"#!/bin/sh\necho '{tool} Version 1'\n"
        if tool == "nextpnr-ecp5":
            text = _NEXTPNR.format(python=sys.executable, notes=tmp_path)
        (bin_ / tool).write_text(text)
        (bin_ / tool).chmod((bin_ / tool).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "top.json").write_text("netlist")
    (tmp_path / "build" / "top.lpf").write_text("pins")
    return find_toolchain("native")


def test_the_fastest_seed_of_a_cluster_is_kept(tmp_path: Path, toolchain: Toolchain) -> None:
    work = tmp_path / "build"
    phases: list[BuildPhase] = []
    with on_cluster(LOCAL, 2, "native", toolchain, work) as launch:
        best = SeedTrials(launch, [], 50.0, work, phases.append).run([11, 16, 13, 12], 2)
    assert (best.seed, best.fmax_mhz) == (16, 56.0)
    assert (best.directory / "top.config").read_text() == "16"
    assert (best.directory / "nextpnr.log").is_file()
    said = [f"{phase.step}: {phase.detail}" for phase in phases]
    assert "timing: seed 13: nextpnr-ecp5 failed: no way" in said
    assert any(line.startswith("routing: seed ") for line in said)


def test_a_stop_ends_the_tools_on_the_workers(tmp_path: Path, toolchain: Toolchain) -> None:
    began = tmp_path / "began"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not began.exists() or not began.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt

    seed = tmp_path / "build" / "seed-99"
    seed.mkdir()
    with (
        pytest.raises(KeyboardInterrupt),
        on_cluster(LOCAL, 1, "native", toolchain, tmp_path / "build") as launch,
        launch(["--seed", "99"], seed, lambda _: None),
    ):
        interrupt()
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)


def test_workers_with_another_nextpnr_are_refused(tmp_path: Path, toolchain: Toolchain) -> None:
    other = Toolchain({**toolchain.versions, "nextpnr-ecp5": "nextpnr (Version 0.9)"}, toolchain.commands)
    work = tmp_path / "build"
    with (
        on_cluster(LOCAL, 1, "native", other, work) as launch,
        pytest.raises(BuildError, match=r"its nextpnr-ecp5 is nextpnr \(Version 0.11.1\), not nextpnr \(Version 0.9\)"),
    ):
        SeedTrials(launch, [], 50.0, work, lambda _: None).run([11], 1)


def test_no_scheduler_is_one_line(tmp_path: Path, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb_fpga.hw.boards.cluster._CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with (
            pytest.raises(InputError, match="no dask scheduler answers at"),
            on_cluster(address, 1, "native", toolchain, tmp_path / "build"),
        ):
            pass
