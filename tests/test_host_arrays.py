"""Models that take arrays of numbers, from the command line: their inputs come as .npy files."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
nn = torch.nn

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.host.commands.classify import command as classify  # noqa: E402
from reverb_fpga.host.commands.report import command as report  # noqa: E402
from reverb_fpga.host.commands.spikes import command as spikes  # noqa: E402
from reverb_fpga.host.inputs import Selection  # noqa: E402
from reverb_fpga.host.verifying import input_codes  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, rf.Model, NDArray[np.float32]]:
    """A folder with own.rvb and own.npy, the model, and the inputs (8, 1, 6, 6)."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    samples = np.random.default_rng(3).normal(size=(8, 1, 6, 6)).astype(np.float32)
    model = rf.compile(module, samples, target="tiny", labels=("a", "b", "c"))
    folder = tmp_path_factory.mktemp("arrays")
    model.save(folder / "own.rvb")
    np.save(folder / "own.npy", samples)
    return folder, model, samples


def _run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_line_decides_as_the_model_does(made: tuple[Path, rf.Model, NDArray[np.float32]]) -> None:
    folder, model, samples = made
    done = _run(classify, folder / "own.npy", "--model", folder / "own.rvb", "--no-progress")
    assert done.exit_code == 0, done.output
    decided = [line.split()[0] for line in done.stdout.splitlines() if "own.npy[" in line]
    assert decided == model.classify(samples)
    _, codes = input_codes(model.program, Selection(paths=(folder / "own.npy",)))
    assert codes.shape == (8, 1, 6, 6, 1)
    assert codes.min() == 0
    assert codes.max() >= 254


def test_reports_pages_and_pictures_of_arrays(made: tuple[Path, rf.Model, NDArray[np.float32]]) -> None:
    pytest.importorskip("bokeh")
    folder, _, _ = made
    page = folder / "own.html"
    done = _run(report, folder / "own.rvb", folder / "own.npy", "-o", page)
    assert done.exit_code == 0, done.output
    assert "mean of 8 image(s)" in done.stdout
    assert page.stat().st_size > 100_000
    done = _run(spikes, folder / "own.rvb", folder / "own.npy", "-o", folder / "own.png")
    assert done.exit_code == 0, done.output


def test_what_is_no_input_of_the_model(made: tuple[Path, rf.Model, NDArray[np.float32]]) -> None:
    folder, model, _ = made
    np.save(folder / "wide.npy", np.zeros((2, 1, 6, 7)))
    np.save(folder / "nan.npy", np.full((2, 1, 6, 6), np.nan))
    np.save(folder / "text.npy", np.array(["a"]))
    (folder / "cut.npy").write_bytes((folder / "own.npy").read_bytes()[:-4])
    (folder / "picture.png").touch()
    wanted = r"float \(N, 1, 6, 6\)"
    for name, message in (
        ("wide.npy", rf"an input of shape \(2, 1, 6, 7\); the model takes {wanted}"),
        ("nan.npy", "not finite"),
        ("text.npy", f"no array of numbers; the model takes {wanted}"),
        ("cut.npy", "cannot be read"),
        ("picture.png", rf"in a .npy file, {wanted}, not pictures"),
        ("none.npy", "no such file"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            input_codes(model.program, Selection(paths=(folder / name,)))
        assert name in str(caught.value)
    done = _run(report, folder / "own.rvb")
    assert isinstance(done.exception, InputError)
    assert "give a .npy file of some, float (N, 1, 6, 6)" in str(done.exception)
