"""``report.json`` of a build."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["REPORT_NAME", "BuildReport", "read_report", "write_report"]

REPORT_NAME = "report.json"
_MAX_BYTES = 1 << 20
_HUGE = 1e15


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Figures of one finished bitstream, as the tools gave them.

    Parameters
    ----------
    lut4, ff, bram, dsp : int
        TRELLIS_COMB (LUT4s, carry and LUT RAM included), TRELLIS_FF, DP16KD and MULT18X18D used.
    available : dict
        The same four of the device.
    clock_mhz, fmax_mhz : float
        Clock of the overlay, and the largest that static timing allows after routing.
    baud, divisor : int
        UART rate, and clock cycles per bit; 0 for a USB link.
    additions_per_cycle : int
    seconds : float
        Synthesis, place and route and packing together.
    seed : int
        Of the placer.
    bram_by_use : dict of str to int
        Block RAMs by the memory that they hold.
    critical_path : list of str
        Cells along the longest path.
    tools : dict of str to str
        Versions.
    design_digest : str
        What the cache goes by.
    """

    board: str
    config: str
    config_digest: str
    additions_per_cycle: int
    lut4: int
    ff: int
    bram: int
    dsp: int
    available: dict[str, int]
    clock_mhz: float
    fmax_mhz: float
    baud: int
    divisor: int
    seconds: float
    seed: int
    bram_by_use: dict[str, int]
    critical_path: list[str]
    tools: dict[str, str]
    design_digest: str


def write_report(directory: Path, report: BuildReport) -> Path:
    """Write ``directory/report.json``."""
    path = directory / REPORT_NAME
    path.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    return path


def read_report(directory: Path) -> BuildReport:
    """Read ``directory/report.json``.

    Raises
    ------
    InputError
        If it is missing, or not one.
    """
    path = directory / REPORT_NAME
    missing = f"{path}: no such report; 'reverb-fpga build --board NAME -o {directory}' makes one"
    if not path.is_file():  # nor a FIFO, which would block
        raise InputError(missing)
    try:
        with path.open("rb") as file:
            values: Any = json.loads(file.read(_MAX_BYTES))
    except OSError:
        raise InputError(missing) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    fields = {field.name: str(field.type) for field in dataclasses.fields(BuildReport)}
    if not isinstance(values, dict) or set(values) != set(fields):
        raise InputError(f"{path}: not a build report of this version")
    for name, kind in fields.items():
        if not _is_a(values[name], kind):
            raise InputError(f"{path}: damaged: its {name} is not what a build writes; build again")
    if not values["available"].keys() >= {"lut4", "ff", "bram", "dsp"}:
        raise InputError(f"{path}: damaged: its available lacks a resource; build again")
    return BuildReport(**values)


def _is_a(value: Any, kind: str) -> bool:
    """Whether a value read from a file is of a field's type; texts are printable, numbers are finite."""
    if kind == "str":
        return isinstance(value, str) and value.isprintable()
    if kind == "int":
        return type(value) is int and abs(value) < _HUGE
    if kind == "float":
        return type(value) in (int, float) and abs(value) < _HUGE
    if kind == "list[str]":
        return isinstance(value, list) and all(_is_a(entry, "str") for entry in value)
    inner = kind.removeprefix("dict[str, ").removesuffix("]")
    return isinstance(value, dict) and all(_is_a(key, "str") and _is_a(entry, inner) for key, entry in value.items())
