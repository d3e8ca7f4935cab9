"""Nets of a netlist, as yosys writes it in JSON."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

__all__ = ["readers", "unused_nets"]


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


def unused_nets(module: dict[str, Any]) -> Iterator[int]:
    """Numbers that no net of the module has."""
    return itertools.count(1 + max(_nets(module), default=0))


def _nets(module: dict[str, Any]) -> Iterator[int]:
    for part in (*module.get("ports", {}).values(), *module["cells"].values()):
        for bits in part["connections"].values() if "connections" in part else [part["bits"]]:
            yield from (bit for bit in bits if isinstance(bit, int))
