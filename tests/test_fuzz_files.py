"""Damaged files at every boundary to a library or a stranger: each is read, or refused with one line; nothing else.

The same mutations, few in the fast suite and more than 10^5 in the slow one; seeds are fixed.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.models import pictures
from reverb_fpga.models.checkpoint import read_checkpoint, save_checkpoint
from reverb_fpga.models.data import load_split
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.pictures import picture_shape, read_image
from reverb_fpga.models.zoo import DatasetSpec, Options, build

pytestmark = pytest.mark.filterwarnings("error")  # a warning of a library would be a second line
COUNTS = pytest.mark.parametrize("count", [120, pytest.param(6_000, marks=pytest.mark.slow)], ids=["few", "many"])
TELLING = [
    bytes(4),
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\0\x01",
    b".",
]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 16), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four changes: bits, bytes, numbers that are extreme, pieces lost, doubled or moved."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # headers matter more than the samples behind them
        place = rng.randrange(max(1, min(len(result), rng.choice((16, 64, 256, len(data) + 1)))))
        other, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 40))
        kind = rng.randrange(7)
        if kind == 0 and result:
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and result:
            result[place] = rng.randrange(256)
        elif kind == 2:
            value = rng.choice(TELLING)
            result[place : place + len(value)] = value
        elif kind == 3:
            del result[place : place + length]
        elif kind == 4:
            result[place:place] = data[other : other + length]
        elif kind == 5:
            result[place : place + length] = data[other : other + length]
        else:
            del result[rng.randrange(len(result) + 1) :]
    return bytes(result)


def attack(path: Path, whole: bytes, count: int, read: Callable[[], None]) -> None:
    """Let `read` meet `count` mutations of `whole` at `path`; some must be refused, and `whole` itself must be read."""
    rng = random.Random(len(whole))
    path.write_bytes(whole)
    read()
    refused = 0
    with path.open("r+b", buffering=0) as file:  # one file for all: making files takes longer than reading them
        for _ in range(count):
            file.seek(0)
            file.write(mutated(whole, rng))
            file.truncate()
            try:
                read()
            except InputError as error:
                refused += 1
                message = str(error)
                assert message.isprintable(), message
                assert len(message) < 1000, message
    assert refused > count // 20


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0x9003] = "2025:01:01 00:00:00"
    return exif


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


PICTURES = {
    "grey.png": _encoded(Image.fromarray(GREY), "PNG"),
    "alpha.png": _encoded(Image.fromarray(np.dstack([COLOUR, GREY])), "PNG", exif=_exif()),
    "deep.png": _encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "palette.png": _encoded(Image.fromarray(COLOUR).quantize(7), "PNG", transparency=2),
    "photo.jpg": _encoded(Image.fromarray(COLOUR), "JPEG", exif=_exif()),
    "a.bmp": _encoded(Image.fromarray(COLOUR), "BMP"),
    "a.webp": _encoded(Image.fromarray(COLOUR), "WEBP", lossless=True, exif=_exif()),
    "a.tif": _encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw", exif=_exif()),
    "real.tif": _encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "a.gif": _encoded(
        Image.fromarray(COLOUR).quantize(9), "GIF", save_all=True, append_images=[Image.new("P", (16, 12))]
    ),
    "bytes.npy": _npy(COLOUR),
    "reals.npy": _npy(COLOUR / 255),
}


@COUNTS
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, count: int
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1 << 20)  # the mutations that are within bounds take less time
    path = tmp_path / name

    def read() -> None:
        shape: tuple[int, int] | None = None
        with suppress(InputError):
            shape = picture_shape(path)
        pixels = read_image(path)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[-1] in (1, 3)
        assert 0 < pixels.shape[0] * pixels.shape[1] <= 1 << 20
        assert shape is not None

    attack(path, PICTURES[name], count, read)
    assert capfd.readouterr() == ("", "")  # nor does a decoder in C complain by itself


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@COUNTS
@pytest.mark.parametrize("packed", [False, True], ids=["idx", "gzip"])
def test_idx(tmp_path: Path, packed: bool, count: int) -> None:
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(_idx(np.arange(2, dtype=np.uint8)))
    whole = _idx(RNG.integers(0, 256, (2, 5, 6), dtype=np.uint8))

    def read() -> None:
        data = load_split("mnist", tmp_path, "test")
        assert len(data.images) == len(data.labels) == 2

    attack(tmp_path / "t10k-images-idx3-ubyte", gzip.compress(whole) if packed else whole, count, read)


@COUNTS
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_batches(tmp_path: Path, protocol: int, count: int) -> None:
    data = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
    batch = {b"batch_label": b"testing", b"labels": [3, 4], b"data": data, b"filenames": [b"a.png", b"b.png"]}
    text = pickle.dumps(batch, protocol=protocol)

    def read() -> None:
        found = load_split("cifar10", tmp_path, "test")
        assert found.images.shape == (2, 32, 32, 3)
        assert set(found.labels.tolist()) <= set(range(10))

    attack(tmp_path / "test_batch", text, count, read)


@COUNTS
def test_instructions_of_a_pickle(tmp_path: Path, count: int) -> None:
    """Programs for the pickle machine, made of instructions that are let through and of some that are not."""
    pieces = [
        b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n",
        b"cos\nsystem\n", b"(", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"}", b"]", b"s", b"u", b"a", b"e", b"q\0",
        b"h\0", b"K\x03", b"U\x02u1", b"U\x01b", b"C\x04data", b"C\x06labels", b"N", b"\x89", b"0",
        b"X\x06\0\0\0latin1",
        b"J\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"\x8a\x08\0\0\0\0\0\0\0\x80", b"\x93", b"\x81",
        b"Q", b"P1\n", b"\x97",
    ]  # fmt: skip
    rng = random.Random(1)

    def read() -> None:
        with pytest.raises(InputError):
            load_split("cifar10", tmp_path, "test")

    with (tmp_path / "test_batch").open("wb", buffering=0) as file:
        for _ in range(count):
            file.seek(0)
            file.write(b"\x80\x02" + b"".join(rng.choices(pieces, k=rng.randint(1, 30))) + b".")
            file.truncate()
            read()


@COUNTS
def test_checkpoints(tmp_path: Path, count: int) -> None:
    data = DatasetSpec("toy", InputSpec(1, 28, 28, (73,), (90.0,)), tuple("abc"))
    path = save_checkpoint(
        build("scnn5", data, Options(act_bits=8, width=0.02)), tmp_path / "a.safetensors", {"seed": 1}
    )
    whole = path.read_bytes()

    def read() -> None:
        checkpoint = read_checkpoint(path)
        assert all(np.isfinite(tensor).all() for tensor in checkpoint.tensors.values())
        assert {name: t.shape for name, t in checkpoint.tensors.items()} == checkpoint.spec.tensor_shapes()

    attack(path, whole, count, read)


@COUNTS
def test_names(count: int) -> None:
    rng = random.Random(2)
    for _ in range(count):
        raw = bytes(rng.choices(range(1, 256), k=rng.randint(1, 40)))
        for name in (os.fsdecode(raw), raw.decode("utf-16", "surrogatepass" if len(raw) % 2 == 0 else "replace")):
            shown = printable(name)
            assert shown.isprintable()
            shown.encode("utf-8")
            assert shown == printable(shown)
            assert str(InputError(f"{name}: wrong")) == f"{shown}: wrong"
