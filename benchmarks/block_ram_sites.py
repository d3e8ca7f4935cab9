"""Sites of block RAM for hw/boards/sites, from a placement that turned out well.

    python benchmarks/block_ram_sites.py place ulx3s-85f=ulx3s-85f --seed 2 --tools native -o placed.json
    python benchmarks/block_ram_sites.py sites placed.json -o hw/boards/sites/ulx3s-85f.json
    python benchmarks/block_ram_sites.py sites placed.json --improve -o better.json

`place` makes the netlist as `build` does, at the sites that the board has now, and places it without routing it.
`sites` takes where its block RAMs are; with --improve each goes where it has less wire, all else staying where it is.
The netlist is then to be placed again.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from routed import synthesise
from scipy.optimize import linear_sum_assignment

from reverb_fpga.host import cli
from reverb_fpga.hw import processes
from reverb_fpga.hw.boards import flow
from reverb_fpga.hw.boards.tools import SOURCES, run_tool

_SITE = re.compile(r"X(\d+)/Y(\d+)/")
_WIDEST = 2000  # loads of a net that has a tree of its own: clocks, resets
_ROUNDS = 12


class Placement:
    """A placed netlist, as nextpnr writes it: where cells are, and the nets of its block RAMs."""

    def __init__(self, netlist: dict[str, Any]) -> None:
        cells = netlist["modules"]["top"]["cells"]
        self.sites = {
            name: cell["attributes"]["NEXTPNR_BEL"] for name, cell in cells.items() if cell["type"] == "DP16KD"
        }
        loads: dict[int, set[str]] = defaultdict(set)
        for name, cell in cells.items():
            for bits in cell["connections"].values():
                for bit in bits:
                    if isinstance(bit, int):
                        loads[bit].add(name)
        self._where = {
            name: _point(cell["attributes"]["NEXTPNR_BEL"])
            for name, cell in cells.items()
            if "NEXTPNR_BEL" in cell["attributes"]
        }
        self._nets = [pins for pins in loads.values() if 1 < len(pins) < _WIDEST and pins & self.sites.keys()]

    def wire(self) -> int:
        """Half the perimeters of the nets that reach a block RAM, in tiles."""
        return sum(
            sum(max(axis) - min(axis) for axis in zip(*(self._where[pin] for pin in pins), strict=True))
            for pins in self._nets
        )

    def improve(self) -> None:
        """Exchange sites so that each block RAM, the others being where they are, has the least wire."""
        names, sites = list(self.sites), list(self.sites.values())
        points = np.array([_point(site) for site in sites])
        for _ in range(_ROUNDS):
            before = self.wire()
            kept = dict(self.sites), dict(self._where)
            chosen = linear_sum_assignment(self._costs(names, points))[1]
            for name, at in zip(names, chosen, strict=True):
                self.sites[name], self._where[name] = sites[at], tuple(int(value) for value in points[at])
            if self.wire() >= before:
                self.sites, self._where = kept
                return

    def _costs(self, names: list[str], points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Wire of every block RAM (rows) at every site (columns)."""
        costs = np.zeros((len(names), len(points)), dtype=np.int64)
        row = {name: number for number, name in enumerate(names)}
        for pins in self._nets:
            for name in pins & self.sites.keys():
                others = np.array([self._where[pin] for pin in pins if pin != name])
                low, high = np.minimum(points, others.min(axis=0)), np.maximum(points, others.max(axis=0))
                costs[row[name]] += (high - low).sum(axis=1)
        return costs


def _point(site: str) -> tuple[int, int]:
    found = _SITE.match(site)
    assert found is not None, site
    return int(found[1]), int(found[2])


@click.group(help=__doc__)
def main() -> None:
    """Entry point."""


@main.command()
@click.argument("build", metavar="BOARD=SHAPE")
@click.option("--seed", default=1, show_default=True, help="Of the placer.")
@click.option("--tools", type=click.Choice(SOURCES), default=SOURCES[0], show_default=True)
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def place(build: str, seed: int, tools: str, out: Path) -> None:
    """Synthesise and place a board's overlay."""
    with processes.scratch(".placed-", out.parent) as work:
        plan = synthesise(build, work, tools)
        arguments = flow._nextpnr_arguments(plan)
        routed = arguments.index("--textcfg")
        arguments[routed : routed + 2] = ["--no-route", "--write", "placed.json", "--seed", str(seed)]
        run_tool(plan.toolchain, "nextpnr-ecp5", arguments, "nextpnr.log", work, lambda _: None)
        (work / "placed.json").replace(out)


@main.command()
@click.argument("placed", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--improve", is_flag=True, help="Exchange sites for less wire.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def sites(placed: Path, improve: bool, out: Path) -> None:
    """Sites of the block RAMs of a placement."""
    placement = Placement(json.loads(placed.read_text()))
    click.echo(f"{len(placement.sites)} block RAMs, {placement.wire():,} of wire hang on them")
    if improve:
        placement.improve()
        click.echo(f"{placement.wire():,} after exchanges")
    out.write_text(json.dumps(dict(sorted(placement.sites.items())), indent=0) + "\n")


if __name__ == "__main__":
    cli.run(main, "block_ram_sites.py")
