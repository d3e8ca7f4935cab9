"""Seeds side by side, and tools from the PATH, with tools that only act as if."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from reverb_fpga.hw.boards import tools
from reverb_fpga.hw.boards.logs import BuildPhase, PlacementWatch
from reverb_fpga.hw.boards.seeds import Attempt, SeedTrials, here
from reverb_fpga.hw.boards.tools import Toolchain, find_toolchain
from reverb_fpga.hw.errors import BuildError, EnvironmentMissing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tools that act as if are scripts")

# Seed k reaches 40 + k MHz; it waits until as many as should run together have begun, and 13 breaks down.
_NEXTPNR = """
import json, pathlib, sys, time
assert {path.name for path in pathlib.Path(".").iterdir()} >= {"top.json", "top.lpf"}
seed = int(sys.argv[sys.argv.index("--seed") + 1])
pathlib.Path(f"../began-{seed}").touch()
deadline = time.monotonic() + 60
while len(list(pathlib.Path("..").glob("began-*"))) < int(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.01)
pathlib.Path("nextpnr.log").write_text("Info: Running router2...\\n" + ("ERROR: no way\\n" if seed == 13 else ""))
if seed == 13:
    sys.exit(1)
if seed == 66:
    with pathlib.Path("nextpnr.log").open("a") as log:
        for iteration in range(1, 60):
            wires = max(200 - 5 * iteration, 40 * iteration - 1400)
            log.write(f"Info:     iter={iteration} wires=99 overused={wires} overuse=9\\n")
    time.sleep(120)
pathlib.Path("timing.json").write_text(json.dumps({"fmax": {"clk": {"achieved": 40 + seed, "constraint": 50}}}))
if 40 + seed < 50:
    sys.exit(1)
pathlib.Path("top.config").write_text(str(seed))
"""


def _trials(work: Path, together: int = 1) -> tuple[SeedTrials, list[BuildPhase]]:
    work.mkdir(exist_ok=True)
    for name in ("top.json", "top.lpf"):
        (work / name).write_text("")
    toolchain = Toolchain({}, {"nextpnr-ecp5": (sys.executable, "-c", _NEXTPNR, str(together))})
    phases: list[BuildPhase] = []
    return SeedTrials(here(toolchain), [], 50.0, work, phases.append), phases


def _run(work: Path, seeds: list[int], jobs: int) -> Attempt:
    return _trials(work, jobs)[0].run(seeds, jobs)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_the_fastest_seed_is_kept_however_many_run_side_by_side(jobs: int, tmp_path: Path) -> None:
    best = _run(tmp_path, [11, 16, 7, 12], jobs)
    assert (best.seed, best.fmax_mhz, best.error) == (16, 56.0, None)
    assert (best.directory / "top.config").read_text() == "16"


def test_progress_names_the_seeds(tmp_path: Path) -> None:
    trials, phases = _trials(tmp_path, 2)
    trials.run([8, 12, 13], 2)
    said = [f"{phase.step}: {phase.detail}" for phase in phases]
    assert "timing not met: seed 8: 48.0 of 50 MHz" in said
    assert any(line.startswith("timing: seed 12: 52.0 MHz, ") for line in said)
    assert "timing: seed 13: nextpnr-ecp5 failed: no way" in said
    assert any(line.startswith("routing: seed ") for line in said)


def test_no_seed_is_good(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"timing not met: 48\.0 MHz \(seed 8\) of 50 MHz; try --clock 48"):
        _run(tmp_path, [3, 8, 13], 2)


def test_one_that_breaks_down_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no way"):
        _run(tmp_path, [13], 1)


def test_a_router_that_does_not_converge_is_ended(tmp_path: Path) -> None:
    message = r"the router does not converge: 25 wires overused in iteration 35, 600 in 50; try another --seed"
    with pytest.raises(BuildError, match=message):
        _run(tmp_path / "one", [66], 1)
    best = _run(tmp_path / "two", [66, 12], 2)
    assert best.seed == 12


def test_where_no_seed_can_be_routed_further_ones_are_tried(tmp_path: Path) -> None:
    trials, phases = _trials(tmp_path)
    assert trials.run([66], 1, spare=[13, 12, 11]).seed == 12
    assert not (tmp_path / "began-11").exists()
    assert any(phase.detail.startswith("seed 66: the router does not converge") for phase in phases)


def test_a_clock_that_is_missed_is_no_reason_for_further_ones(tmp_path: Path) -> None:
    trials, _ = _trials(tmp_path)
    with pytest.raises(BuildError, match=r"timing not met: 48\.0 MHz \(seed 8\)"):
        trials.run([8], 1, spare=[12])
    assert not (tmp_path / "began-12").exists()


def test_a_design_larger_than_the_device_is_told_at_once() -> None:
    watch = PlacementWatch()
    assert watch.follow("Info: \t              DP16KD:      56/     56   100%") is None
    assert watch.follow("Info: \t        TRELLIS_COMB:   27308/  24288   112%") == (
        "the overlay takes 27,308 of the device's 24,288 LUT4; it needs a smaller configuration, or a larger board"
    )


def test_routers_that_converge_slowly_are_left_alone() -> None:
    seen = [59614, 1047, 193, 106, 51, 23, 10, 13, 11, 8, 12, 5, 6, 10, 11, 6, 2, 2, 3, 6, 5, 3, 3, 3, 1, 0]
    watch = PlacementWatch()
    for iteration, wires in enumerate(seen * 3, 1):  # again and again: every seed's log begins at 1
        number = (iteration - 1) % len(seen) + 1
        assert watch.follow(f"Info:     iter={number} wires=1 overused={wires} overuse=1 archfail=NA") is None


def _routing(iteration: int, wires: int, slow: int) -> str:
    return (
        f"Info:     iter={iteration} wires=9 overused={wires} overuse={wires} resources=0 overused=0 overuse=0 "
        f"tmgfail={slow} archfail=NA"
    )


def test_connections_that_stay_too_slow_are_told() -> None:
    watch = PlacementWatch()
    assert watch.follow("Info: Max frequency for clock '$glbnet$clk': 51.16 MHz (FAIL at 85.00 MHz)") is None
    for iteration in range(1, 61):
        assert watch.follow(_routing(iteration, 3, 7 if iteration == 2 else 8 + iteration % 3)) is None
    assert watch.follow(_routing(61, 3, 9)) is None
    assert watch.follow(_routing(62, 3, 9)) == (
        "timing not met: 7 connections are too slow for the clock (51.16 MHz were estimated before routing), and "
        "routing them again does not help in 60 iterations; try a lower --clock, or more --tries"
    )


def test_slow_connections_wait_until_the_wires_are_routed() -> None:
    watch = PlacementWatch()
    for iteration in range(1, 200):
        assert watch.follow(_routing(iteration, 200 - iteration, 8)) is None


def test_fewer_and_fewer_slow_connections_are_left_alone() -> None:
    watch = PlacementWatch()
    for iteration in range(1, 999):
        slow = [(1000 - iteration) // 50, 30, 0][iteration % 3]
        assert watch.follow(_routing(iteration, 1, slow)) is None


def test_an_exception_ends_all_of_them(tmp_path: Path) -> None:
    def interrupt(phase: BuildPhase) -> None:
        if phase.step == "timing not met":
            raise KeyboardInterrupt

    trials, _ = _trials(tmp_path, 1)
    trials._progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        trials.run([1, 2, 3, 4], 2)
    assert len(list(tmp_path.glob("began-*"))) <= 3


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_native_tools_are_named_by_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match=r"yosys is not on the PATH.*--tools pip"):
        find_toolchain("native")
    _script(tmp_path / "yosys", "echo 'Yosys 0.66 (git sha1 86f2dde)'")
    _script(tmp_path / "nextpnr-ecp5", "echo 'nextpnr (Version 0.11.1)' >&2")
    _script(tmp_path / "ecppack", "exit 1")
    with pytest.raises(EnvironmentMissing, match=r"ecppack --version' fails"):
        find_toolchain("native")
    _script(tmp_path / "ecppack", "echo; echo Copyright; echo 'ecppack Version 1.4'")
    found = find_toolchain("native")
    assert dict(found.versions) | {"amaranth": "", "amaranth-boards": ""} == {
        "amaranth": "", "amaranth-boards": "", "yosys": "Yosys 0.66 (git sha1 86f2dde)",
        "nextpnr-ecp5": "nextpnr (Version 0.11.1)", "ecppack": "ecppack Version 1.4",
    }  # fmt: skip
    assert found.commands["yosys"] == (str(tmp_path / "yosys"),)
    assert set(found.versions) != set(tools.PACKAGES)
