"""Files: only regular ones are read or replaced, and a write leaves all or nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.models import files
from reverb_fpga.models.files import FolderLock, check_output, read_regular, write_whole


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    cases = (("link", "a symbolic link"), ("dangling", "a symbolic link"), ("folder", "a folder"), ("pipe", "a FIFO"))
    for name, kind in cases:
        before = os.lstat(tmp_path / name)
        for attempt in (lambda path: write_whole(path, b"new"), check_output):
            with pytest.raises(InputError, match=f"{name}: cannot be replaced .{kind}"):
                attempt(tmp_path / name)
        assert os.lstat(tmp_path / name).st_ino == before.st_ino
    for path, complaint in ((Path("."), "a folder"), (Path("/dev/null"), "a device"), (tmp_path / "no/a", "no folder")):
        with pytest.raises(InputError, match=complaint):
            write_whole(path, b"new")
    assert target.read_bytes() == b"kept"
    assert {entry.name for entry in tmp_path.iterdir()} == {"kept", "link", "dangling", "folder", "pipe"}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ("n" * 255)  # as long as a name can be
    write_whole(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"123")
    assert read_regular(path, 3) == b"123"
    with pytest.raises(InputError, match="3 bytes; of such a file at most 2 are read"):
        read_regular(path, 2)
    with pytest.raises(InputError, match="No such file"):
        read_regular(tmp_path / "none", 1)


def test_a_folder_is_locked_until_it_is_released(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(InputError, match="another run"):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    second = FolderLock(tmp_path)
    del second
    FolderLock(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.png", "caf\\xe9.png"),
        ("图片 ü.png".encode(), "图片 ü.png"),
        ("\u202egnp.png".encode(), "\\u202egnp.png"),
        (b"a\nb\x1b[31m\x07", "a\\nb\\x1b[31m\\x07"),
        (b"[red]x[", "[red]x["),
        ("\x9b2J\u2028".encode(), "\\x9b2J\\u2028"),
    ],
)
def test_names_are_harmless_to_a_terminal(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown
    assert printable(shown) == shown
    shown.encode("utf-8")
