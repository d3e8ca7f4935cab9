"""Boards that users describe themselves: a TOML file with pins, or a Python file with a platform."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

from ..config import preset
from ..errors import InputError
from .table import BLOCK_RAMS, BOARDS, Board, Flow, LinkKind, Pins, board

__all__ = ["BOARD_HELP", "SUFFIXES", "find_board"]

SUFFIXES = (".toml", ".py")
BOARD_HELP = f"A file that describes a board of your own, or one of: {', '.join(BOARDS)}."
_MAX_BYTES = 1 << 20
_PACKAGES = ("BG256", "MG285", "BG381", "BG554", "BG756")
_SPEEDS = ("6", "7", "8")
_BALL = re.compile(r"[A-Z]{1,2}[0-9]{1,2}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_MHZ = (1.0, 400.0)
_REQUIRED = {
    "name": str, "device": str, "package": str, "speed": str, "config": str, "clock_pin": str, "clock_mhz": float,
    "uart_rx": str, "uart_tx": str,
}  # fmt: skip
_OPTIONAL = {
    "overlay_mhz": float, "leds": list, "leds_inverted": bool, "io_standard": str, "loader": str, "wiring": str,
}  # fmt: skip


def find_board(name: str) -> Board:
    """A board by name, or by a file that describes it.

    Parameters
    ----------
    name : str
        Of :data:`~reverb_fpga.hw.boards.table.BOARDS`, or a path that ends in .toml or .py. A Python file is run, and
        defines ``BOARD``, a :class:`~reverb_fpga.hw.boards.table.Board`.

    Raises
    ------
    InputError
        If there is no such board, or the file does not describe one.
    """
    if not name.endswith(SUFFIXES):
        return board(name)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    found = _from_toml(path) if path.suffix == ".toml" else _from_python(path)
    preset(found.config)
    return found


def _from_python(path: Path) -> Board:
    try:
        found = runpy.run_path(str(path)).get("BOARD")
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise InputError(f"{path}: fails with {type(error).__name__}: {error}") from None
    if not isinstance(found, Board):
        raise InputError(f"{path}: defines no BOARD of type reverb_fpga.hw.boards.table.Board")
    return found


def _from_toml(path: Path) -> Board:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES} bytes, which no board is")
        entries = tomllib.loads(text.decode())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no TOML ({error})") from None
    try:
        return _board(_checked(entries))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _checked(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries with the types they should have; numbers as float."""
    kinds = _REQUIRED | _OPTIONAL
    if missing := [key for key in _REQUIRED if key not in entries]:
        raise InputError(f"lacks {', '.join(missing)}")
    if unknown := [key for key in entries if key not in kinds]:
        raise InputError(f"unknown: {', '.join(unknown)}; known: {', '.join(kinds)}")
    for key, value in entries.items():
        if kinds[key] is float and type(value) is int:
            entries[key] = float(value)
        elif type(value) is not kinds[key]:
            raise InputError(f"{key} = {value!r} is no {kinds[key].__name__}")
    return entries


def _board(entries: dict[str, Any]) -> Board:
    _one_of("device", entries["device"], BLOCK_RAMS)
    _one_of("package", entries["package"], _PACKAGES)
    _one_of("speed", entries["speed"], _SPEEDS)
    leds = entries.get("leds", [])
    for ball in (entries["clock_pin"], entries["uart_rx"], entries["uart_tx"], *leds):
        _matches("ball", ball, _BALL)
    _matches("name", entries["name"], _NAME)
    clock = entries["clock_mhz"]
    for mhz in (clock, overlay := entries.get("overlay_mhz", clock)):
        if not _MHZ[0] <= mhz <= _MHZ[1]:
            raise InputError(f"a clock of {mhz:g} MHz is not in {_MHZ[0]:g}..{_MHZ[1]:g}")
    device = entries["device"]
    return Board(
        name=entries["name"],
        config=entries["config"],
        platform=Pins(
            device=device,
            package=entries["package"],
            speed=entries["speed"],
            clock=entries["clock_pin"],
            rx=entries["uart_rx"],
            tx=entries["uart_tx"],
            leds=tuple(leds),
            leds_inverted=entries.get("leds_inverted", False),
            io_standard=entries.get("io_standard", "LVCMOS33"),
        ),
        device=f"Lattice {device}-{entries['speed']}{entries['package']}",
        flow=Flow.TRELLIS,
        input_mhz=clock,
        clock_mhz=overlay,
        bram=BLOCK_RAMS[device],
        links=(LinkKind.UART,),
        loader=entries.get("loader"),
        wiring=entries.get("wiring", ""),
    )


def _one_of(what: str, value: str, known: Any) -> None:
    if value not in known:
        raise InputError(f"{what} = {value!r} is none of: {', '.join(known)}")


def _matches(what: str, value: Any, pattern: re.Pattern[str]) -> None:
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        raise InputError(f"{what} {value!r} is none, as in {'P3' if what == 'ball' else 'my-board'}")
