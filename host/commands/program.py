"""``reverb-fpga program``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click

from reverb_fpga.hw.boards.table import BOARDS, Board, board
from reverb_fpga.hw.errors import DeviceError, EnvironmentMissing, InputError

__all__ = ["command"]

_LOADER = "openFPGALoader"
_EXAMPLES = """\b
Examples:
  reverb-fpga program --board ulx3s-85f build/top.bit
  reverb-fpga program --board ulx3s-85f build/top.bit --flash     kept after power-off
"""


@click.command(name="program", epilog=_EXAMPLES)
@click.argument("bitstream", type=click.Path(path_type=Path), metavar="FILE.bit")
@click.option("--board", "board_name", required=True, metavar="NAME", help=f"One of: {', '.join(BOARDS)}.")
@click.option("--flash", is_flag=True, help="Write the configuration flash instead of the FPGA itself.")
def command(bitstream: Path, board_name: str, flash: bool) -> None:
    """Load a bitstream into a board over USB with openFPGALoader."""
    target = board(board_name)
    if not bitstream.is_file():
        raise InputError(
            f"{bitstream}: no such file; 'reverb-fpga build --board {target.name} -o DIR' makes DIR/top.bit"
        )
    load(target, bitstream, flash=flash)


def load(target: Board, bitstream: Path, *, flash: bool) -> None:
    """Run openFPGALoader.

    Raises
    ------
    EnvironmentMissing
        If it is not installed.
    DeviceError
        If it fails: no board, no permission. Its own messages have gone to standard error.
    """
    tool = shutil.which(_LOADER)
    if tool is None:
        raise EnvironmentMissing(
            f"{_LOADER} is not installed; install it from your system's packages (apt install openfpgaloader) "
            "or see https://trabucayre.github.io/openFPGALoader"
        )
    if target.loader is None:
        raise InputError(f"{target.name}: {_LOADER} does not know this board")
    arguments = [tool, "--board", target.loader, "--write-flash" if flash else "--write-sram", str(bitstream)]
    code = subprocess.run(arguments, stdout=2, check=False).returncode
    if code:
        raise DeviceError(f"{_LOADER} failed with exit code {code}; is the {target.name} connected and accessible?")
    click.echo(f"{bitstream} loaded into {target.name}")
