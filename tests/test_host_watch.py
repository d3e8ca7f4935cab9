"""``classify --watch``: images are classified as they appear."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from reverb_fpga.host import bundled, cli
from reverb_fpga.host.watch import Watch
from reverb_fpga.hw.errors import InputError


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["classify", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


def test_images_are_classified_as_they_appear(
    capsys: pytest.CaptureFixture[str], fashion_rvb: Path, tmp_path: Path
) -> None:
    sources = [image.path for image in bundled.bundled_images("fashion-mnist")[:3]]
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    shutil.copy(sources[0], inbox / "first.png")
    (inbox / "broken.png").write_bytes(b"no picture")
    (inbox / "notes.txt").write_text("no picture either")

    def later() -> None:
        time.sleep(1.0)
        shutil.copy(sources[1], inbox / "second.png")
        shutil.copy(sources[2], inbox / "third.png")

    thread = threading.Thread(target=later)
    thread.start()
    code, out, err = _run(capsys, "--model", fashion_rvb, "--watch", inbox, "--limit", 3, "--json")
    thread.join()
    assert code == 0
    assert "broken.png" in err
    found = [json.loads(line) for line in out.splitlines()]
    assert [Path(result["image"]).name for result in found] == ["first.png", "second.png", "third.png"]
    _, out, _ = _run(capsys, "--model", fashion_rvb, *sources, "--json")
    assert [result["logits"] for result in found] == [result["logits"] for result in json.loads(out)["results"]]


def test_a_file_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    path = tmp_path / "a.png"
    for size in range(4):  # somebody writes it
        path.write_bytes(b"x" * size)
        assert list(watch.appeared()) == []
        time.sleep(0.15)
    time.sleep(0.35)
    assert list(watch.appeared()) == [path]
    assert list(watch.appeared()) == []


def test_what_cannot_be_watched(capsys: pytest.CaptureFixture[str], fashion_rvb: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Watch(tmp_path / "none")
    code, _, err = _run(capsys, "x.png", "--model", fashion_rvb, "--watch", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
