"""From the train command to the golden model: what was trained with rounding is what the compiled program computes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import write_brightness
from PIL import Image

torch = pytest.importorskip("torch")

from reverb_fpga.compiler.pipeline import CompileOptions, compile_checkpoint  # noqa: E402
from reverb_fpga.host import cli  # noqa: E402
from reverb_fpga.host.commands.train import command  # noqa: E402
from reverb_fpga.host.images import to_codes  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.activation import Encoded  # noqa: E402
from reverb_fpga.models.checkpoint import load_checkpoint  # noqa: E402
from reverb_fpga.models.data import DEFAULT_DATA_DIR, load_split  # noqa: E402
from reverb_fpga.models.description import INPUT  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.quant import sign_plus  # noqa: E402
from reverb_fpga.models.train import Trainer  # noqa: E402
from reverb_fpga.sim.golden import GoldenModel  # noqa: E402


def _train(tmp_path: Path, *arguments: str) -> tuple[dict[str, object], Path]:
    """The command's JSON, and the checkpoint of a small network that tells bright pictures from dark ones."""
    write_brightness(tmp_path, 200, 60)
    out = tmp_path / "run"
    result = CliRunner().invoke(
        command,
        ["--dataset", "mnist", "--arch", "scnn5", "--data-dir", str(tmp_path), "--out", str(out), "--width", "0.125",
         "--epochs", "2", "--batch-size", "16", "--json", "--threads", "1", *arguments],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), out / "best.safetensors"


@pytest.mark.parametrize(("act_bits", "edge_bits"), [("8", "4"), ("6", "8"), ("4", "8")])
def test_the_golden_model_computes_what_was_trained(act_bits: str, edge_bits: str, tmp_path: Path) -> None:
    value, path = _train(tmp_path, "--act-bits", act_bits, "--first-bits", edge_bits, "--last-bits", edge_bits)
    network = load_checkpoint(path).eval().requires_grad_(requires_grad=False)
    assert (network.spec.layers[0].weight.bits, network.spec.layers[-1].weight.bits) == (int(edge_bits),) * 2
    test = load_split("mnist", tmp_path, "test")
    pixels = torch.from_numpy(test.images.transpose(0, 3, 1, 2).copy())
    assert value["accuracy"] == pytest.approx(100 * np.mean(network(pixels).numpy().argmax(1) == test.labels), abs=0.01)
    compiled = compile_checkpoint(path, preset("ulx3s-85f"), CompileOptions(name="small"))
    golden = GoldenModel(compiled.program, preset("ulx3s-85f"))
    outputs, logits = golden.run_layers(to_codes(list(test.images), compiled.program.input))
    network = network.double()
    # layer by layer: a network that was hardly trained makes of one code at the edge of its step another class
    for tensor, codes, layer in zip(network.activations(), outputs, compiled.network.layers, strict=False):
        real = _code_alone(network, tensor.spec.name, pixels, outputs)
        trained, codes = np.floor(real + 0.5).clip(0, 2 ** int(act_bits) - 1), codes[:, 0]
        # what was rounded is a unit of the bias, and the gain from where the potential is 0 on
        leg, potential, edge = layer.maps[0], 256 * np.abs(real), 256 * np.abs(real + 0.5 - np.rint(real + 0.5))
        bound = 0.5 + 0.5 * potential / leg.gain + 0.25 / 2**leg.r_shift + 1e-6
        assert (edge <= bound)[trained != codes].all()
        assert np.abs(trained - codes).max() <= 1
        assert 0 < trained.max() < 2 ** int(act_bits)
        assert np.mean(trained != codes) < 0.005
    real = _current_alone(network, network.spec.layers[-1].name, pixels, outputs)
    np.testing.assert_allclose(logits * compiled.program.logit_scale, real[0], rtol=0, atol=1e-4 * np.ptp(real))


def _current_alone(network: Network, name: str, pixels: torch.Tensor, outputs: list[np.ndarray]) -> np.ndarray:
    """Current (1, N, ...) of one layer of a chain, of the codes that the golden model has in front of it."""
    layer = network.layer(name)
    if layer.spec.source == INPUT:
        return layer.current(Encoded(network._normalise(pixels))).numpy()
    tensor = network.tensor(layer.spec.source)
    at = [each.name for each in network.spec.tensors].index(layer.spec.source)
    codes = torch.from_numpy(outputs[at].astype(np.float64)).permute(1, 0, 4, 2, 3)
    step = tensor.scale.reshape(1) if tensor.alpha is None else tensor.scale * sign_plus(tensor.alpha)
    return layer.current(Encoded(codes, step, codes=True)).numpy()


def _code_alone(network: Network, name: str, pixels: torch.Tensor, outputs: list[np.ndarray]) -> np.ndarray:
    """What that current is in codes of its tensor, not rounded, (N, H, W, C)."""
    tensor = network.tensor(name)
    real = tensor.scaled(torch.from_numpy(_current_alone(network, name, pixels, outputs))) / tensor.scale
    return real[0].numpy().transpose(0, 2, 3, 1)


SWALLOWED = """
import os, signal, sys
from reverb_fpga.host import cli
from reverb_fpga.models.train import Trainer
step, sent = Trainer._step, []
def swallowing(*arguments):
    try:
        if not sent:  # once: a second signal, a second later on a slow machine, would end the run at once
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        pass
    return step(*arguments)
Trainer._step = swallowing
cli.main(sys.argv[1:])
"""


def test_an_interrupt_that_a_library_swallows_ends_the_run(tmp_path: Path) -> None:
    write_brightness(tmp_path, 200, 60)
    arguments = ["train", "--dataset", "mnist", "--data-dir", str(tmp_path), "--width", "0.125", "--out"]
    command = [sys.executable, "-c", SWALLOWED, *arguments, str(tmp_path / "run"), "--epochs", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (
        130, "reverb-fpga: error: interrupted in the first epoch; nothing was kept\n"
    )  # fmt: skip


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = 0

    def interrupt(trainer: Trainer) -> None:
        trainer.state = replace(trainer.state, epoch=epochs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupt)
    write_brightness(tmp_path, 200, 60)
    arguments = ["train", "--dataset", "mnist", "--data-dir", str(tmp_path), "--width", "0.125", "--out"]
    for epochs, message in ((0, "in the first epoch; nothing was kept"), (3, "after epoch 3; go on with --resume")):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, str(tmp_path / f"run{epochs}")])
        assert stopped.value.code == 130
        assert capsys.readouterr().err == f"reverb-fpga: error: interrupted {message}\n"


def _folder(root: Path, side: int) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in ("a", "b"):
            place = root / split / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(place / f"{number}.png")
    return root


def test_what_cannot_be_compiled_is_not_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = _folder(tmp_path / "data", 160), tmp_path / "run"
    arguments = ["train", "--dataset", "folder", "--data-dir", data, "--width", "0.1", "--epochs", "1", "--out", out]
    arguments += ["--batch-size", "4", "--threads", "1", "--arch"]
    for arch in ("cnv", "fmnist"):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*map(str, arguments), arch])
        message = capsys.readouterr().err
        assert stopped.value.code == 2
        assert "too large for ulx3s-85f" in message
        assert "--image-size" in message
        assert message.count("\n") == 1
        assert not out.exists()
    with pytest.raises(SystemExit):  # unchecked it gets as far as the run folder
        cli.main([*map(str, arguments), "fmnist", "--target", "none", "--resume"])
    assert "nothing to resume" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, arguments), "fmnist", "--image-size", "32"])
    assert (stopped.value.code, (out / "best.safetensors").exists()) == (0, True)


def test_pictures_that_are_left_out_are_named(tmp_path: Path) -> None:
    data = _folder(tmp_path / "data", 28)
    (data / "train/a/0.png").write_bytes(b"")
    Image.new("L", (30, 20)).save(data / "train/a/1.png")
    arguments = ["--dataset", "folder", "--data-dir", str(data), "--width", "0.1", "--epochs", "1", "--arch", "fmnist"]
    arguments += ["--batch-size", "4", "--threads", "1", "--image-size", "28", "--json", "--out"]
    result = CliRunner().invoke(command, [*arguments, str(tmp_path / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [Path(line.split(":")[0]).name for line in json.loads(result.stdout)["skipped"]] == ["0.png"]
    assert "1 grey pictures are taken as colour" in result.stderr
    assert "1 pictures could not be read" in result.stderr
    with pytest.raises(InputError, match=r"0\.png"):
        CliRunner().invoke(command, [*arguments, str(tmp_path / "no"), "--strict"], catch_exceptions=False)


def test_missing_data_is_said_before_anything_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb_fpga.host.commands.train._progress_bar", lambda *_, **__: pytest.fail("a dead bar"))
    with pytest.raises(InputError, match="no such data folder"):
        CliRunner().invoke(
            command, ["--data-dir", str(tmp_path / "no"), "--out", str(tmp_path / "run")], catch_exceptions=False
        )


def test_commands_look_for_data_in_one_place() -> None:
    for name in ("train", "classify", "compile", "report"):
        text = CliRunner().invoke(cli.cli, [name, "--help"]).output
        option = text[text.index("  --data-dir") :]
        assert f"[default: {DEFAULT_DATA_DIR}]" in " ".join(option[: option.index("\n  --")].split())
