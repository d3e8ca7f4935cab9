"""``program``: bitstreams are recognised before a loader runs; what the loader says is told in names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reverb_fpga.host import cli
from reverb_fpga.hw.boards.bitstream import check_bitstream, device_named
from reverb_fpga.hw.boards.table import BOARDS, board
from reverb_fpga.hw.errors import InputError

CODES = {"LFE5U-12F": "21111043", "LFE5U-25F": "41111043", "LFE5U-85F": "41113043", "LFE5UM5G-45F": "81112043",
         "LFE5UM5G-85F": "81113043"}  # fmt: skip
ECP5 = {
    name: next(code for device, code in CODES.items() if f" {device}-" in entry.device)
    for name, entry in BOARDS.items()
    if "LFE5" in entry.device
}
LOADER = """#!/bin/sh
echo "called with: $*" >&2
echo "$*" > {log}
[ -z "{message}" ] && exit 0
echo "{message}" >&2
exit 1
"""


def ecp5(path: Path, idcode: str) -> Path:
    """The beginning of a bitstream as ecppack writes it."""
    head = b"\xff\x00Part: LFE5U-CABGA381\x00\xff\xff\xff\xbd\xb3" + bytes.fromhex(
        "ffffffff 3b000000 e2000000" + idcode
    )
    path.write_bytes(head + bytes(1000))
    return path


def xilinx(path: Path, part: bytes) -> Path:
    """The beginning of a bitstream as Vivado writes it."""
    head = bytes.fromhex("0009 0ff00ff00ff00ff0 00 0001 61 0004") + b"top\0b" + len(part).to_bytes(2, "big") + part
    path.write_bytes(head + b"c\0\x0b2026/01/01\0" + bytes(1000))
    return path


@pytest.fixture
def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loader that succeeds; returns where it notes what it was called with."""
    log = tmp_path / "called"
    write_loader(tmp_path, "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return log


def write_loader(folder: Path, message: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    tool = folder / "bin" / "openFPGALoader"
    tool.write_text(LOADER.format(log=folder / "called", message=message))
    tool.chmod(0o755)


def program(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["program", *arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("name", [name for name, entry in BOARDS.items() if entry.loader])
def test_the_right_bitstream_is_loaded(name: str, tmp_path: Path, loader: Path) -> None:
    bit = tmp_path / "-odd name.bit"
    if name in ECP5:
        ecp5(bit, ECP5[name])
    else:
        xilinx(bit, b"7a35ticsg324\0" if "35" in name else b"7a100tcsg324\0")
    assert program("--board", name, "--", str(bit)) == 0
    assert loader.read_text().split(" ", 2)[0] == "--board"
    assert str(bit) in loader.read_text()


def test_what_was_loaded_as_json(tmp_path: Path, loader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bit = ecp5(tmp_path / "top.bit", "41113043")
    assert program("--board", "ulx3s-85f", str(bit), "--flash", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"board": "ulx3s-85f", "bitstream": str(bit), "flash": True}
    assert "--write-flash" in loader.read_text()


def test_a_board_without_a_loader_says_what_to_do(
    tmp_path: Path, loader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--board", "icesugar-pro", str(ecp5(tmp_path / "a.bit", ECP5["icesugar-pro"]))) == 2
    assert "dropping it on the iCELink drive" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ulx3s-12f", "41113043", ["LFE5U-85F (ulx3s-85f, ulx3s-85f-row, ", "ulx3s-12f has Lattice LFE5U-12F"]),
        ("ulx3s-85f", "21111043", ["LFE5U-12F (ulx3s-12f)"]),
        ("ulx3s-25f", "41112043", ["LFE5U-45F, but"]),
        ("arty-a7-35t", "41113043", ["LFE5U-85F", "AMD XC7A35T"]),
        ("ulx3s-12f", "deadbeef", ["an unknown device (0xdeadbeef)"]),
    ],
)
def test_a_bitstream_of_another_device_is_named(name: str, content: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_bitstream(ecp5(tmp_path / "top.bit", content), board(name))
    for word in [*words, f"build --board {name}"]:
        assert word in str(caught.value)


def test_what_is_no_bitstream_reaches_no_loader(
    tmp_path: Path, loader: Path, capfd: pytest.CaptureFixture[str], fashion_rvb: Path
) -> None:
    cases = {"text": b"no bitstream at all\n", "empty": b"", "cut": ecp5(tmp_path / "x", "41113043").read_bytes()[:40]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "zeros").write_bytes(bytes(10_000))
    paths = [*(tmp_path / name for name in (*cases, "zeros", "none")), tmp_path, Path("/dev/zero"), fashion_rvb]
    for path in paths:
        assert program("--board", "ulx3s-12f", str(path)) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert str(path) in line
        assert "makes DIR/top.bit" in line
        assert ("classify --model" in line) == (path == fashion_rvb)
    assert not loader.exists()


def test_another_board_than_said_is_told_in_names(
    tmp_path: Path, loader: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    message = "mismatch between target and bitstream idcode: bitstream has 0x41113043, hardware 0x21111043"
    write_loader(tmp_path, message)
    assert program("--board", "ulx3s-85f", str(ecp5(tmp_path / "top.bit", "41113043"))) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == message
    assert "connected has LFE5U-12F, not the Lattice LFE5U-85F" in lines[-1]
    assert "build --board ulx3s-12f" in lines[-1]
    assert "0x" not in lines[-1]


def test_other_failures_of_the_loader(tmp_path: Path, loader: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_loader(tmp_path, "unable to open ftdi device: -3 (device not found)")
    assert program("--board", "ulx3s-85f", str(ecp5(tmp_path / "top.bit", "41113043"))) == 1
    assert "is the ulx3s-85f connected" in capfd.readouterr().err.splitlines()[-1]


def test_without_a_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bit = str(ecp5(tmp_path / "top.bit", "41113043"))
    assert program("--board", "ulx3s-85f", bit) == 3
    assert "openFPGALoader is not installed" in capfd.readouterr().err
    assert program("--board", "nonsense", bit) == 2
    assert "ulx3s-85f" in capfd.readouterr().err


def test_the_flash(tmp_path: Path, loader: Path) -> None:
    assert program("--board", "ulx3s-85f", str(ecp5(tmp_path / "top.bit", "41113043")), "--flash") == 0
    assert "--write-flash" in loader.read_text()


def test_revisions_of_a_device_have_its_name() -> None:
    assert device_named(0x1362D093) == "XC7A35T"
    assert device_named(0x41113043) == "LFE5U-85F"
