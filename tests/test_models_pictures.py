"""The one reader of pictures: every ordinary form of a picture, every way in which a file can be none."""

from __future__ import annotations

import inspect
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from reverb_fpga.host import images
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models import pictures
from reverb_fpga.models.data import load_split
from reverb_fpga.models.pictures import cropped, find_pictures, fitted, picture_shape, read_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def _saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff", "a.webp", "a.gif"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_formats_without_loss(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    if name == "a.gif" and pixels is COLOUR:
        image = image.quantize(16)
    read = read_image(_saved(tmp_path / name, image, **({"lossless": True} if name == "a.webp" else {})))
    expected = np.asarray(image.convert("RGB") if image.mode == "P" else image).reshape(20, 30, -1)
    if name == "a.webp" and pixels is GREY:  # WebP knows colour only
        expected = np.repeat(expected, 3, axis=-1)
    assert np.array_equal(read, expected)
    assert picture_shape(tmp_path / name) == (20, 30)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (40, 200)]
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        frames[0].save(
            tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if "w" in name else {})
        )
        assert np.unique(read_image(tmp_path / name)).tolist() == [40]


def test_what_becomes_of_a_picture(tmp_path: Path) -> None:
    """One grey figure in the forms in which people have it gives the same pixels."""
    forms = {
        "16 bits": Image.fromarray(GREY.astype(np.uint16) * 257),
        "palette": Image.fromarray(GREY).convert("P"),
        "alpha": Image.fromarray(np.dstack([np.full_like(GREY, 255), GREY]), "LA"),
        "opaque": Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA"),
        "real": Image.fromarray(GREY.astype(np.float32) / 255),
    }
    for form, image in forms.items():
        read = read_image(_saved(tmp_path / ("a.tif" if form == "real" else "a.png"), image))
        assert np.array_equal(read[..., 0], GREY), form
        assert read.shape == (20, 30, 1), form
    assert read_image(_saved(tmp_path / "p.png", Image.fromarray(COLOUR).quantize(9))).shape == (20, 30, 3)


def test_sixteen_bits_are_rounded(tmp_path: Path) -> None:
    samples = np.array([[0, 128, 129, 65535], [257, 32896, 385, 386]], np.uint16)
    for name in ("a.png", "a.tif"):
        read = read_image(_saved(tmp_path / name, Image.fromarray(samples)))
        assert read[..., 0].tolist() == [[0, 0, 1, 255], [1, 128, 1, 2]]
    Image.fromarray(np.array([[70000, 1]], np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"b\.tif: samples of 1\.\.70000"):
        read_image(tmp_path / "b.tif")


def test_transparency_hides_no_figure(tmp_path: Path) -> None:
    """A white figure is laid on black; a black one, of which black would show nothing, on white."""
    cover = np.zeros((20, 30), np.uint8)
    cover[5:9, 5:9] = 255
    for level, found in ((255, cover), (0, 255 - cover), (100, cover // 255 * 100)):
        rgba = np.dstack([np.full((20, 30, 3), level, np.uint8), cover])
        read = read_image(_saved(tmp_path / "a.png", Image.fromarray(rgba)))
        assert read.shape == (20, 30, 3)
        assert np.array_equal(read, np.repeat(found[..., None], 3, axis=-1))
    assert not read_image(_saved(tmp_path / "a.png", Image.new("RGBA", (4, 4), (9, 9, 9, 0)))).any()
    assert not read_image(_saved(tmp_path / "a.png", Image.new("RGBA", (4, 4), (0, 0, 0, 255)))).any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "a.webp"])
def test_every_orientation(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _saved(tmp_path / name, Image.fromarray(COLOUR), exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(tmp_path / name), expected)
    assert picture_shape(tmp_path / name) == expected.shape[:2]


def test_damaged_notes_do_not_damage_the_picture(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"nonsense", b"Exif\0\0"):
        _saved(tmp_path / "a.jpg", Image.fromarray(GREY), exif=exif)
        assert read_image(tmp_path / "a.jpg").shape == (20, 30, 1)


def test_training_and_classify_read_the_same_pixels(tmp_path: Path) -> None:
    """Field report: they had two readers, and accuracy fell to chance."""
    exif = Image.Exif()
    exif[0x0112] = 6
    place = tmp_path / "test" / "a"
    place.mkdir(parents=True)
    _saved(place / "0.png", Image.fromarray(GREY.astype(np.uint16) * 16))
    _saved(place / "1.png", Image.fromarray(np.dstack([COLOUR, GREY])))
    _saved(place / "2.jpg", Image.fromarray(COLOUR), exif=exif)
    _saved(place / "3.png", Image.fromarray(COLOUR).quantize(5), transparency=0)
    _saved(place / "4.jpg", Image.fromarray(COLOUR).convert("CMYK"))
    np.save(place / "5.npy", COLOUR / 255)
    data = load_split("folder", tmp_path, "test", (12, 11, 3))
    assert len(data) == 6
    for index, path in enumerate(images.find_images([tmp_path])):
        assert np.array_equal(data.images[index], fitted(images.read_image(path), (12, 11, 3))), path.name


def test_a_postscript_program_is_never_run(tmp_path: Path) -> None:
    """Pillow would hand it to Ghostscript, whatever its file is called."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch) show\n%%EOF\n"
    for name in ("a.png", "a.eps"):
        (tmp_path / name).write_bytes(eps)
        with pytest.raises(InputError, match="not an image this program reads"):
            read_image(tmp_path / name)


def _png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def test_sizes_are_bounded(tmp_path: Path) -> None:
    for width, height in ((8001, 8000), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)):
        (tmp_path / "a.png").write_bytes(_png_of(width, height))
        with pytest.raises(InputError, match=r"a\.png"):
            read_image(tmp_path / "a.png")
    for shape in ((8001, 8000), (1, 64_000_001, 1), (3, 2**31, 2**31)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
            os.truncate(file.fileno(), 400 << 20)
        with pytest.raises(InputError, match="is more than 64,000,000"):
            read_image(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.png", 1 << 30)
    with pytest.raises(InputError, match="at most"):
        read_image(tmp_path / "a.png")


def test_npy_in_any_order_of_memory(tmp_path: Path) -> None:
    for order in ("C", "F"):
        for array in (GREY, COLOUR, COLOUR.transpose(2, 0, 1), GREY.astype(">i4"), (COLOUR / 255).astype("<f2")):
            np.save(tmp_path / "a.npy", np.asarray(array, order=order))
            expected = COLOUR if array.ndim == 3 else GREY[..., None]
            assert np.abs(read_image(tmp_path / "a.npy").astype(int) - expected).max() <= (array.dtype == np.float16)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    for name in ("pipe.png", "pipe.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match=f"{name}: cannot be read .a FIFO"):
            read_image(tmp_path / name)
    for path, kind in ((tmp_path, "a folder"), (Path("/dev/zero"), "a device"), (tmp_path / "no\0.png", "null")):
        with pytest.raises(InputError, match=kind):
            read_image(path)


def test_folders_nested_deeper_than_calls(tmp_path: Path) -> None:
    place = tmp_path.joinpath(*"d" * 300)
    place.mkdir(parents=True)
    (place / "a.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        found = find_pictures(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == [place / "a.png"]


def test_a_block_is_as_good_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", COLOUR / 255)
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    whole = [read_image(tmp_path / name) for name in ("a.npy", "a.png")]
    monkeypatch.setattr(pictures, "_BLOCK", 7)
    assert all(
        np.array_equal(read_image(tmp_path / name), a) for name, a in zip(("a.npy", "a.png"), whole, strict=True)
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")
def test_large_files_of_strangers_stay_within_memory(tmp_path: Path) -> None:
    """Each of them took gigabytes before it was refused."""
    with (tmp_path / "sparse.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (9000, 7000, 3)})
        os.truncate(file.fileno(), 760 << 20)
    for name in ("x.safetensors", "test_batch.bin", "test_batch"):
        (tmp_path / name).write_bytes(struct.pack("<Q", 2) + b"{}")
        os.truncate(tmp_path / name, 3 << 30)
    code = """
        import resource, sys
        from pathlib import Path
        from reverb_fpga.hw.errors import InputError
        from reverb_fpga.models.checkpoint import read_checkpoint
        from reverb_fpga.models.data import load_split
        from reverb_fpga.models.pictures import read_image
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
        root = Path(sys.argv[1])
        for read in (
            lambda: read_image(root / "sparse.npy"),
            lambda: read_checkpoint(root / "x.safetensors"),
            lambda: load_split("cifar10", root, "test"),
        ):
            try:
                read()
            except InputError as error:
                assert "at most" in str(error), error
            else:
                raise SystemExit("accepted")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=120)


def test_the_middle_of_a_picture_is_cut_out_unstretched() -> None:
    """A grid of known places: after the crop the middle seven eighths of the shorter side remain, in the same scale."""
    rows, columns = np.mgrid[:128, :256].astype(np.uint8)
    picture = np.stack([rows, columns, rows], axis=-1)
    found = cropped(picture, (56, 56, 3)).astype(float)
    assert found[:, :, 0].mean() == pytest.approx(63.5, abs=0.6)
    assert found[:, :, 1].mean() == pytest.approx(127.5, abs=0.6)
    step = 128 * 7 / 8 / 56
    assert np.diff(found[:, 28, 0]).mean() == pytest.approx(step, abs=0.05)
    assert np.diff(found[28, :, 1]).mean() == pytest.approx(step, abs=0.05)
    thin = np.full((1, 60_000, 1), 7, np.uint8)  # as a whole it would become 256 x 15 million
    assert np.array_equal(cropped(thin, (224, 224, 3)), np.full((224, 224, 3), 7))


def test_imagenet_is_train_and_val(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for name in ("n01", "n02"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                grey = Image.new("L", (40, 60), 100) if index else Image.new("RGB", (300, 200), (9, 8, 7))
                grey.save(folder / f"{index}.png")
    train, test = (load_split("imagenet", tmp_path, split) for split in ("train", "test"))
    assert train.images.shape == (4, 224, 224, 3)
    assert test.images.shape == (2, 224, 224, 3)
    assert train.classes == ("n01", "n02")
    assert load_split("imagenet", tmp_path, "test", (64, 64, None)).images.shape == (2, 64, 64, 3)
