"""Image files of any kind, brought to the model's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverb_fpga.compiler.program import InputTransform
from reverb_fpga.host import images
from reverb_fpga.hw.errors import InputError

GREY = InputTransform(1, 28, 28, (1.0,), (0.0,))
COLOUR = InputTransform(3, 32, 32, (1.0, 0.5, 2.0), (0.0, 10.0, -5.0))


def _save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_an_image_of_the_right_shape_is_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    read = images.read_image(_save(tmp_path / "a.png", pixels))
    assert np.array_equal(images.to_codes([read], GREY)[0, ..., 0], pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("transform", [GREY, COLOUR])
def test_every_png_mode_is_read(tmp_path: Path, mode: str, transform: InputTransform) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    read = images.read_image(_save(tmp_path / "a.png", pixels, mode))
    assert read.dtype == np.uint8
    assert read.shape[:2] == (50, 41)
    codes = images.to_codes([read], transform)
    assert codes.shape == (1, transform.height, transform.width, transform.channels)
    assert codes.dtype == np.uint8


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 200, dtype=np.uint8)
    pixels[..., 3] = 0
    assert not images.read_image(_save(tmp_path / "a.png", pixels)).any()


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535], [257, 32896]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png")[..., 0].tolist() == [[0, 255], [1, 128]]


def test_jpeg_of_any_size(tmp_path: Path) -> None:
    pixels = np.full((301, 17, 3), 77, dtype=np.uint8)
    codes = images.to_codes([images.read_image(_save(tmp_path / "a.JPG", pixels))], GREY)
    assert np.all(np.abs(codes.astype(int) - 77) <= 1)


def test_rotation_noted_by_the_camera_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert images.read_image(tmp_path / "a.jpg").shape == (20, 10, 3)


def test_codes_follow_the_formula() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = np.clip(np.floor(pixels * [1.0, 0.5, 2.0] + [0.0, 10.0, -5.0] + 0.5), 0, 255)
    assert np.array_equal(images.to_codes([pixels], COLOUR)[0], expected)


def test_invert() -> None:
    codes = images.to_codes([np.full((28, 28, 1), 5, dtype=np.uint8)], GREY, invert=True)
    assert np.all(codes == 250)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (1, 28, 28), (3, 9, 9), (9, 9, 3)])
def test_npy_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.full(shape, 9, dtype=np.int64))
    read = images.read_image(tmp_path / "a.npy")
    assert read.ndim == 3
    assert read.shape[-1] in (1, 3)
    assert np.all(read == 9)


def test_npy_floats_are_0_to_1(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0.0, 0.5], [0.25, 1.0]], dtype=np.float32))
    assert images.read_image(tmp_path / "a.npy")[..., 0].tolist() == [[0, 128], [64, 255]]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((2, 2, 2, 2)), "shape"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "shape"),
        (np.zeros((0, 4), dtype=np.uint8), "shape"),
        (np.full((4, 4), 256), "0..255"),
        (np.full((4, 4), -1), "0..255"),
        (np.full((4, 4), np.nan), "0..1"),
        (np.full((4, 4), 2.0), "0..1"),
        (np.full((4, 4), 1j), "complex"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([[{}, {}]], dtype=object), "plain NPY"),
    ],
)
def test_npy_that_is_no_image(tmp_path: Path, array: np.ndarray, complaint: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=complaint) as caught:
        images.read_image(tmp_path / "a.npy")
    assert "a.npy" in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy", "a.txt"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\x01\x00\xff\xff", b"\xff\xd8\xff"]
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        images.read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = _save(tmp_path / "a.png", pixels)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"a\.png"):
        images.read_image(path)


def test_directories_are_searched_in_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a.npy", "notes.txt", "b/._1.jpg", ".old/3.png", "@eaDir/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/again").symlink_to(tmp_path)
    found = [str(path.relative_to(tmp_path)) for path in images.find_images([tmp_path])]
    assert found == ["a.npy", "b/1.jpg", "b/2.PNG"]


def test_missing_paths_and_empty_directories(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        images.find_images([tmp_path / "none.png"])
    with pytest.raises(InputError, match="holds no images"):
        images.find_images([tmp_path])
