"""``reverb-fpga report`` of networks with shortcuts and gates: every leg is told, and the legs add up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from reverb_fpga.compiler.pipeline import compile_network  # noqa: E402
from reverb_fpga.compiler.program import Program  # noqa: E402
from reverb_fpga.compiler.rvb import save  # noqa: E402
from reverb_fpga.host.commands.report import command  # noqa: E402
from reverb_fpga.host.model_report import ModelReport, measure  # noqa: E402
from reverb_fpga.hw.config import Config, preset  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import InputSpec  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402
from reverb_fpga.models.zoo import DatasetSpec, Options, describe  # noqa: E402
from reverb_fpga.sim.cycles import CycleModel  # noqa: E402

SOURCE = InputSpec(3, 16, 16, (120, 100, 90), (60.0, 55.0, 70.0))
LARGE = preset("large")


def _compiled(options: Options) -> tuple[Program, Network]:
    spec = describe("resnet20-classic", DatasetSpec("random", SOURCE, tuple("abcde")), options)
    network = randomise(Network(spec), 3)
    state = network.state_dict()
    checkpoint = Checkpoint(spec, {name: state[name].numpy() for name in spec.tensor_shapes()})
    return compile_network(checkpoint, LARGE).program, network


def _measured(program: Program, config: Config = LARGE) -> ModelReport:
    codes = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    report = measure(program, config, codes)
    strips = [strip for image in CycleModel(program, config).strips(codes[:, None]) for strip in image]
    assert sum(layer.cycles or 0 for layer in report.layers) == pytest.approx(sum(s.cycles for s in strips) / 2)
    for layer in report.layers:
        assert sum(leg.cycles or 0 for leg in layer.maps) == pytest.approx(layer.cycles)
        assert sum(leg.additions for leg in layer.maps) == pytest.approx(layer.additions)
        assert sum(leg.dense for leg in layer.maps) == layer.dense
    rows = sum(leg.weight_rows for layer in report.layers for leg in layer.maps)
    assert rows == len(program.weight) // (config.banks * config.weight_words)
    return report


def test_shortcuts_are_told() -> None:
    program, _ = _compiled(Options(system="reverb", width=0.5))
    found = {layer.name: [(leg.kind, leg.source) for leg in layer.maps] for layer in _measured(program).layers}
    assert found["conv1"] == [("convolution", "image")]
    assert found["b11b"] == [("identity shortcut", "conv1"), ("convolution", "b11a")]
    assert found["b21b"] == [("conv. shortcut", "b13b"), ("convolution", "b21a")]
    assert found["fc1"] == [("linear", "b33b")]


def test_what_gates_cost_is_told(tmp_path: Path) -> None:
    options = Options(system="agmm-bsnn", width=0.5, timesteps=2, v_th=0.5)
    program, _ = _compiled(options)
    report = _measured(program)
    legs = {layer.name: layer.maps for layer in report.layers}["b11a"]
    assert [leg.kind for leg in legs] == [
        "sums of the gate", "sigmoid of gate", "gated convolution", "identity shortcut"
    ]  # fmt: skip
    sums, sigmoid, gated, _ = legs
    assert sums.additions == gated.additions > 0 == sigmoid.additions
    assert sums.weight_rows > 0
    assert gated.weight_rows == 0
    assert (sums.cycles or 0) > (sigmoid.cycles or 0)


def test_the_table_shows_them(tmp_path: Path) -> None:
    program, _ = _compiled(Options(system="reverb", width=0.5))
    path = save(dataclasses.replace(program, dataset="random"), tmp_path / "net.rvb")
    picture = tmp_path / "picture.npy"
    np.save(picture, np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    result = CliRunner().invoke(command, [str(path), str(picture)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for text in ("identity shortcut", "of conv1", "conv. shortcut", "of b13b", "block RAM of the overlay"):
        assert text in result.stdout
