"""Data set readers on tiny generated files, good and bad."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.data import load_split, statistics
from reverb_fpga.models.idx import KNOWN_LABELS
from reverb_fpga.models.image_set import ImageSet

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABELS = np.arange(7, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("t10k-images-idx3-ubyte", IMAGES), ("t10k-labels-idx1-ubyte", LABELS)):
        data = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", ""),
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_in_every_usual_place(tmp_path: Path, name: str, folder: str, packed: bool) -> None:
    write_idx(tmp_path / folder, packed)
    data = load_split(name, tmp_path, "test")
    assert np.array_equal(data.images[..., 0], IMAGES)
    assert data.labels.tolist() == list(range(7))
    assert data.labels.dtype == np.int64
    assert len(data.classes) == 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\x00\x00\x0d\x03" + data[4:],
        lambda data: data[:9],
        lambda data: b"",
        lambda data: gzip.compress(data)[:-20],
        lambda data: gzip.compress(data)[:30] + b"\xff" * 50,
    ],
)
def test_damaged_idx(tmp_path: Path, damage: object) -> None:
    write_idx(tmp_path, False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(damage(idx(IMAGES)))  # type: ignore[operator]
    with pytest.raises(InputError, match="t10k-images"):
        load_split("mnist", tmp_path, "test")


def test_idx_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    write_idx(tmp_path, False)
    images = tmp_path / "t10k-images-idx3-ubyte"
    for shape, complaint in (((5, 0, 0), "no pixels"), ((0, 28, 28), "holds no images"), ((2**31, 2, 1), "at most")):
        images.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, *shape))
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[: shape[0] if shape[0] < 9 else 1]))
        with pytest.raises(InputError, match=complaint):
            load_split("mnist", tmp_path, "test")
    bomb = struct.pack(">BBBB3I", 0, 0, 8, 3, 7, 28, 28) + bytes(100_000_000)
    images.write_bytes(gzip.compress(bomb, 1))
    with pytest.raises(InputError, match="holds more"):
        load_split("mnist", tmp_path, "test")
    os.truncate(images, 1 << 40)
    with pytest.raises(InputError, match="at most"):
        load_split("mnist", tmp_path, "test")
    images.unlink()
    os.mkfifo(images)
    with pytest.raises(InputError, match="a FIFO"):
        load_split("mnist", tmp_path, "test")


def test_labels_are_checked(tmp_path: Path) -> None:
    write_idx(tmp_path, False)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS + 7))
    with pytest.raises(InputError, match=r"outside 0\.\.9"):
        load_split("mnist", tmp_path, "test")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[:3]))
    with pytest.raises(InputError, match="7 images but 3 labels"):
        load_split("mnist", tmp_path, "test")


CIFAR = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)


@pytest.mark.parametrize("folder", ["", "cifar10", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    records = np.concatenate([np.arange(4, dtype=np.uint8)[:, None], CIFAR], axis=1)
    (tmp_path / folder / "test_batch.bin").write_bytes(records.tobytes())
    data = load_split("cifar10", tmp_path, "test")
    assert data.labels.tolist() == [0, 1, 2, 3]
    assert np.array_equal(data.images[2, 5, 9], CIFAR[2].reshape(3, 32, 32)[:, 5, 9])
    (tmp_path / folder / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(InputError, match="whole records of 3073"):
        load_split("cifar10", tmp_path, "test")


def test_cifar100_binary_takes_the_fine_label(tmp_path: Path) -> None:
    labels = np.array([[9, 80], [3, 99]], np.uint8)
    (tmp_path / "test.bin").write_bytes(np.concatenate([labels, CIFAR[:2]], axis=1).tobytes())
    assert load_split("cifar100", tmp_path, "test").labels.tolist() == [80, 99]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar_python_batches(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        batch = {b"batch_label": b"x", b"labels": [number] * 4, b"data": CIFAR, b"filenames": [b"a.png"] * 4}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch, protocol=protocol))
    data = load_split("cifar10", tmp_path, "train")
    assert data.images.shape == (20, 32, 32, 3)
    assert np.array_equal(data.images[4:8], CIFAR.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))
    assert data.labels.tolist() == [n for n in range(1, 6) for _ in range(4)]


def test_batches_as_python_2_wrote_them(tmp_path: Path) -> None:
    """The published files, instruction by instruction."""
    names = b"".join(b"U\x05%d.pngq%c" % (number, 19 + number) for number in range(4))
    batch = (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15testing batch 1 of 1!q\x03U\x06labels"
        b"q\x04]q\x05(K\x03K\x08K\x08K\x00e"
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09U\x01b\x87q\x0aRq\x0b"
        b"(K\x01K\x04M\x00\x0c\x86q\x0ccnumpy\ndtype\nq\x0dU\x02u1K\x00K\x01\x87q\x0eRq\x0f"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89T" + struct.pack("<I", CIFAR.size)
    ) + CIFAR.tobytes() + b"tq\x11bU\x09filenamesq\x12]q\x13(" + names + b"eu."  # fmt: skip
    (tmp_path / "test_batch").write_bytes(batch)
    data = load_split("cifar10", tmp_path, "test")
    assert data.labels.tolist() == [3, 8, 8, 0]
    assert np.array_equal(data.images, CIFAR.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch executed",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": _Bomb(), b"labels": [0]}),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": CIFAR.astype(float), b"labels": [0] * 4}),
        pickle.dumps({b"data": CIFAR, b"labels": [0, 1]}),
        pickle.dumps({b"data": CIFAR, b"labels": ["a"] * 4}),
        pickle.dumps({b"data": np.array([_Bomb()], dtype=object), b"labels": [0]}),
        pickle.dumps({b"data": CIFAR, b"labels": [0] * 4})[:-40],
        b"",
        b"cos\nsystem\n(S'touch executed'\ntR.",
        # an array of objects over bytes of the file, which numpy would follow as pointers
        b"cnumpy\ndtype\n(cnumpy\nndarray\n((K\x01tU\x01OC\x08ABCDEF\0\0tRtR.",
        b"(dC\x04datacnumpy\nndarray\n((K\x01tU\x01OC\x08ABCDEF\0\0tRs.",
        b"cnumpy\nndarray\n}S'shape'\nK\x00sb.",
        b"cnumpy\ndtype\n(U\x02u1tR(K\x03U\x01|NNNK\x00K\x00K\x00tb.",
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x00s.",  # hashing it would overflow the stack
        b"\x80\x02K\x00r\xff\xff\xff\x3f.",  # memory for a thousand million notes
        b"\x80\x02" + b"}" * 5_000_000 + b".",
        pickle.dumps({b"data": CIFAR, b"labels": [2**63] * 4}),
        pickle.dumps({b"data": CIFAR, b"labels": [-1] * 4}),
        b"not a pickle",
    ],
)
def test_hostile_pickles_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(InputError, match="test_batch"):
        load_split("cifar10", tmp_path, "test")
    assert not (tmp_path / "executed").exists()


def pictures(root: Path, split: str = "test", **classes: Image.Image | list[Image.Image]) -> Path:
    """A data set of people's own: folder `split` with the pictures of every class."""
    for name, given in classes.items():
        for number, image in enumerate(given if isinstance(given, list) else [given]):
            place = root / split / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)
    return root


def test_folder_of_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, cat=Image.new("RGB", (6, 4), (0, 20, 30)), dog=Image.new("RGB", (6, 4), (10, 20, 30)))
    data = load_split("folder", tmp_path, "test")
    assert data.classes == ("cat", "dog")
    assert data.images.shape == (2, 4, 6, 3)
    assert data.images[1, 0, 0].tolist() == [10, 20, 30]
    assert (data.notes, data.skipped) == ((), ())


def test_a_sample_has_images_of_every_class() -> None:
    """Class folders come in their order: the first so many pictures were those of one class."""
    labels = np.repeat(np.arange(4), (100, 50, 3, 47))
    data = ImageSet(np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1), labels, tuple("abcd"))
    some = data.sample(40)
    assert np.bincount(some.labels).tolist() in [[13, 12, 3, 12], [12, 13, 3, 12], [12, 12, 3, 13]]
    assert some.images.ravel().tolist() == sorted(set(some.images.ravel().tolist()))
    assert some.images.ravel()[:13].tolist() != list(range(13))
    assert np.array_equal(labels[some.images.ravel()], some.labels)
    assert np.array_equal(data.sample(40).images, some.images)
    assert data.sample(0) is data
    assert [len(data.sample(count)) for count in (1, 4, 200, 1000)] == [1, 4, 200, 200]
    assert np.bincount(data.sample(4).labels).tolist() == [1, 1, 1, 1]


def test_pictures_of_any_size_grey_and_colour_mixed(tmp_path: Path) -> None:
    pictures(
        tmp_path, cat=[Image.new("L", (6, 4), 7), Image.new("RGB", (50, 40), (1, 2, 3))], dog=Image.new("1", (9, 9))
    )
    data = load_split("folder", tmp_path, "test")
    assert data.images.shape == (3, 32, 32, 3)
    assert [image[0, 0].tolist() for image in data.images] == [[7, 7, 7], [1, 2, 3], [0, 0, 0]]
    assert "3 sizes" in data.notes[0]
    assert "2 grey pictures" in data.notes[1]
    shaped = load_split("folder", tmp_path, "test", (5, 7, 1))
    assert shaped.images.shape == (3, 5, 7, 1)


def test_a_folder_without_colour_stays_grey(tmp_path: Path) -> None:
    grey = Image.fromarray(IMAGES[0])
    pictures(tmp_path, cat=[grey, grey.convert("P")], dog=Image.fromarray(IMAGES[0].astype(np.uint16) * 257))
    data = load_split("folder", tmp_path, "test")
    assert all(np.array_equal(image[..., 0], IMAGES[0]) for image in data.images)
    assert data.images.shape == (3, 28, 28, 1)


def test_what_is_no_picture_of_a_class_is_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, **{"a/x": Image.new("L", (8, 8), 1), "b": Image.new("L", (8, 8), 2)})
    for hidden in (".ipynb_checkpoints", "@eaDir", "a/.hidden"):
        pictures(tmp_path, **{hidden: Image.new("L", (8, 8), 3)})
    for name in ("a/._0.png", "b/notes.txt", "._x.png"):
        (tmp_path / "test" / name).write_bytes(b"no picture")
    Image.new("L", (8, 8)).save(tmp_path / "test" / "loose.png")
    data = load_split("folder", tmp_path, "test")
    assert (data.classes, data.labels.tolist(), data.skipped) == (("a", "b"), [0, 1], ())
    assert data.images.max() == 2
    assert "1 pictures beside the class folders" in data.notes[0]


def test_unreadable_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    pictures(tmp_path, a=[Image.new("L", (8, 8), 1)] * 2, b=Image.new("L", (8, 8), 2))
    (tmp_path / "test/a/1.png").write_bytes(b"")
    (tmp_path / "test/b/cut.png").write_bytes((tmp_path / "test/b/0.png").read_bytes()[:50])
    os.mkfifo(tmp_path / "test/b/pipe.png")
    data = load_split("folder", tmp_path, "test")
    assert data.labels.tolist() == [0, 1]
    assert [Path(line.split(":")[0]).name for line in data.skipped] == ["1.png", "pipe.png", "cut.png"]
    with pytest.raises(InputError, match=r"1\.png"):
        load_split("folder", tmp_path, "test", strict=True)
    (tmp_path / "test/a/0.png").unlink()
    with pytest.raises(InputError, match=r"no picture of a can be read.*1\.png"):
        load_split("folder", tmp_path, "test")


def test_classes_that_cannot_be_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, a=Image.new("L", (8, 8)))
    (tmp_path / "test" / "empty").mkdir()
    with pytest.raises(InputError, match="empty: a class folder without pictures"):
        load_split("folder", tmp_path, "test")
    (tmp_path / "test" / "empty").rmdir()
    pictures(tmp_path, **{"re\x1b[31md": Image.new("L", (8, 8))})
    with pytest.raises(InputError, match="a class cannot have this name"):
        load_split("folder", tmp_path, "test")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data folder"):
        load_split("mnist", tmp_path / "nowhere", "test")
    for name in ("mnist", "fashion-mnist", "cifar10", "cifar100", "folder"):
        with pytest.raises(InputError, match=r"not found|no such folder"):
            load_split(name, tmp_path, "train")
    with pytest.raises(InputError, match="unknown data set"):
        load_split("imagenet21k", tmp_path, "train")


def test_statistics() -> None:
    images = RNG.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    mean, std = statistics(images)
    assert mean == tuple(round(float(images[..., c].mean())) for c in range(3))
    together = np.sqrt(np.mean([images[..., c].var() for c in range(3)]))
    assert std == pytest.approx([together] * 3, abs=1e-3)  # one for all, so that no input code is rounded


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path, packed=False)
    assert len(load_split("fashion-mnist", tmp_path, "test")) == len(LABELS)
    monkeypatch.setitem(KNOWN_LABELS, zlib.crc32(LABELS.tobytes()), "mnist")
    assert len(load_split("mnist", tmp_path, "test")) == len(LABELS)
    with pytest.raises(InputError, match="holds mnist, not fashion-mnist"):
        load_split("fashion-mnist", tmp_path, "test")
