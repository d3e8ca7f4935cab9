"""``report.json`` of a build."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from reverb_fpga.hw.errors import InputError

__all__ = ["REPORT_NAME", "BuildReport", "read_report", "write_report"]

REPORT_NAME = "report.json"


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
    try:
        values: Any = json.loads(path.read_text())
    except OSError:
        raise InputError(f"{path}: no such report; 'reverb-fpga build --board NAME -o {directory}' makes one") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    names = {field.name for field in dataclasses.fields(BuildReport)}
    if not isinstance(values, dict) or set(values) != names:
        raise InputError(f"{path}: not a build report of this version")
    return BuildReport(**values)
