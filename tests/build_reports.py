"""A report of a build as `build` writes it, with made-up figures."""

from __future__ import annotations

from typing import Any

from reverb_fpga.hw.boards.report import BuildReport

__all__ = ["build_report"]


def build_report(**fields: Any) -> BuildReport:
    """With these fields, the others as follows."""
    known: dict[str, Any] = {
        "board": "ulx3s-85f", "config": "ulx3s-85f", "config_digest": "0", "additions_per_cycle": 512, "lut4": 1000,
        "ff": 700, "bram": 12, "dsp": 4, "available": {"lut4": 83640, "ff": 83640, "bram": 208, "dsp": 156},
        "clock_mhz": 50.0, "fmax_mhz": 60.0, "baud": 2_000_000, "divisor": 25, "seconds": 100.0, "seed": 1,
        "bram_by_use": {"weights": 8, "link": 4}, "tools": {"yosys": "1"}, "design_digest": "0",
        "critical_path": ["0.52 ns source core.q", "3.10 ns net core.d"],
    }  # fmt: skip
    return BuildReport(**known | fields)
