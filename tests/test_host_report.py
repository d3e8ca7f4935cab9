"""``reverb-fpga report`` of a compiled model."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reverb_fpga.host import bundled
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.commands.report import command
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.hw.boards.report import BuildReport
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel


def _report(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_figures_are_those_of_the_models() -> None:
    value = _report("fashion-mnist", "--images", "3")
    program = bundled.load_model("fashion-mnist")
    codes = to_codes([item.load() for item in gather_items(Selection(limit=3), program)], program.input)
    assert value["cycles"] == pytest.approx(sum(CycleModel(program, config_of(program)).cycles(codes)) / 3)
    outputs, _ = GoldenModel(program, config_of(program)).run_layers(codes)
    last = value["layers"][-1]
    assert last["additions"] == pytest.approx(10 * (outputs[-2] > 0).sum() / 3)
    assert last["density"] == pytest.approx((outputs[-2] > 0).mean())
    assert value["additions"] == pytest.approx(sum(layer["additions"] for layer in value["layers"][1:]))
    assert sum(layer["cycles"] for layer in value["layers"]) < value["cycles"]
    assert all(0 < layer["busy"] <= 1 for layer in value["layers"])
    assert value["images_per_second"] is None


def test_table_names_every_layer() -> None:
    result = CliRunner().invoke(command, ["fashion-mnist-t2", "--images", "1"], catch_exceptions=False)
    for text in ("conv1", "conv5", "128x5x5", "cycles an image", "T = 2", "no measurement"):
        assert text in result.stdout


def test_without_the_gateware_only_cycles_are_missing() -> None:
    code = "import sys; sys.modules |= {'amaranth': None, 'torch': None}; from reverb_fpga.host import cli; cli.main()"
    arguments = [sys.executable, "-c", code, "report", "fashion-mnist", "--images", "1", "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    text = subprocess.run(arguments[:-1], capture_output=True, text=True, check=False, timeout=120).stdout
    assert "pip install 'reverb-fpga[hw]'" in text
    assert value["cycles"] is None
    assert value["layers"][1]["cycles"] is None
    assert value["additions"] > 0


@pytest.mark.parametrize("more", [["photo.png"], ["--images", "3"], ["--build", "."]])
def test_images_do_not_go_with_a_build(more: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path), *more])
    assert isinstance(result.exception, InputError)
    assert "go with a model" in str(result.exception)


def test_images_per_second_are_those_of_a_build_that_runs_the_model(tmp_path: Path) -> None:
    fields = {field.name: field.type for field in dataclasses.fields(BuildReport)}
    empty = {"str": "", "int": 1, "float": 50.0, "dict[str, int]": {}, "dict[str, str]": {}, "list[str]": []}
    values = {name: empty[str(kind)] for name, kind in fields.items()}
    values["available"] = {"lut4": 83_640, "ff": 83_640, "bram": 208, "dsp": 156}
    digest = f"{bundled.load_model('fashion-mnist').config_digest:016x}"
    (tmp_path / "report.json").write_text(json.dumps(values | {"config_digest": digest}))
    value = _report("fashion-mnist", "--images", "1", "--build", str(tmp_path))
    assert value["images_per_second"] == pytest.approx(50e6 / value["cycles"])
    (tmp_path / "report.json").write_text(json.dumps(values | {"config_digest": "0" * 16, "config": "other"}))
    result = CliRunner().invoke(command, ["fashion-mnist", "--build", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "a build of other" in str(result.exception)


def test_a_bundled_model_comes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fashion-mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _report("fashion-mnist", "--images", "1")["model"] == "fashion-mnist"
