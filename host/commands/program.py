"""``reverb-fpga program``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import click

from reverb_fpga.hw import processes
from reverb_fpga.hw.boards.bitstream import boards_of, check_bitstream, device_named
from reverb_fpga.hw.boards.own import BOARD_HELP, find_board
from reverb_fpga.hw.boards.table import Board
from reverb_fpga.hw.errors import DeviceError, EnvironmentMissing, InputError

__all__ = ["command"]

_LOADER = "openFPGALoader"
_PATIENCE = 5.0  # for the loader to leave the board in order when it is interrupted
_TAIL_BYTES = 1 << 16
_MISMATCH = re.compile(rb"hardware(?: has)?:? (0x[0-9a-fA-F]{1,8})")
_EXAMPLES = """\b
Examples:
  reverb-fpga program --board ulx3s-85f out/85f/top.bit
  reverb-fpga program --board ulx3s-85f out/85f/top.bit --flash     kept after power-off
"""


@click.command(name="program", epilog=_EXAMPLES)
@click.argument("bitstream", type=click.Path(path_type=Path), metavar="FILE.bit")
@click.option("--board", "board_name", required=True, metavar="NAME|FILE", help=BOARD_HELP)
@click.option("--flash", is_flag=True, help="Write the configuration flash instead of the FPGA itself.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else there.")
def command(bitstream: Path, board_name: str, flash: bool, as_json: bool) -> None:
    """Load a bitstream into a board over USB with openFPGALoader."""
    target = find_board(board_name)
    check_bitstream(bitstream, target)
    load(target, bitstream, flash=flash)
    if as_json:
        click.echo(json.dumps({"board": target.name, "bitstream": str(bitstream), "flash": flash}))
    else:
        click.echo(f"{bitstream} loaded into {target.name}")


def load(target: Board, bitstream: Path, *, flash: bool) -> None:
    """Run openFPGALoader.

    Raises
    ------
    EnvironmentMissing
        If it is not installed.
    DeviceError
        If it fails: no board, another board, no permission. Its own messages have gone to standard error.
    """
    tool = shutil.which(_LOADER)
    if tool is None:
        raise EnvironmentMissing(
            f"{_LOADER} is not installed; install it from your system's packages (apt install openfpgaloader) "
            "or see https://trabucayre.github.io/openFPGALoader"
        )
    if target.loader is None:
        raise InputError(
            f"{target.name}: {_LOADER} does not know this board{'; ' if target.wiring else ''}{target.wiring}"
        )
    # the whole path: a name that begins with a dash is no option
    file = str(bitstream if bitstream.is_absolute() else Path.cwd() / bitstream)
    code, said = _run([tool, "--board", target.loader, "--write-flash" if flash else "--write-sram", file])
    if code:
        raise DeviceError(_why(target, bitstream, code, said))


def _run(command: list[str]) -> tuple[int, bytes]:
    """Exit code, and the end of what the tool said; all of it goes to standard error while it runs."""
    said = b""
    with processes.running(command, patience=_PATIENCE, stdout=2, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while part := os.read(process.stderr.fileno(), 4096):
            click.echo(part, err=True, nl=False)
            said = (said + part)[-_TAIL_BYTES:]
        return process.wait(), said


def _why(target: Board, bitstream: Path, code: int, said: bytes) -> str:
    """What the loader's failure means."""
    if found := _MISMATCH.search(said):
        device = device_named(int(found[1], 16))
        boards = boards_of(device)
        build = f"; build for it: 'reverb-fpga build --board {boards} -o DIR'" if boards else ""
        return f"the board that is connected has {device}, not the {target.device} that {bitstream} is for{build}"
    return f"{_LOADER} failed with exit code {code}; is the {target.name} connected and accessible?"
