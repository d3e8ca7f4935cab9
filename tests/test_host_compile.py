"""The compile command, from a checkpoint file to a program file."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import write_idx

torch = pytest.importorskip("torch")

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.compiler import rvb  # noqa: E402
from reverb_fpga.compiler.pipeline import compile_network  # noqa: E402
from reverb_fpga.host.agreement import agreement, bundled_samples  # noqa: E402
from reverb_fpga.host.commands.compile import command  # noqa: E402
from reverb_fpga.host.model import Model  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint  # noqa: E402
from reverb_fpga.models.description import InputSpec  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402
from reverb_fpga.models.zoo import DatasetSpec, Options, describe  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained-like network at T = 3 with V_th = 0, activations not quantised in training."""
    dataset = DatasetSpec("folder", InputSpec(1, 28, 28, (73,), (90.0,)), ("ant", "bee", "cat"))
    network = Network(describe("fmnist", dataset, Options(width=0.125, timesteps=3)))
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return save_checkpoint(randomise(network, 0), path, {"accuracy": 91.5})


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_checkpoint_becomes_a_program(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.rvb"
    text = _run(checkpoint, "-o", output, "--target", "ulx3s-85f")
    assert "trained with T = 3; every tensor is the same at every step, so T = 1 is exact" in text
    for name in ("conv1", "fc1", "weight rows per bank", "204 of 208", "code steps from statistics"):
        assert name in text
    program = rvb.load(output)
    assert (program.name, program.arch, program.timesteps, program.accuracy) == ("small", "fmnist", 1, 91.5)
    assert program.labels == ("ant", "bee", "cat")
    again = tmp_path / "again"
    again.mkdir()
    _run(checkpoint, "-o", again / "small.rvb")
    assert (again / "small.rvb").read_bytes() == output.read_bytes()


def test_what_was_not_compared_is_said(checkpoint: Path, tmp_path: Path) -> None:
    text = " ".join(_run(checkpoint, "-o", tmp_path / "a.rvb").split())  # there are no images of its data set
    assert "note: not compared with the trained network" in text


def test_the_report_as_json(checkpoint: Path, tmp_path: Path) -> None:
    report = json.loads(_run(checkpoint, "-o", tmp_path / "a.rvb", "--json"))
    assert report["target"] == "ulx3s-85f"
    assert (report["timesteps_trained"], report["timesteps"]) == (3, 1)
    assert [layer["name"] for layer in report["layers"]] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1"]
    assert {use["resource"] for use in report["uses"]} >= {"weight rows per bank", "descriptors", "count words"}


def test_sample_images_calibrate(checkpoint: Path, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("ant", "bee", "cat"):
        for split in ("train", "test"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / "0.png")
    options = ("--dataset", "folder", "--data-dir", tmp_path / "data", "--samples", 2)
    text = _run(checkpoint, "-o", tmp_path / "a.rvb", *options)
    assert "code steps from calibration" in text


def test_samples_are_brought_to_the_network(checkpoint: Path, tmp_path: Path) -> None:
    from PIL import Image

    for label in ("ant", "bee", "cat"):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        Image.new("RGB", (60, 50), (9, 9, 200)).save(folder / "0.jpg")
    text = _run(checkpoint, "-o", tmp_path / "a.rvb", "--dataset", "folder", "--data-dir", tmp_path)
    assert "code steps from calibration" in text
    labels = np.arange(7, dtype=np.uint8)
    write_idx(tmp_path, "train", np.zeros((7, 9, 9), np.uint8), labels)
    with pytest.raises(InputError, match=r"images of mnist are \(9, 9, 1\), the network takes \(28, 28, 1\)"):
        _run(checkpoint, "-o", tmp_path / "a.rvb", "--dataset", "mnist", "--data-dir", tmp_path)


def test_where_nothing_can_be_written_is_said_before_the_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the output was not looked at first")

    monkeypatch.setattr("reverb_fpga.compiler.pipeline.compile_network", work)
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe.rvb")
    (tmp_path / "link.rvb").symlink_to(checkpoint)
    unkept = os.fsdecode(b"caf\xe9.rvb")
    outputs = (
        ".",
        tmp_path,
        "/dev/null",
        "pipe.rvb",
        "link.rvb",
        "no/a.rvb",
        "\x1b[31m.rvb",
        unkept,
        "a" * 201 + ".rvb",
    )
    for output in outputs:
        with pytest.raises(InputError) as caught:
            _run(checkpoint, "-o", output)
        assert str(caught.value).isprintable()
    assert {entry.name for entry in tmp_path.iterdir()} == {"pipe.rvb", "link.rvb"}
    assert (tmp_path / "link.rvb").is_symlink()


@pytest.mark.parametrize("value", [3e38, 1e20, 1e10, 1e-45, 0.0, -3e38])
def test_numbers_without_bounds_become_no_file_that_cannot_be_loaded(
    checkpoint: Path, tmp_path: Path, value: float
) -> None:
    source = read_checkpoint(checkpoint)
    output = tmp_path / "a.rvb"
    refused = 0
    for name in source.tensors:
        if "conv3" in name or "conv4" in name or (name.endswith("running_var") and value < 0):
            continue
        changed = {**source.tensors, name: np.full_like(source.tensors[name], value)}
        try:
            with np.errstate(all="ignore"):
                compiled = compile_network(dataclasses.replace(source, tensors=changed), preset("ulx3s-85f"))
            rvb.save(compiled.program, output)
        except InputError:
            refused += 1
        else:
            rvb.load(output)
    assert refused > 0 or abs(value) < 1


def test_bad_input_is_one_error(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        _run(tmp_path / "missing.safetensors", "-o", tmp_path / "a.rvb")
    pickled = tmp_path / "hostile.pt"
    torch.save({"weight": torch.zeros(1)}, pickled)
    with pytest.raises(InputError, match=r"a pickle checkpoint .* is refused"):
        _run(pickled, "-o", tmp_path / "a.rvb")
    with pytest.raises(InputError, match="--data-dir DIR goes with --dataset NAME"):
        _run(checkpoint, "-o", tmp_path / "a.rvb", "--data-dir", tmp_path)
    with pytest.raises(InputError, match="data: no such data folder"):
        _run(checkpoint, "-o", tmp_path / "a.rvb", "--dataset", "mnist")
    wide = tmp_path / "wide.safetensors"
    dataset = DatasetSpec("folder", InputSpec(1, 28, 28, (73,), (90.0,)), ("ant", "bee"))
    save_checkpoint(Network(describe("fmnist", dataset, Options(act_bits=8))), wide)
    with pytest.raises(InputError, match=r"network too large for tiny: .* too many"):
        _run(wide, "-o", tmp_path / "a.rvb", "--target", "tiny")
    assert not (tmp_path / "a.rvb").exists()


def _fashion(tmp_path: Path, seed: int) -> Path:
    dataset = DatasetSpec("fashion-mnist", InputSpec(1, 28, 28, (73,), (90.0,)), tuple("abcdefghij"))
    network = Network(describe("fmnist", dataset, Options(width=0.125, act_bits=8)))
    return save_checkpoint(randomise(network, seed), tmp_path / f"{seed}.safetensors", {"accuracy": 91.5})


def test_the_program_is_compared_with_the_float_network(tmp_path: Path) -> None:
    """On the bundled images of its data set, without being asked."""
    path = _fashion(tmp_path, 1)
    report = json.loads(_run(path, "-o", tmp_path / "a.rvb", "--json"))
    assert report["check"]["images"] == 16
    assert report["check"]["agree"] >= 14
    assert 0 < report["check"]["difference"] < 0.1 * report["check"]["spread"]
    assert "agree on 5 of 5 sample images" in _run(path, "-o", tmp_path / "a.rvb", "--check", 5)
    assert "sample images" not in _run(path, "-o", tmp_path / "a.rvb", "--check", 0)


def test_a_program_that_decides_otherwise_is_found(tmp_path: Path) -> None:
    config = preset("ulx3s-85f")
    one, other = (_fashion(tmp_path, seed) for seed in (1, 2))
    program = compile_network(read_checkpoint(one), config).program
    images = bundled_samples("fashion-mnist", (28, 28, 1), 16)
    assert images is not None
    assert agreement(one, program, config, images).agree >= 14
    assert agreement(other, program, config, images).agree < 10


def test_a_dead_channel_takes_no_bits(tmp_path: Path) -> None:
    """Its normalisation divides by almost nothing: the network could not be compiled."""
    network = load_checkpoint(_fashion(tmp_path, 1))
    with torch.no_grad():
        for stage in list(network.stages())[1:3]:
            assert stage.bn is not None
            stage.bn.running_var[5] = 0.0
    config, path = preset("ulx3s-85f"), save_checkpoint(network, tmp_path / "dead.safetensors")
    compiled = compile_network(read_checkpoint(path), config)
    assert any(note.startswith("layer conv3: channels that jump from no code") for note in compiled.report.notes)
    images = bundled_samples("fashion-mnist", (28, 28, 1), 16)
    assert images is not None
    assert agreement(path, compiled.program, config, images).agree >= 14


def test_a_check_needs_images(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(checkpoint), "-o", str(tmp_path / "a.rvb"), "--check", "3"])
    assert isinstance(result.exception, InputError)
    assert "--check: no images of folder at hand" in str(result.exception)
    assert json.loads(_run(checkpoint, "-o", tmp_path / "a.rvb", "--json"))["check"] is None


def test_sample_images_place_the_channels(checkpoint: Path, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("ant", "bee", "cat"):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / f"{number}.png")
    options = ("--dataset", "folder", "--data-dir", tmp_path)
    plain, placed = tmp_path / "plain.rvb", tmp_path / "placed.rvb"
    assert "channels" not in _run(checkpoint, "-o", plain, *options, "--no-balance")
    assert "channels placed over 4 banks: " in (text := " ".join(_run(checkpoint, "-o", placed, *options).split()))
    assert "cycles by the cycle model on 4 held-out images" in text
    assert "agree on 12 of 12 sample images" in text  # the comparison is with the program that is written
    told = json.loads(_run(checkpoint, "-o", placed, *options, "--json"))["balance"]
    assert (told["banks"], told["images"], told["unit"]) == (4, 4, "cycles")
    assert told["after"] < told["before"]
    one, other = rvb.load(plain), rvb.load(placed)
    assert [info.name for info in other.layers if info.order] == told["layers"] != []
    assert not any(info.order for info in one.layers)
    model, reordered = Model(one), Model(other)
    images = rng.integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    np.testing.assert_array_equal(model.logits(images), reordered.logits(images))
    for name, codes in model.layers(images).items():
        np.testing.assert_array_equal(reordered.layers(images)[name], codes)
    told = json.loads(_run(checkpoint, "-o", plain, "--json"))
    assert told["balance"] is None  # no images, no order


def test_samples_place_the_channels_from_python(checkpoint: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 28, 28), dtype=np.uint8)
    placed, plain = (rf.compile(checkpoint, pixels, balance=balance) for balance in (True, False))
    assert any(info.order for info in placed.program.layers)
    assert not any(info.order for info in plain.program.layers)
    np.testing.assert_array_equal(
        placed.logits(pixels.transpose(0, 2, 3, 1)), plain.logits(pixels.transpose(0, 2, 3, 1))
    )
    assert placed.agreement == plain.agreement
    assert not any(info.order for info in rf.compile(checkpoint).program.layers)


def test_without_the_cycle_model_beats_are_told(checkpoint: Path, tmp_path: Path) -> None:
    labels = np.zeros(12, dtype=np.uint8)
    write_idx(tmp_path, "train", np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8), labels)
    code = "import sys; sys.modules |= {'amaranth': None}; from reverb_fpga.host import cli; cli.main()"
    options = ["-o", tmp_path / "a.rvb", "--dataset", "mnist", "--data-dir", tmp_path, "--check", "0"]
    arguments = [str(argument) for argument in ("compile", checkpoint, *options)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "beats estimated on 6 held-out images" in " ".join(done.stdout.split())


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_long_programs_are_not_measured(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros(12, dtype=np.uint8)
    write_idx(tmp_path, "train", np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8), labels)
    monkeypatch.setattr("reverb_fpga.host.balancing._BEATS", 10)
    monkeypatch.setattr("reverb_fpga.host.balancing._BYTES", 1)
    text = _run(checkpoint, "-o", tmp_path / "a.rvb", "--dataset", "mnist", "--data-dir", tmp_path)
    assert "beats estimated on 1 held-out image" in " ".join(text.split())
