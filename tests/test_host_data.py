"""``data``: what is there, what is whole, what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write_brightness, write_idx

from reverb_fpga.host import cli
from reverb_fpga.host.commands import data  # before a test changes the table that its help is made of
from reverb_fpga.models import published
from reverb_fpga.models.data import load_split
from reverb_fpga.models.image_set import ImageSet


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def write_cifar(folder: Path, per_class: int = 1) -> None:
    """Binary batches, so many images of each class in every file."""
    folder.mkdir()
    records = np.zeros((10 * per_class, 3073), np.uint8)
    records[:, 0] = np.arange(10 * per_class) % 10
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        records.tofile(folder / f"{name}.bin")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a small MNIST and a small CIFAR-10 that count as the published ones."""
    (tmp_path / "mnist").mkdir()
    write_brightness(tmp_path / "mnist", 30, 20)
    write_cifar(tmp_path / "cifar-10-batches-bin")
    known = {
        "mnist": published.Published("", "", (30, 20), 10),
        "cifar10": published.Published("", "", (50, 10), 10),
    }
    for name, entry in known.items():
        monkeypatch.setitem(published.PUBLISHED, name, entry)
    for split in ("train", "test"):
        content = published._content(load_split("mnist", tmp_path, split))
        monkeypatch.setitem(published._CONTENT, ("mnist", split), content)
    return tmp_path


def test_whole_sets(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, small)
    assert (code, err) == (0, "")
    assert "ok: pixels and labels as published" in out
    assert "no checksums are published" in out
    assert f"not in {small}: fashion-mnist, cifar100" in out
    value: dict[str, Any] = json.loads(run(capsys, small, "--json")[1])
    found = {(s["dataset"], s["split"]): s["images"] for s in value["splits"] if s["good"]}
    assert found == {("mnist", "train"): 30, ("mnist", "test"): 20, ("cifar10", "train"): 50, ("cifar10", "test"): 10}


def test_a_pixel_that_differs_is_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small / "mnist" / "t10k-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    code, out, err = run(capsys, small)
    assert code == 2
    assert "WRONG: pixels or labels differ" in out
    assert "not as published: mnist test" in err


def test_what_is_damaged_or_incomplete_is_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small / "mnist" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    (small / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    code, out, err = run(capsys, small)
    assert code == 2
    assert "truncated or damaged" in out
    assert "WRONG: its files are not there" in out
    assert "mnist train, cifar10 test" in err


def test_counts_are_compared(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_idx(small / "mnist", "t10k", np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8))
    records = np.zeros((10, 3073), np.uint8)
    records.tofile(small / "cifar-10-batches-bin" / "test_batch.bin")
    code, out, _ = run(capsys, small)
    assert code == 2
    assert "20 images were published" in out
    assert "not the same number of images in every class" in out


def test_python_batches_have_published_sums(tmp_path: Path) -> None:
    """These are ten images: neither their number nor their sum is the published one."""
    images = ImageSet(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10), tuple("abcdefghij"))
    (tmp_path / "test_batch").write_bytes(b"not the published file")
    assert published._files("cifar10", tmp_path, "test") == (False, "test_batch has not the published MD5 sum")
    assert published.verdict("cifar10", tmp_path, "test", images) == (False, "10,000 images were published")


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path / "none")[0] == 2
    code, _, err = run(capsys, tmp_path)
    assert code == 2
    assert "holds none of fashion-mnist, mnist, cifar10, cifar100" in err


def test_the_help_tells_where_data_sets_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert data.PUBLISHED is published.PUBLISHED
    assert code == 0
    for known in published.PUBLISHED.values():
        assert known.source in out
        assert known.place in out
