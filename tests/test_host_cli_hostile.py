"""Files from strangers through the command: nothing in them is executed, and each is refused with one line."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from reverb_fpga.host import cli


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)


def _torch_archive(payload: bytes) -> bytes:
    """What torch.save writes: a zip with a pickle inside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _header(content: object) -> bytes:
    """A safetensors file with that header and no tensors."""
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("reverb-fpga: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("name", ["evil.pt", "evil.pth", "evil.safetensors", "evil.pkl"])
@pytest.mark.parametrize("wrap", [lambda payload: payload, _torch_archive], ids=["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, wrap: object
) -> None:
    assert callable(wrap)
    mark = tmp_path / "mark"
    evil = tmp_path / name
    evil.write_bytes(wrap(pickle.dumps(Bomb(mark))))
    output = tmp_path / "out.rvb"
    assert name in _refused(capsys, "compile", evil, "-o", output)
    assert name in _refused(capsys, "classify", "--model", evil)
    assert not mark.exists()
    assert not output.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        _header([]),
        _header({"__metadata__": {"a": 1}}),
        _header({"__metadata__": {"network": "{}"}}),
        _header({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
        _header({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
        b"[" * 100_000,
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_damaged_checkpoints(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    assert "bad.safetensors" in _refused(capsys, "compile", bad, "-o", tmp_path / "out.rvb")


def test_missing_checkpoint_and_unwritable_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fashion_rvb: Path
) -> None:
    assert "none.safetensors" in _refused(capsys, "compile", tmp_path / "none.safetensors", "-o", tmp_path / "out.rvb")
    assert "random.rvb" in _refused(capsys, "compile", fashion_rvb, "-o", tmp_path / "out.rvb")


def test_a_zip_that_unpacks_to_gigabytes(capsys: pytest.CaptureFixture[str], tmp_path: Path, fashion_rvb: Path) -> None:
    bomb = tmp_path / "bomb.rvb"
    with zipfile.ZipFile(fashion_rvb) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            content = bytes(30_000_000) if info.filename == "weight.bin" else source.read(info)
            target.writestr(info.filename, content)
    assert "bomb.rvb" in _refused(capsys, "classify", "--model", bomb)
