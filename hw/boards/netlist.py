"""What synthesis leaves undone in the netlist, as yosys writes it in JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .chains import begin_carry_chains
from .nets import readers, unused_nets
from .sites import Sites, fix_block_rams

__all__ = [
    "CROWDED", "ROUTER", "VERSION", "Improved", "absorb_output_registers", "cell_counts", "guide_router", "improve",
    "leave_global_network", "lut_equivalents",
]  # fmt: skip

VERSION = 4
"""Goes up with every change of what is done to a netlist: builds are cached by it."""

CROWDED = 0.55
"""Share of the LUTs of a device; routed builds had 0.19 to 0.48 and 0.66 to 0.73."""

ROUTER = {
    "router2/estimateWeight": "1.0",
    "router2/bbMargin/x": "8",
    "router2/bbMargin/y": "8",
    "router2/currCongWeightMult": "1.0",
}
"""How router2 searches; nextpnr takes these from the netlist, its command line has no options for them.

By its own values (1.25, 3, 3, 2.0) it overestimates what is left of a way, which is quicker and misses the ways around
a crowded place; it keeps a net within three tiles of its box; and a wire that is wanted twice costs more so soon that
nets go far out of their way, which crowds others: overused wires rise again (decision 17).
"""

_LOGIC = ("LUT4", "CCU2C", "PFUMX", "L6MUX21")
_LUTS_OF_CARRY = 2  # LUT4 of a CCU2C
_LUTS_OF_RAM = 7.5  # of a DPR16X4, as nextpnr counts its data and write ports: two builds, 7.35 and 7.6
_WIDEST = 18
_TOO_WIDE = 36  # of both ports together: their outputs and registers are not those of one port


@dataclasses.dataclass(frozen=True)
class Improved:
    """What became of a netlist: its cells by type, and whether its block RAMs have the sites that were given."""

    cells: Counter[str]
    sited: bool


def improve(path: Path, sites: Sites, luts: int | None = None) -> Improved:
    """Do what is below, :func:`begin_carry_chains` and :func:`fix_block_rams`, in a flat netlist file.

    `luts` is how many LUT4 the device has; without it the router is left alone.
    """
    netlist = json.loads(path.read_text())
    for module in netlist["modules"].values():
        absorb_output_registers(module)
        begin_carry_chains(module)
        leave_global_network(module)
    sited = fix_block_rams(netlist["modules"]["top"], sites)
    cells = cell_counts(netlist)
    if luts is not None:
        guide_router(netlist["modules"]["top"], cells, luts)
    path.write_text(json.dumps(netlist))
    return Improved(cells, sited)


def lut_equivalents(cells: Counter[str]) -> float:
    """LUT4 that nextpnr will count: those of carries and of distributed RAM, too."""
    return cells["LUT4"] + _LUTS_OF_CARRY * cells["CCU2C"] + _LUTS_OF_RAM * cells["TRELLIS_DPR16X4"]


def guide_router(top: dict[str, Any], cells: Counter[str], luts: int) -> None:
    """Give router2 the weights `ROUTER`, where `cells` take more than `CROWDED` of a device's `luts`."""
    if lut_equivalents(cells) > CROWDED * luts:
        top["settings"] = ROUTER


def cell_counts(netlist: dict[str, Any], top: str = "top") -> Counter[str]:
    """Cells of a flat netlist by type."""
    return Counter(cell["type"] for cell in netlist["modules"][top]["cells"].values())


def absorb_output_registers(module: dict[str, Any]) -> int:
    """Move flip-flops behind block RAM ports into the block RAMs: 1 ns from clock to output instead of 5.8.

    Yosys infers block RAM but not its output registers. A port is changed if each of its outputs that is used goes to
    one plain flip-flop of the RAM's clock and nothing else. Contents are then as late as before. Only the value after
    power-up may differ, as nothing tells it there.

    Returns the number of ports changed.
    """
    users = readers(module)
    registers: dict[int, tuple[str, dict[str, Any]]] = {}
    for name, cell in module["cells"].items():
        if _is_plain(cell):
            registers[cell["connections"]["DI"][0]] = (name, cell)
    changed = 0
    for cell in [cell for cell in module["cells"].values() if cell["type"] == "DP16KD"]:
        for side in "AB":
            found = _registers(cell, side, users, registers)
            if not found:
                continue
            for output, (name, register) in found.items():
                cell["connections"][output] = register["connections"]["Q"]
                del module["cells"][name]
            cell["parameters"][f"REGMODE_{side}"] = "OUTREG"
            cell["connections"][f"OCE{side}"] = ["1"]
            changed += 1
    return changed


def leave_global_network(module: dict[str, Any]) -> int:
    """Let logic read what is before a global buffer, not what is behind it; the number of inputs changed.

    A reset on the global network has a few readers that are logic. nextpnr routes the network before everything else,
    and its way into a LUT may then be the only one of another input ("Failed to route arc"). The buffer, which stands
    at the edge of the device, gets a register of its own, and so does each of these readers, wherever that stands.
    """
    cells = module["cells"]
    buffers = [cell for cell in cells.values() if cell["type"] == "DCCA"]
    sources = {buffer["connections"]["CLKO"][0]: buffer["connections"]["CLKI"][0] for buffer in buffers}
    registers = {cell["connections"]["Q"][0]: name for name, cell in cells.items() if cell["type"] == "TRELLIS_FF"}
    fresh, changed = unused_nets(module), 0

    def copy_of(net: int) -> int:
        """The net of another register like the one that drives this net, if one does."""
        if net not in registers:
            return net
        name, own = registers[net], next(fresh)
        cells[f"{name}$copy_{own}"] = cells[name] | {"connections": cells[name]["connections"] | {"Q": [own]}}
        return own

    for cell in list(cells.values()):
        if cell["type"] not in _LOGIC:
            continue
        for port, bits in cell["connections"].items():
            if bits and bits[0] in sources and cell["port_directions"][port] == "input":
                cell["connections"][port] = [copy_of(sources[bits[0]])]
                changed += 1
    for buffer in buffers:
        buffer["connections"]["CLKI"] = [copy_of(buffer["connections"]["CLKI"][0])]
    return changed


def _is_plain(cell: dict[str, Any]) -> bool:
    """A flip-flop without clock enable and reset."""
    if cell["type"] != "TRELLIS_FF":
        return False
    parameters, connections = cell["parameters"], cell["connections"]
    enabled = parameters.get("CEMUX", "CE").strip() == "1" or connections.get("CE") == ["1"]
    reset = connections.get("LSR", ["0"]) != ["0"] or parameters.get("REGSET") != "RESET"
    return enabled and not reset and parameters.get("CLKMUX", "CLK").strip() == "CLK"


def _registers(
    cell: dict[str, Any], side: str, users: Counter[int | str], registers: dict[int, tuple[str, dict[str, Any]]]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """The flip-flops behind a port by the output that they follow; none if there is anything else behind it."""
    if (
        int(cell["parameters"][f"DATA_WIDTH_{side}"], 2) == _TOO_WIDE
        or cell["parameters"][f"CLK{side}MUX"] != f"CLK{side}"
    ):
        return {}
    found = {}
    for number in range(_WIDEST):
        output = f"DO{side}{number}"
        bits = cell["connections"].get(output, [])
        if not bits or not users[bits[0]]:
            continue
        register = registers.get(bits[0])
        if (
            users[bits[0]] != 1
            or register is None
            or register[1]["connections"]["CLK"] != cell["connections"][f"CLK{side}"]
        ):
            return {}
        found[output] = register
    return found
