"""Carry chains of a netlist, as yosys writes it in JSON: begun without a wire."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .nets import readers, unused_nets

__all__ = ["begin_carry_chains"]

_Cell = dict[str, Any]
_INPUTS = "ABCD"
_HIGH: dict[str, list[int | str]] = {pin: ["1"] for pin in _INPUTS}
_CONSTANT_CARRY = {"0": f"{0:016b}", "1": f"{0x000F:016b}"}
"""INIT of a bit whose inputs are 1 that propagates no carry (bit 15) and generates this one (bits 3 to 0)."""


@dataclasses.dataclass(frozen=True)
class _Bit:
    """One of the two bits of a CCU2C: its inputs, sum and parameters."""

    inputs: dict[str, list[int | str]]
    total: list[int | str]
    init: str
    inject: str


def begin_carry_chains(module: _Cell) -> int:
    """Let the first bit of every carry chain make the constant that it begins with; the number of chains changed.

    nextpnr puts a CCU2C of its own before a chain whose carry input is connected, and leads a wire to it, for constants
    too. The bit that does the same here takes the spare one of chains of an odd length, and no wire.
    """
    counts = readers(module)
    cells = {name: cell for name, cell in module["cells"].items() if cell["type"] == "CCU2C"}
    by_input = {bits[0]: name for name, cell in cells.items() if (bits := cell["connections"].get("CIN"))}
    fresh = unused_nets(module)
    changed = 0
    for name, cell in cells.items():
        constant = cell["connections"].get("CIN", [None])[0]
        if constant in _CONSTANT_CARRY and (chain := _chain(name, cells, by_input, counts)):
            _shift(module["cells"], chain, _CONSTANT_CARRY[constant], counts, fresh)
            changed += 1
    return changed


def _chain(
    first: str, cells: dict[str, _Cell], by_input: dict[int | str, str], counts: Counter[int | str]
) -> list[str]:
    """Cells of a chain in order; none where a carry goes to the next one and elsewhere."""
    chain = [first]
    while True:
        carry = cells[chain[-1]]["connections"].get("COUT", [None])[0]
        if carry not in by_input:
            return chain
        if counts[carry] > 1:
            return []
        chain.append(by_input[carry])


def _shift(
    cells: dict[str, _Cell], chain: list[str], constant: str, counts: Counter[int | str], fresh: Iterator[int]
) -> None:
    """Move the bits of a chain by one, behind a bit that makes a constant carry."""
    bits = [_bit(cells[name], place) for name in chain for place in (0, 1)]
    carry = cells[chain[-1]]["connections"].get("COUT", [])
    if any(counts[net] for net in carry):  # a bit that adds nothing shows it
        bits.append(_Bit(_HIGH, carry, _CONSTANT_CARRY["0"], "NO"))
    while len(bits) > 1 and not any(counts[net] for net in bits[-1].total):
        bits.pop()
    bits = [_Bit(_HIGH, [], constant, "NO"), *bits]
    bits += [_Bit(_HIGH, [], _CONSTANT_CARRY["0"], "NO")] * (len(bits) % 2)
    model, carries = cells[chain[0]], [cells[name]["connections"]["COUT"] for name in chain[:-1]]
    for name in chain:
        del cells[name]
    names = [*chain, f"{chain[0]}$constant"][: len(bits) // 2]
    carries = [*[["x"], *carries, [next(fresh)]][: len(names)], [next(fresh)]]
    for place, name in enumerate(names):
        cells[name] = _cell(model, bits[2 * place : 2 * place + 2], *carries[place : place + 2])


def _bit(cell: _Cell, place: int) -> _Bit:
    connections, parameters = cell["connections"], cell["parameters"]
    return _Bit(
        {pin: connections.get(f"{pin}{place}", ["1"]) for pin in _INPUTS},
        connections.get(f"S{place}", []),
        parameters[f"INIT{place}"],
        parameters[f"INJECT1_{place}"],
    )


def _cell(model: _Cell, pair: list[_Bit], carry_in: list[int | str], carry_out: list[int | str]) -> _Cell:
    """A CCU2C of two bits. Sums that it does not have are not connected; a carry input may be undefined."""
    connections = {f"{pin}{place}": bit.inputs[pin] for place, bit in enumerate(pair) for pin in _INPUTS}
    connections |= {f"S{place}": bit.total for place, bit in enumerate(pair)}
    connections |= {"CIN": carry_in, "COUT": carry_out}
    parameters = {f"INIT{place}": bit.init for place, bit in enumerate(pair)}
    parameters |= {f"INJECT1_{place}": bit.inject for place, bit in enumerate(pair)}
    return model | {
        "parameters": model["parameters"] | parameters,
        "connections": {port: nets for port, nets in connections.items() if nets},
    }
