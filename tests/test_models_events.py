"""Event recordings: formats byte by byte, frames, data sets, and a network from synthetic recordings to logits."""

from __future__ import annotations

import importlib.util
import io
import struct
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import reverb_fpga as rf
from reverb_fpga.compiler.pipeline import CompileOptions, compile_checkpoint
from reverb_fpga.host.commands.classify import command as classify
from reverb_fpga.host.commands.compile import command as compile_command
from reverb_fpga.host.commands.train import command as train
from reverb_fpga.host.images import to_codes
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models import event_frames
from reverb_fpga.models.augment import Augmentation, TrainingSet, batches
from reverb_fpga.models.checkpoint import load_checkpoint
from reverb_fpga.models.data import load_split, statistics
from reverb_fpga.models.event_frames import bin_events, read_frames
from reverb_fpga.models.event_set import GESTURES
from reverb_fpga.models.events import Events, read_events
from reverb_fpga.sim.golden import GoldenModel


def _maker() -> ModuleType:
    path = Path(__file__).parent.parent / "examples" / "make_synthetic_events.py"
    spec = importlib.util.spec_from_file_location("make_synthetic_events", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()


def _listed(events: Events) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in zip(events.x, events.y, events.polarity, events.time, strict=True)]


def test_nmnist_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([3, 5, 0x80 | 0x01, 0x02, 0x03, 0, 240, 0, 0, 0, 33, 0, 0x7F, 0xFF, 0xFF]))
    assert _listed(read_events(path)) == [(3, 5, 1, 0x010203), (33, 0, 0, 0x7FFFFF + 8192)]


def test_cifar10_dvs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    words = [5 << 8 | 7 << 1 | 1, 1000, 0 << 8 | 127 << 1, 2000, 1 << 15, 3000]
    path.write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + struct.pack(">6I", *words))
    assert _listed(read_events(path)) == [(122, 120, 0, 1000), (127, 0, 1, 2000)]


def _aedat3(events: list[tuple[int, int, int, int]], valid: int = 1, overflow: int = 0, spare: int = 0) -> bytes:
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for x, y, p, t in events)
    header = struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(events) + spare, len(events), len(events) * valid)
    return header + body + bytes(8 * spare)


HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"


def test_dvs128_gesture_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    events = [(1, 2, 1, 100), (127, 0, 0, 2**31 - 1)]
    other = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + b"#" * 8  # a special event
    path.write_bytes(HEADER3 + _aedat3(events, spare=3) + other + _aedat3([(9, 9, 1, 5)], valid=0)
                     + _aedat3([(4, 3, 1, 7)], overflow=1))  # fmt: skip
    assert _listed(read_events(path)) == [*events, (4, 3, 1, 7 + 2**31)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.bin", bytes(6), "no whole number of events of 5 bytes"),
        ("a.bin", bytes([34, 0, 0, 0, 0]), "an event at x = 34, outside of 34 pixels"),
        ("a.bin", bytes([0, 99, 0, 0, 0]), "an event at y = 99"),
        ("a.bin", b"", "holds no events"),
        ("a.aedat", b"#!AER-DAT2.0\r\n" + bytes(9), "no whole number of events of 8 bytes"),
        ("a.aedat", b"#!AER-DAT2.0", "its header has no end"),
        ("a.aedat", b"#!AER-DAT4.0\r\n", "version 4"),
        ("a.aedat", b"\x89PNG", "not an AEDAT file of version 2.0 or 3.1"),
        ("a.aedat", HEADER3 + _aedat3([(1, 1, 1, 1)])[:-1], "cut short"),
        ("a.aedat", HEADER3 + bytes(27), "cut short in the header of a packet"),
        ("a.aedat", HEADER3 + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**30, 1, 1), "a packet of 1073741824 events"),
        ("a.aedat", HEADER3 + struct.pack("<hhiiiiii", 1, 1, -8, 4, 0, 1, 1, 1), "damaged"),
        ("a.aedat", HEADER3 + struct.pack("<hhiiiiii", 1, 1, 4, 4, 0, 2, 2, 2) + bytes(8), "of 4 bytes, not 8"),
        ("a.aedat", HEADER3 + _aedat3([(128, 0, 0, 0)]), "an event at x = 128"),
        ("a.npz", b"PK\x03\x04", "not an .npz file"),
        ("a.npy", b"\x93NUMPY", "not an .npy array"),
    ],
)  # fmt: skip
def test_damaged_recordings_are_one_line(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_frames(path, 2)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_frames_are_equal_shares_of_time_and_add_what_falls_together() -> None:
    events = Events(*(np.array(v) for v in ([0, 1, 3, 3], [0, 0, 2, 2], [0, 1, 1, 1], [10, 19, 20, 29])), 4, 4)
    frames = bin_events(events, 2)
    assert frames.shape == (2, 4, 4, 2)
    assert {tuple(map(int, place)): int(frames[tuple(place)]) for place in np.argwhere(frames)} == {
        (0, 0, 0, 0): 1, (0, 0, 1, 1): 1, (1, 2, 3, 1): 2,
    }  # fmt: skip
    small = bin_events(events, 1, (2, 2))
    assert small[0].tolist() == [[[1, 1], [0, 0]], [[0, 0], [0, 2]]]
    many = Events(*(np.full(300, value) for value in (1, 1, 1, 5)), 2, 2)
    assert bin_events(many, 3).max() == 255


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_stored_frames_are_checked(tmp_path: Path) -> None:
    frames = np.arange(2 * 2 * 4 * 6).reshape(2, 2, 4, 6)
    path = tmp_path / "a.npy"
    for kind in (np.uint8, np.int64, np.float32):
        path.write_bytes(_npy(frames.astype(kind)))
        assert np.array_equal(read_frames(path, 2), frames.transpose(0, 2, 3, 1))
    path.write_bytes(_npy(np.asfortranarray(frames)))
    assert np.array_equal(read_frames(path, 2), frames.transpose(0, 2, 3, 1))
    halved = read_frames(path, 2, (2, 3))
    assert halved[1, 0, 0, 1] == min(255, int(frames[1, 1, :2, :2].sum()))
    for bad, message in (
        (frames[:1], "1 frames, the network takes T = 2"),
        (frames[:, :1], "event frames are (T, 2, H, W)"),
        (frames[0], "event frames are (T, 2, H, W)"),
        (frames + 200, "whole numbers from 0 to 255"),
        (frames - 1, "whole numbers from 0 to 255"),
        (frames / 2, "whole numbers from 0 to 255"),
        (np.where(frames == 5, np.nan, frames), "not frames of numbers"),
        (frames.astype(str), "not frames of numbers"),
        (np.array([{}]), "damaged"),
    ):
        path.write_bytes(_npy(bad))
        with pytest.raises(InputError) as error:
            read_frames(path, 2)
        assert message in str(error.value)
    path.write_bytes(_npy(frames))
    with pytest.raises(InputError, match="smaller than the 8x8"):
        read_frames(path, 2, (8, 8))
    header = _npy(frames.astype(np.uint8))[:128].replace(b"(2, 2, 4, 6)", b"(2,2,9999,9)")
    path.write_bytes(header + bytes(96))
    with pytest.raises(InputError, match="96 bytes for an array"):
        read_frames(path, 2)


def test_archives_of_frames_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, path = np.ones((2, 2, 3, 3), np.uint8), tmp_path / "a.npz"
    np.savez(path, frames=frames, other=np.zeros(3))
    assert np.array_equal(read_frames(path, 2), frames.transpose(0, 2, 3, 1))
    np.savez_compressed(path, whatever=frames)
    assert np.array_equal(read_frames(path, 2), frames.transpose(0, 2, 3, 1))
    np.savez(path, a=frames, b=frames)
    with pytest.raises(InputError, match="holds 2 arrays and none is called 'frames'"):
        read_frames(path, 2)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", bytes(3 << 20))
    monkeypatch.setattr(event_frames, "_MAX_BYTES", 2 << 20)
    with pytest.raises(InputError, match="unpacks to more than 2 MiB"):
        read_frames(path, 2)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic recordings of three formats, the same events in each."""
    root = tmp_path_factory.mktemp("synthetic")
    for kind in ("bin", "aedat", "npz"):
        argv = ["x", "--out", str(root / kind), "--format", kind, "--train", "30", "--test", "8", "--timesteps", "3"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            assert MAKER.main() == 0
    return root


def test_all_formats_hold_the_same_synthetic_events(synthetic: Path) -> None:
    sets = {kind: load_split("events", synthetic / kind, "train", steps=3) for kind in ("bin", "aedat", "npz")}
    assert sets["bin"].images.shape == (120, 3, 34, 34, 2)
    assert np.array_equal(sets["bin"].images, sets["npz"].images)
    assert np.array_equal(sets["bin"].images, sets["aedat"].images[:, :, 47:81, 47:81])
    assert int(sets["aedat"].images.sum()) == int(sets["bin"].images.sum())
    assert sets["bin"].classes == MAKER.CLASSES
    assert sets["bin"].labels.tolist() == sorted(list(range(4)) * 30)


def test_recordings_that_cannot_be_read_are_left_out_and_named(synthetic: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "Train" / name
        folder.mkdir(parents=True)
        (folder / "good.bin").write_bytes((synthetic / "bin/train/disc/synthetic0000.bin").read_bytes())
        (folder / ".hidden.bin").write_bytes(b"x")
    (tmp_path / "Train/a/bad.bin").write_bytes(bytes(7))
    found = load_split("events", tmp_path, "train", steps=2)
    assert (len(found), found.classes) == (2, ("a", "b"))
    assert len(found.skipped) == 1
    assert "bad.bin: cut short" in found.skipped[0]
    with pytest.raises(InputError, match="cut short"):
        load_split("events", tmp_path, "train", steps=2, strict=True)
    with pytest.raises(InputError, match="no such folder; event data is train/CLASS/"):
        load_split("events", tmp_path, "test", steps=2)
    (tmp_path / "Train/c").mkdir()
    with pytest.raises(InputError, match="a class folder without recordings"):
        load_split("events", tmp_path, "train", steps=2)


def test_gestures_are_the_stretches_of_their_recordings(tmp_path: Path) -> None:
    events = [(x, 5, 1, 100 * x) for x in range(100)]
    (tmp_path / "user01_led.aedat").write_bytes(HEADER3 + _aedat3(events))
    (tmp_path / "user01_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,0,2000\n11,3000,5000\n")
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n\n")
    (tmp_path / "trials_to_test.txt").write_text("../user01_led.aedat\n")
    found = load_split("events", tmp_path, "train", steps=2)
    assert found.images.shape == (2, 2, 128, 128, 2)
    assert found.images.sum(axis=(1, 2, 3, 4)).tolist() == [20, 20]
    assert [found.classes[label] for label in found.labels] == [GESTURES[0], GESTURES[10]]
    assert set(np.argwhere(found.images[1])[:, 1].tolist()) == {5}  # the row
    with pytest.raises(InputError, match="names a file elsewhere"):
        load_split("events", tmp_path, "test", steps=2)
    (tmp_path / "user01_led_labels.csv").write_text("class,start,end\n12,0,1\n")
    with pytest.raises(InputError, match=r"class 12, expected 1..11"):
        load_split("events", tmp_path, "train", steps=2)


def test_frames_of_a_sample_are_augmented_alike(synthetic: Path) -> None:
    data = load_split("events", synthetic / "bin", "train", steps=3)
    plain = next(TrainingSet(data, Augmentation(0, False), (0, 0)).epoch(120, 1, 0))
    assert plain.images.shape == (120, 3, 2, 34, 34)
    assert np.array_equal(plain.images.numpy(), np.moveaxis(data.images[plain.positions], -1, 2))
    whole, labels = next(iter(batches(data, 120)))
    assert torch.equal(whole[plain.positions], plain.images)
    assert torch.equal(labels[plain.positions], plain.labels)
    still = data.images[:, :1].repeat(3, axis=1)
    alike = next(
        TrainingSet(type(data)(still, data.labels, data.classes), Augmentation(3, True, 8), (9, 7)).epoch(120, 1, 0)
    )
    assert torch.equal(alike.images[:, 0], alike.images[:, 2])
    assert not torch.equal(alike.images[:, 0], plain.images[:, 0])
    mean, std = statistics(data.images)
    assert (len(mean), len(std)) == (2, 2)


def _run(command: object, *arguments: str | Path) -> str:
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_network_of_synthetic_events_from_training_to_logits(synthetic: Path, tmp_path: Path) -> None:
    out, program = tmp_path / "run", tmp_path / "events.rvb"
    data = ("--dataset", "events", "--data-dir", synthetic / "bin")
    _run(train, *data, "--timesteps", "3", "--image-size", "17", "--width", "0.25", "--epochs", "6",
         "--batch-size", "8", "--lr", "5e-3", "--threads", "1", "--out", out, "--json")  # fmt: skip
    network = load_checkpoint(out / "best.safetensors")
    assert {layer.neuron.v_th for layer in network.spec.layers if layer.neuron is not None} == {0.25}
    compiled = compile_checkpoint(out / "best.safetensors", preset("ulx3s-85f"), CompileOptions(name="events"))
    assert compiled.program.timesteps == 3
    assert not compiled.network.static_input
    test = load_split("events", synthetic / "bin", "test", (17, 17, 2), steps=3)
    logits = GoldenModel(compiled.program, preset("ulx3s-85f")).run(to_codes(list(test.images), compiled.program.input))
    with torch.no_grad():
        trained = network(torch.from_numpy(np.moveaxis(test.images, -1, 2).copy())).numpy()
    assert (trained.argmax(1) == test.labels).mean() > 0.6  # four classes
    assert (logits.argmax(1) == trained.argmax(1)).mean() >= 0.95
    backwards = GoldenModel(compiled.program, preset("ulx3s-85f")).run(
        to_codes(list(test.images[:, ::-1]), compiled.program.input)
    )
    assert not np.array_equal(backwards, logits)  # every step is seen
    model = rf.Model(compiled.program)
    np.testing.assert_array_equal(model.logits(test.images), logits * compiled.program.logit_scale)
    np.testing.assert_array_equal(model.logits(test.images[0]), model.logits(test.images[:1]))
    with pytest.raises(InputError, match=r"takes uint8 \(N, 3, 17, 17, 2\)"):
        model.logits(test.images[:, 0])  # frames that stand still
    _run(compile_command, out / "best.safetensors", "-o", program, *data)
    told = _run(classify, "--model", program, synthetic / "bin/test", "--no-progress")
    assert "32 images" in told
    assert f"{100 * (logits.argmax(1) == test.labels).mean():.2f} % right" in told
    assert "32 images" in _run(classify, "--model", program, *data, "--no-progress")
