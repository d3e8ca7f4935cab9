"""``spikes``, ``compare``, ``doctor`` and ``completion``."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_reports import build_report
from click.testing import CliRunner, Result
from PIL import Image

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.commands import compare, doctor, spikes
from reverb_fpga.host.feature_maps import draw_spikes
from reverb_fpga.host.images import over_time, read_image, to_codes
from reverb_fpga.hw.boards.report import write_report
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel

IMAGE = bundled.bundled_images("fashion-mnist")[3]


def _run(command: Any, *arguments: str) -> Result:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def _refused(command: Any, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def test_spikes_are_those_of_the_golden_model(tmp_path: Path) -> None:
    target = tmp_path / "layers.npz"
    value = json.loads(_run(spikes.command, "fashion-mnist-t2", str(IMAGE.path), "-o", str(target), "--json").stdout)
    program = bundled.load_model("fashion-mnist-t2")
    codes = over_time(to_codes([read_image(IMAGE.path)], program.input), program)
    layers, logits = GoldenModel(program, config_of(program)).run_layers(codes)
    with np.load(target, allow_pickle=False) as found:
        assert sorted(found) == sorted(["logits", *(f"layer{n}" for n in range(len(layers)))])
        assert (found["logits"] == logits[0]).all()
        for number, (info, wanted) in enumerate(zip(program.layers, layers, strict=True)):
            assert (found[f"layer{number}"] == info.of_network(wanted[0])).all()
    assert [row["events"] for row in value["layers"]] == [int((codes > 0).sum()) for codes in layers[:-1]]
    assert value["label"] == program.labels[int(logits[0].argmax())]
    assert value["layers"][0]["timesteps"] == 2


def test_spikes_as_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "spikes.png"
    text = _run(spikes.command, "cifar10-cnv", "-o", str(target)).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["spikes.png"]
    assert f"written: {target}" in text
    assert "conv6" in text
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        assert picture.width > 900
        assert picture.height > 1500
        assert len(set(picture.convert("L").resize((60, 120)).tobytes())) > 50  # not blank


def test_a_picture_shows_what_fires(fashion_program: Program) -> None:
    pytest.importorskip("matplotlib")
    layers = [np.zeros((1, 7, 7, 4), dtype=np.uint8), np.zeros((1, 1, 1, 10), dtype=np.uint8)]
    pixels, logits = np.zeros((28, 28, 1), dtype=np.uint8), np.arange(10)
    strange = dataclasses.replace(
        fashion_program,
        labels=tuple("$\\frac{}$\x1b[31m語" for _ in range(10)),
        layers=tuple(dataclasses.replace(layer, name="$\\bad{$ <b>") for layer in fashion_program.layers),
    )
    silent = draw_spikes(strange, pixels, layers, logits, "$\\x$")
    layers[0][0, 3, 3, 2] = 200
    fired = draw_spikes(strange, pixels, layers, logits, "$\\x$")
    first, second = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int) for data in (silent, fired))
    assert first.shape == second.shape
    assert 50 < (np.abs(first - second).sum(axis=2) > 60).sum() < 0.05 * first[..., 0].size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fashion-mnist", "-o", "x.jpg"], "written as .png"),
        (["fashion-mnist", "no.png"], "no such file"),
        (["nothing"], "no such file or bundled model"),
        (["fashion-mnist", "-o", "no/such/x.png"], "no/such"),
    ],
)
def test_spikes_of_nothing(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _refused(spikes.command, *arguments)
    assert not list(tmp_path.iterdir())


def _rows(*arguments: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    value = json.loads(_run(compare.command, *arguments, "--json").stdout)
    return {row["name"]: row for row in value["rows"]}, value["notes"]


def test_models_side_by_side() -> None:
    rows, notes = _rows("fashion-mnist", "fashion-mnist-t2", "--images", "4")
    assert (rows["T"]["a"], rows["T"]["b"], rows["T"]["change"]) == (1, 2, 1.0)
    assert rows["conv2: cycles"]["a"] != rows["conv2: cycles"]["b"]
    assert "conv1: density %" not in rows
    assert any(note.startswith("they decide alike on ") and note.endswith("of 4 image(s)") for note in notes)
    rows, notes = _rows("fashion-mnist", "fashion-mnist", "--images", "4")
    assert all(row["change"] in (0, None) for row in rows.values())
    assert notes == ["they decide alike on 4 of 4 image(s)"]


def test_a_model_that_decides_otherwise(fashion_program: Program, tmp_path: Path) -> None:
    """Agreement counts decisions: labels in another order are another decision only where they are compared."""
    first = rvb.save(fashion_program, tmp_path / "a.rvb")
    other = dataclasses.replace(fashion_program, labels=fashion_program.labels[::-1])
    second = rvb.save(other, tmp_path / "b.rvb")
    assert _rows(str(first), str(first), "--images", "5")[1] == ["they decide alike on 5 of 5 image(s)"]
    assert "not compared" in _rows(str(first), str(second), "--images", "5")[1][-1]


def _build(folder: Path, **fields: Any) -> str:
    folder.mkdir()
    write_report(folder, build_report(**fields))
    return str(folder)


def test_builds_side_by_side(tmp_path: Path) -> None:
    first = _build(tmp_path / "a", bram_by_use={"weights": 8})
    second = _build(tmp_path / "b", lut4=1100, fmax_mhz=66.0, bram_by_use={"link": 3}, tools={"yosys": "2"})
    rows, notes = _rows(first, second)
    assert rows["LUT4"]["change"] == pytest.approx(0.1)
    assert rows["timing met up to, MHz"]["change"] == pytest.approx(0.1)
    assert (rows["block RAM: weights"]["b"], rows["block RAM: link"]["a"]) == (0, 0)
    assert notes == ["they differ in tool yosys"]
    text = _run(compare.command, first, second).stdout
    assert "+10.0 %" in text
    assert max(map(len, text.splitlines()[2:])) <= 80
    assert "two models or two builds" in _refused(compare.command, first, "fashion-mnist")
    assert "images go with models" in _refused(compare.command, first, second, "photo.png")
    assert "not JSON" in _refused(compare.command, first, _broken(tmp_path))


def _broken(folder: Path) -> str:
    (folder / "c").mkdir()
    (folder / "c" / "report.json").write_text("{")
    return str(folder / "c")


def test_the_doctor_names_what_is_missing_and_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tool = tmp_path / "make"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "torch" else "1.0")
    found = {entry["name"]: entry for entry in json.loads(_run(doctor.command, "--json").stdout)}
    assert found["make"]["found"] == str(tool)
    assert found["g++"]["found"] is None
    assert found["torch"]["command"] == "pip install 'reverb-fpga[train]'"
    text = _run(doctor.command).stdout
    assert "missing: torch" in text
    assert "missing: yosys, nextpnr-ecp5, ecppack\n" in text
    assert "apt install g++" in text
    assert "missing: make" not in text


def test_what_the_doctor_looks_for_is_what_the_extras_are() -> None:
    """Every package of an extra is looked for, under its extra, and no other."""
    import importlib.metadata
    import re

    wanted: dict[str, set[str]] = {}
    for line in importlib.metadata.requires("reverb-fpga") or []:
        match = re.match(r"([\w-]+)(?!\[).*extra == ['\"](\w+)['\"]", line)
        if match and "[" not in line.partition(";")[0]:
            wanted.setdefault(match[2], set()).add(match[1])
    for extra, (packages, _) in doctor._EXTRAS.items():
        assert set(packages) == wanted[extra], extra


def _complete(words: str, number: int) -> list[str]:
    environment = os.environ | {
        "_REVERB_FPGA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)
    }  # fmt: skip
    code = (
        "import sys; from reverb_fpga.host import cli\n"
        "try: cli.main()\n"
        "finally: print('heavy', *sorted({'torch', 'amaranth', 'bokeh'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["heavy"]
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion() -> None:
    assert _complete("reverb-fpga co", 1) == ["compile", "compare", "completion"]
    assert "cifar10-cnv" in _complete("reverb-fpga report cif", 2)
    assert "--checkpoint" in _complete("reverb-fpga report --ch", 2)
    assert _complete("reverb-fpga --ver", 1) == ["--version"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["completion", shell])
    assert caught.value.code == 0
    script = capsys.readouterr().out
    assert f"_REVERB_FPGA_COMPLETE={shell}_complete" in script
