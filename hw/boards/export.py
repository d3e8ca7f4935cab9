"""Boards whose vendor tools do not run here: Verilog, constraints and script, ready for the vendor's machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amaranth.back import verilog

from .. import interrupts, processes
from ..errors import BuildError, InputError
from .table import Board
from .tools import find_toolchain, run_tool
from .wrapper import BoardTop, platform_for

__all__ = ["export_project"]


def export_project(board: Board, core: Any, clock_mhz: float, output: Path) -> list[Path]:
    """Write the project of a board to ``output``; the files written. Nothing is built.

    All or nothing: when it fails, ``output`` is as it was.

    Raises
    ------
    InputError
        If ``clock_mhz`` is not the board's crystal: exported projects run from it directly. If ``output`` cannot be
        written: no such folder, no space.
    BuildError
        If yosys fails.
    """
    find_toolchain()
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
    try:
        return _write(plan, output)
    except OSError as error:
        raise InputError(f"{output}: the project cannot be written ({error.strerror}); nothing was exported") from None


def _write(plan: Any, output: Path) -> list[Path]:
    """Write the files beside their places; only when all are whole, move them there."""
    with processes.scratch(".export-", output) as folder:
        plan.extract(str(folder))
        names = sorted(plan.files)
        with interrupts.held():
            for name in names:
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / name, output / name)
    return [output / name for name in names]


@contextmanager
def _yosys_for_amaranth() -> Iterator[None]:
    """Amaranth starts a yosys of its own to write Verilog; hand it one that runs and ends as our tools do."""
    before = verilog.find_yosys
    verilog.find_yosys = lambda _: _Yosys
    try:
        yield
    finally:
        verilog.find_yosys = before


class _Yosys:
    """What amaranth asks of a yosys."""

    @classmethod
    def run(cls, _: list[str], script: str, **options: object) -> str:
        """The Verilog that a script ends with. By a file: the standard output of WebAssembly tools can stop early."""
        with processes.scratch("reverb-fpga-") as folder:
            (folder / "top.ys").write_text(script.rstrip() + " top.v\n", encoding="utf-8")
            run_tool(
                find_toolchain(), "yosys", ["-q", "-l", "yosys.log", "top.ys"], "yosys.log", folder, lambda line: None
            )
            return (folder / "top.v").read_text(encoding="utf-8")
