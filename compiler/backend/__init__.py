"""Back end: tiling, widths, schedule, allocation and emission of a quantised network."""

from reverb_fpga.compiler.backend.lower import lower
from reverb_fpga.compiler.backend.strips import Hints

__all__ = ["Hints", "lower"]
