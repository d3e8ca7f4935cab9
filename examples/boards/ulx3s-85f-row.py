"""A ULX3S-85F in row mode: `reverb-fpga build --board examples/boards/ulx3s-85f-row.py --tools native -o out/row`.

Three times the additions of `ulx3s-85f`. Not placed and routed yet (docs/decisions/0011-row-mode.md).
"""

import dataclasses

from reverb_fpga.hw.boards.table import board

BOARD = dataclasses.replace(board("ulx3s-85f"), name="ulx3s-85f-row", config="ulx3s-85f-row")
