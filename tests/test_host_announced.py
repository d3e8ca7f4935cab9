"""What a user reads while the gateware is compiled for the first time."""

from __future__ import annotations

import pytest

from reverb_fpga.host.backends import announced
from reverb_fpga.hw.config import preset


def test_a_compilation_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    stages: list[str] = []
    report = announced(preset("ulx3s-85f"), stages.append)
    assert capsys.readouterr().err == ""  # nothing where the cache has it
    report("yosys: writing Verilog")
    report("verilator: compiling")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "compiling the gateware of ulx3s-85f to a simulator: once, about a minute" in told
    assert stages == ["yosys: writing Verilog", "verilator: compiling"]
