"""Which device a bitstream is for: from its own header, before a loader is started."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from .table import BOARDS, Board

__all__ = ["boards_of", "check_bitstream", "device_named"]

_HEAD_BYTES = 1 << 16
_ECP5_PREAMBLE = b"\xff\xff\xbd\xb3"
_ECP5_VERIFY_ID = b"\xe2\x00\x00\x00"
_ECP5_COMMANDS = 64  # bytes after the preamble among which VERIFY_ID is
_XILINX_HEAD = bytes.fromhex("0009 0ff00ff00ff00ff0 00 0001 61")
_DEVICES = {
    0x21111043: "LFE5U-12F",
    0x41111043: "LFE5U-25F",
    0x41112043: "LFE5U-45F",
    0x41113043: "LFE5U-85F",
    0x01111043: "LFE5UM-25F",
    0x01112043: "LFE5UM-45F",
    0x01113043: "LFE5UM-85F",
    0x81111043: "LFE5UM5G-25F",
    0x81112043: "LFE5UM5G-45F",
    0x81113043: "LFE5UM5G-85F",
    0x0362D093: "XC7A35T",
    0x03631093: "XC7A100T",
}
_REVISION = 0xF0000000  # of AMD's codes; ECP5 has the device in these bits


def device_named(idcode: int) -> str:
    """Name of a device by the code that it tells over JTAG."""
    return _DEVICES.get(idcode) or _DEVICES.get(idcode & ~_REVISION) or f"an unknown device ({idcode:#010x})"


def boards_of(device: str) -> str:
    """Boards with this device, for a message; empty if this project knows none."""
    return ", ".join(board.name for board in BOARDS.values() if _has(board, device))


def check_bitstream(path: Path, board: Board) -> None:
    """Raise InputError unless ``path`` is a bitstream for the device of ``board``."""
    make = f"'reverb-fpga build --board {board.name} -o DIR' makes DIR/top.bit"
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}; {make}")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    device = _device(head)
    if device is None:
        what = "a compiled program, which 'classify --model' takes" if path.suffix == ".rvb" else "no bitstream"
        raise InputError(f"{path}: is {what}; {make}")
    if not _has(board, device):
        others = boards_of(device)
        meant = f" ({others})" if others else ""
        raise InputError(
            f"{path}: a bitstream for {device}{meant}, but {board.name} has {board.device}; give the right --board, or "
            f"build one: {make}"
        )


def _has(board: Board, device: str) -> bool:
    return re.search(rf"\b{re.escape(device)}\b", board.device) is not None


def _device(head: bytes) -> str | None:
    if head.startswith(_XILINX_HEAD):
        return _xilinx(head[len(_XILINX_HEAD) :])
    start = head.find(_ECP5_PREAMBLE)
    if start < 0:
        return None
    commands = head[start : start + _ECP5_COMMANDS]
    where = commands.find(_ECP5_VERIFY_ID)
    code = commands[where + 4 : where + 8]
    return device_named(int.from_bytes(code, "big")) if where >= 0 and len(code) == 4 else None


def _xilinx(fields: bytes) -> str | None:
    """``XC7A35T`` of the header's fields: a name, then ``b`` and a part such as ``7a35ticsg324``."""
    name = int.from_bytes(fields[:2], "big")
    part = fields[2 + name :]
    if part[:1] != b"b":
        return None
    text = part[3 : 3 + int.from_bytes(part[1:3], "big")].decode("ascii", "replace")
    found = re.match(r"(7[a-z]\d+t)", text)
    return f"XC{found[1].upper()}" if found else None
