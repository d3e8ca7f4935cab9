"""The Python API on bundled models, checkpoints and boards: what it takes, what it says of what it does not take."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from serial.tools import list_ports

import reverb_fpga as rf
from reverb_fpga.host.bundled import bundled_images
from reverb_fpga.host.cli import cli
from reverb_fpga.host.ports import Candidate
from reverb_fpga.hw.boards.table import LinkKind
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import DeviceError, InputError
from reverb_fpga.sim.virtual_board import VirtualBoard

PATHS = [image.path for image in bundled_images("fashion-mnist")[:4]]


@pytest.fixture(scope="module")
def model() -> rf.Model:
    return rf.load("fashion-mnist")


def command(*arguments: str) -> Any:
    result = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_pictures_in_every_form_are_classified_as_the_command_does(model: rf.Model) -> None:
    from PIL import Image

    wanted = [entry["label"] for entry in command("classify", *map(str, PATHS), "--model", "fashion-mnist")["results"]]
    pixels = np.stack([np.asarray(Image.open(path).convert("L")) for path in PATHS])
    assert model.classify(PATHS) == wanted
    assert model.classify([str(path) for path in PATHS]) == wanted
    assert model.classify(tuple(PATHS)) == wanted
    assert model.classify(PATHS[0]) == model.classify(str(PATHS[0])) == wanted[:1]
    assert model.classify(pixels) == model.classify(pixels[..., None]) == wanted
    assert model.classify(pixels.tolist() and list(pixels)) == wanted
    assert model.classify(pixels[1]) == model.classify(pixels[1, :, :, None]) == wanted[1:2]


def test_a_torch_tensor_of_pixels_is_one(model: rf.Model) -> None:
    torch = pytest.importorskip("torch")
    pixels = np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28)
    np.testing.assert_array_equal(model.logits(torch.from_numpy(pixels)), model.logits(pixels))


def test_a_report_has_the_figures_of_the_command(model: rf.Model) -> None:
    told, found = command("report", "fashion-mnist", "--clock", "50"), model.report(clock_mhz=50.0)
    for key in ("cycles", "additions", "images_per_second", "timesteps", "target", "images"):
        assert found[key] == told[key], key
    assert json.loads(json.dumps(found["layers"])) == told["layers"]
    assert found["name"] == told["model"]
    assert model.report(PATHS[:1])["images"] == 1


WRONG = [
    (np.zeros((2, 28, 28)), r"an array of float64; the model takes images, uint8 \(N, 28, 28, 1\), or paths"),
    (np.zeros((0, 28, 28), np.uint8), r"shape \(0, 28, 28\); the model takes images"),
    (np.zeros((2, 27, 28), np.uint8), r"shape \(2, 27, 28\)"),
    (np.zeros((2, 28, 28, 3), np.uint8), r"shape \(2, 28, 28, 3\)"),
    (np.uint8(3), r"shape \(\)"),
    ([], r"an array of float64"),
    (None, "no array of numbers"),
    (["there", None], "an array of <U5|no array of numbers"),
    ([np.zeros((28, 28), np.uint8), np.zeros((27, 28), np.uint8)], "no array of numbers"),
    ("no/such/picture.png", "no/such/picture.png: no such file"),
    (Path(__file__), "test_host_api.py"),
    ({"image": 1}, "no array of numbers"),
]


@pytest.mark.parametrize(("x", "message"), WRONG, ids=[str(index) for index in range(len(WRONG))])
def test_what_a_model_does_not_take_is_one_line(model: rf.Model, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        model.logits(x)
    assert "\n" not in str(caught.value)


def test_names_and_backends_that_are_none(model: rf.Model) -> None:
    with pytest.raises(InputError, match="bundled are: fashion-mnist"):
        rf.load("fashion")
    with pytest.raises(InputError, match="backend='golden' is what verify compares with"):
        model.verify(backend="golden")
    with pytest.raises(DeviceError, match="/dev/none"):
        model.logits(PATHS[0], backend="/dev/none")
    for backend in ("Golden", "gpu", "", None, 3, ["golden"]):
        with pytest.raises(InputError, match="there are golden, rtl, device"):
            model.logits(PATHS[0], backend=backend)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--baud goes with"), model.on("golden", baud=3_000_000):
        pass
    with pytest.raises(InputError, match="two ports, /dev/a and /dev/b"), model.on("/dev/a", port="/dev/b"):
        pass
    with pytest.raises(InputError, match="--port goes with"), model.on("golden", port="/dev/none"):
        pass


def test_inputs_that_come_one_by_one(model: rf.Model) -> None:
    """As many calls as there are, on one backend; None is a pause."""
    wanted = model.logits(PATHS)
    with model.on() as running:
        np.testing.assert_array_equal(list(running.stream([PATHS[0], None, str(PATHS[1])])), wanted[:2])
        assert running.classify(PATHS) == model.classify(PATHS)
        assert list(running.stream([])) == []
        with pytest.raises(InputError, match="4 inputs where stream takes one at a time"):
            list(running.stream([PATHS]))


def test_the_command_runs_on_the_model_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = rf.Model.on

    def on(self: rf.Model, *arguments: Any, **options: Any) -> Any:
        opened.append((arguments, options["port"], options["baud"]))
        return real(self, *arguments, **options)

    monkeypatch.setattr(rf.Model, "on", on)
    command("classify", str(PATHS[0]), "--model", "fashion-mnist")
    assert opened == [(("golden",), None, None)]


def test_a_checkpoint_has_its_own_steps_and_labels(tmp_path: Path) -> None:
    for name, value in (("timesteps", 2), ("labels", ["a"]), ("truth", [1])):
        with pytest.raises(InputError, match=f"{name}: only of modules"):
            rf.compile(tmp_path / "some.safetensors", **{name: value})
    with pytest.raises(InputError, match=r"shape \(3, 4\) and float64; uint8 \(N, channels, height, width\)"):
        rf.compile(tmp_path / "some.safetensors", np.zeros((3, 4)))


def test_devices_are_the_ports_of_known_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        SimpleNamespace(device="/dev/b", vid=0x0403, pid=0x6015, manufacturer="FER-RADIONA-EMARD",
                        product="ULX3S FPGA 85K v3.0.8", description="ULX3S"),
        SimpleNamespace(device="/dev/a", vid=0x1234, pid=0x5678, manufacturer="x", product="a mouse", description=""),
    ]  # fmt: skip
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert rf.devices() == [Candidate("/dev/b", "ULX3S FPGA 85K v3.0.8", LinkKind.UART)]
    monkeypatch.setattr(list_ports, "comports", list)
    assert rf.devices() == []
    with pytest.raises(DeviceError, match="no board found"):
        rf.load().logits(PATHS[0], backend="device")


def test_a_model_runs_on_the_board_that_is_attached(monkeypatch: pytest.MonkeyPatch, fashion_rvb: Path) -> None:
    """A virtual board whose port says that it is a ULX3S: found by `devices`, and by backend='device'."""
    model = rf.load(fashion_rvb)
    with VirtualBoard(preset("tiny")) as board:
        entry = SimpleNamespace(device=board.port, vid=0x0403, pid=0x6015, manufacturer="FER-RADIONA-EMARD",
                                product="ULX3S FPGA 85K v3.0.8", description="ULX3S")  # fmt: skip
        monkeypatch.setattr(list_ports, "comports", lambda: [entry])
        assert [found.port for found in rf.devices()] == [board.port]
        wanted = model.logits(PATHS[:2])
        np.testing.assert_array_equal(model.logits(PATHS[:2], backend="device"), wanted)
        np.testing.assert_array_equal(model.logits(PATHS[:2], backend=board.port), wanted)
        with model.on("serial", port=board.port, baud=round(board.line.baud)) as running:
            np.testing.assert_array_equal(list(running.stream(PATHS[:2])), wanted)
            np.testing.assert_array_equal(running.logits(PATHS[:2]), wanted)
