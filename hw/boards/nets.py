"""Nets of a netlist, as yosys writes it in JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["readers"]


def readers(module: dict[str, Any]) -> Counter[int | str]:
    """How many inputs of cells, and ports of the module, have a net."""
    found: Counter[int | str] = Counter()
    for port in module["ports"].values():
        found.update(bit for bit in port["bits"] if isinstance(bit, int))
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"].get(port) != "output":
                found.update(bit for bit in bits if isinstance(bit, int))
    return found
