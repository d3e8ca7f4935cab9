"""The benchmarks' own arithmetic: operations and energy of a model, Welch's test, comparison of runs."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import write_brightness, write_idx

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.passes.reorder import in_first_order, reordered
from reverb_fpga.host import bundled
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.operations import LayerOperations, Operations


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of benchmarks/ as it would be run there."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    names = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - names:
        if name in {
            "accuracy_density",
            "array_model",
            "balance",
            "compare",
            "explore",
            "intnets",
            "lanes",
            "operations",
            "restored",
            "row_mode",
            "runs",
            "synthesis",
        }:
            del sys.modules[name]


def test_operations_are_the_events_times_the_neurons_they_reach(load: Any) -> None:
    operations = load("operations")
    program = bundled.load_model("fashion-mnist")
    found = operations.on_bundled_images(program, 2)
    images = [item.load() for item in gather_items(Selection(limit=2), program)]
    outputs, _ = GoldenModel(program, config_of(program)).run_layers(to_codes(images, program.input))
    # conv2: 3x3 with a border of zeros on 28x28, 64 channels; every position of the border's inside is computed
    live = np.pad((outputs[0][:, 0] > 0).sum(axis=3), ((0, 0), (1, 1), (1, 1)))
    reached = sum(live[:, y : y + 28, x : x + 28].sum() for y in range(3) for x in range(3))
    assert found.layers[1].additions == 64 * reached / 2
    assert found.layers[1].dense == 28 * 28 * 9 * 32 * 64
    assert found.layers[-1].additions == 10 * (outputs[-2] > 0).sum() / 2
    assert all(0 < layer.density < 1 for layer in found.layers[1:])


@pytest.mark.parametrize("in_rows", [True, False])
def test_exploration_counts_the_beats_that_the_program_takes(load: Any, in_rows: bool) -> None:
    """Of every layer of a bundled network that is compiled again, in row mode and in gather mode."""
    explore, rows, array = load("explore"), load("row_mode"), load("array_model")
    program = bundled.load_model("fashion-mnist")
    own, target = config_of(program), preset("ulx3s-85f-row")
    trained = in_first_order(load("intnets").network_of(program, own))  # as it is compiled again
    program = lower(trained, own, program.meta)
    images = [item.load() for item in gather_items(Selection(limit=1), program)]
    codes = to_codes(images, program.input)
    moved = rows.again(program, own, target, codes, in_rows)
    beats = dict.fromkeys((info.name for info in moved.layers), 0)
    for strip in CycleModel(moved, target).strips(codes)[0]:
        layer = moved.descriptor(strip.index)[1]["layer"]
        beats[moved.layers[layer].name] += strip.beats - strip.stolen
    shape = array.Shape(1, 4, 2, 64, neuron_lanes=32, taps=3)
    wide = dataclasses.replace(shape, lanes=192, taps=1)
    works = explore.layer_works(program, own, codes)
    assert [work.name for work in works if work.columns is None] == ["fc1"]
    for work in works:
        in_row_mode = in_rows and work.columns is not None
        counted = array.row_beats(work, shape) if in_row_mode else array.layer_cycles(work, wide).beats
        assert beats[work.name] == counted, work.name


def test_energy_is_counted_as_papers_do(load: Any) -> None:
    operations = load("operations")
    first = LayerOperations(name="conv1", dense=1000, additions=1000.0)
    second = LayerOperations(name="conv2", dense=8000, additions=2000.0)
    found = Operations(model="toy", timesteps=1, images=1, layers=(first, second))
    assert found.additions == 2000
    assert found.energy == pytest.approx(1000 * 12.5e-12 + 2000 * 77e-15)
    assert second.density == 0.25
    assert found.as_dict()["joules"] == found.energy
    assert "25.0" in operations.table(found)


@pytest.mark.parametrize(
    ("one", "two", "p"),
    [
        ((1.0, 2.0, 3.0), (2.0, 3.0, 4.0), 0.287864),  # Student's t with 4 degrees of freedom, t = 1.2247
        ((0.0, 2.0), (3.0, 5.0), 1 - 1.5**0.5 * 3**0.5 / 6.5**0.5),  # 2 degrees: 1 - t / sqrt(t * t + 2), t * t = 4.5
        ((5.0, 5.0), (5.0, 5.0), 1.0),
        ((5.0, 5.0), (6.0, 6.0), 0.0),
    ],
)
def test_welch(load: Any, one: tuple[float, ...], two: tuple[float, ...], p: float) -> None:
    compare = load("compare")
    assert compare.p_value(one, two) == pytest.approx(p, abs=1e-5)
    assert compare.p_value(two, one) == compare.p_value(one, two)


def test_welch_needs_two_of_each(load: Any) -> None:
    compare = load("compare")
    assert math.isnan(compare.p_value((1.0,), (2.0, 3.0)))
    assert math.isnan(compare.deviation((4.0,)))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two classes of 28x28 pictures, one brighter than the other, as idx files."""
    write_brightness(tmp_path, 120, 30)
    return tmp_path


@pytest.mark.parametrize(("kind", "variants"), [("systems", 6), ("bits", 5)])
def test_comparison_trains_once_and_tells_what_differs(
    load: Any, kind: str, variants: int, data_dir: Path, tmp_path: Path
) -> None:
    compare = load("compare")
    arguments = [
        kind, "--dataset", "mnist", "--arch", "scnn5", "--data-dir", str(data_dir), "--out", str(tmp_path / "runs"),
        "--epochs", "1", "--width", "0.125", "--seeds", "2", "--batch-size", "16",
    ]  # fmt: skip
    first = CliRunner().invoke(compare.main, arguments)
    assert first.exit_code == 0, first.output
    value = json.loads((tmp_path / "runs/comparison.json").read_text())
    assert len(value["runs"]) == variants
    pairs = variants * (variants - 1) // 2
    assert len(value["pairs"]) == pairs
    assert (tmp_path / "runs/flips.png").stat().st_size > 1000
    assert all(len(run["accuracies"]) == 2 for run in value["runs"])
    assert first.stdout.count("distinguishable") == pairs
    assert (tmp_path / "runs/comparison.png").stat().st_size > 1000
    again = CliRunner().invoke(compare.main, arguments)
    assert again.stdout == first.stdout
    assert "loss" not in again.stderr
    other = CliRunner().invoke(compare.main, [*arguments, "--lr", "1e-3"])
    assert isinstance(other.exception, InputError)
    assert "other settings (lr)" in str(other.exception)


def test_curve_has_a_point_for_every_target(load: Any, data_dir: Path, tmp_path: Path) -> None:
    curve = load("accuracy_density")
    arguments = [
        "--dataset", "mnist", "--arch", "scnn5", "--data-dir", str(data_dir), "--out", str(tmp_path / "runs"),
        "--epochs", "1", "--width", "0.125", "--batch-size", "16", "--target", "0.2", "--target", "1",
    ]  # fmt: skip
    first = CliRunner().invoke(curve.main, arguments)
    assert first.exit_code == 0, first.output
    points = json.loads((tmp_path / "runs/curve.json").read_text())
    assert [point["target"] for point in points] == [0.2, None]
    settings = json.loads((tmp_path / "runs/target-1/settings.json").read_text())
    assert settings["activity_penalty"] == 0
    assert (tmp_path / "runs/curve.png").stat().st_size > 1000
    assert CliRunner().invoke(curve.main, arguments).stdout == first.stdout
    assert CliRunner().invoke(curve.main, [*arguments, "--target", "0"]).exit_code != 0


def test_a_restored_checkpoint_names_the_classes_of_its_program(load: Any) -> None:
    torch = pytest.importorskip("torch")
    from reverb_fpga.models.image_set import ImageSet

    script = load("restored")
    program, config = bundled.load_model("fashion-mnist"), preset("ulx3s-85f")
    images = np.stack([item.load() for item in gather_items(Selection(limit=100), program)])
    if images.ndim == 3:
        images = images[..., None]
    data = ImageSet(images, np.zeros(len(images), dtype=np.int64), program.labels)
    network = script.restored(program, config, data)
    golden = GoldenModel(program, config).run(to_codes(list(images), program.input)).argmax(axis=1)
    with torch.no_grad():
        found = network(torch.from_numpy(images).permute(0, 3, 1, 2)).argmax(dim=1).numpy()
    assert (found == golden).mean() >= 0.97
    with pytest.raises(InputError, match="2 time steps cannot be restored"):
        script.restored(bundled.load_model("fashion-mnist-t2"), config, data)
    # of a program whose channels were placed the same, in the order in which they were trained
    own = in_first_order(load("intnets").network_of(program, config))
    orders = {layer.name: np.random.default_rng(0).permutation(layer.channels) for layer in own.layers[:-1]}
    other = script.restored(lower(reordered(own, orders), config, program.meta), config, data)
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize("model", ["fashion-mnist", "cifar10-cnv-row"])
def test_a_program_compiled_again_is_the_same(load: Any, model: str) -> None:
    program, script = bundled.load_model(model), load("intnets")
    config = config_of(program)
    again = lower(script.network_of(program, config), config, program.meta)
    for (_, words), (_, others) in zip(program.sections(), again.sections(), strict=True):
        np.testing.assert_array_equal(words, others)
    assert again.layers == program.layers


def test_a_network_with_shortcuts_is_found_in_its_program(load: Any) -> None:
    program = bundled.load_model("resnet20-classic")
    network = load("intnets").network_of(program, config_of(program))
    assert [len(layer.maps) for layer in network.layers] == [len(info.maps) for info in program.layers]
    codes = to_codes([item.load() for item in gather_items(Selection(limit=1), program)], program.input)
    wanted = GoldenModel(program, config_of(program)).run(codes)
    np.testing.assert_array_equal(reference.evaluate(network, codes[:, None]).logits, wanted)


def test_models_are_made_again_with_their_channels_placed(load: Any, tmp_path: Path) -> None:
    program = bundled.load_model("fashion-mnist")
    images = np.stack([item.load() for item in gather_items(Selection(limit=100), program)])[..., 0]
    for stem, part in (("train", images[:80]), ("t10k", images[80:])):
        write_idx(tmp_path, stem, part, np.arange(len(part), dtype=np.uint8) % 10)
    script = load("balance")
    options = ["--data-dir", str(tmp_path), "--images", "2", "-o", str(tmp_path / "out.json")]
    result = CliRunner().invoke(script.main, ["fashion-mnist", *options, "--save", str(tmp_path / "one")])
    assert result.exit_code == 0, result.output
    (outcome,) = json.loads((tmp_path / "out.json").read_text())
    assert outcome["placed"] < 0.97 * outcome["again"]
    saved = tmp_path / "one" / "fashion-mnist.rvb"
    assert [info.name for info in bundled.load_model(str(saved)).layers if info.order] == outcome["layers"]
    # of the file with its channels placed: the same again
    result = CliRunner().invoke(script.main, [str(saved), *options, "--save", str(tmp_path / "two")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "two" / "fashion-mnist.rvb").read_bytes() == saved.read_bytes()


def test_the_page_has_the_builds_over_the_lanes(load: Any) -> None:
    lanes = load("lanes")
    found = lanes.points(lanes.TODAY)
    assert [point["lanes"] for point in found] == [8, 16, 32, 64, 192]
    assert lanes.table(found) in (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    with pytest.raises(InputError, match="no routed builds of nothing"):
        lanes.points(("nothing",))


def test_block_rams_are_exchanged_for_less_wire(load: Any, tmp_path: Path) -> None:
    """Two of three stand where the other's logic is; the third has nothing to gain."""
    sites = {"left": "X40/Y22/EBR0", "right": "X4/Y22/EBR0", "middle": "X22/Y46/EBR0"}
    near = {"left": "X5/Y20/SLICEA", "right": "X41/Y24/SLICEA", "middle": "X22/Y45/SLICEA"}
    cells = {}
    for net, name in enumerate(sites, start=2):
        cells[name] = {"type": "DP16KD", "attributes": {"NEXTPNR_BEL": sites[name]}, "connections": {"DOA0": [net]}}
        cells[f"logic_{name}"] = {
            "type": "TRELLIS_COMB",
            "attributes": {"NEXTPNR_BEL": near[name]},
            "connections": {"A": [net], "B": ["1"]},
        }
    (tmp_path / "placed.json").write_text(json.dumps({"modules": {"top": {"cells": cells}}}))
    module = load("block_ram_sites")
    run = CliRunner().invoke(
        module.main, ["sites", str(tmp_path / "placed.json"), "--improve", "-o", str(tmp_path / "sites.json")]
    )
    assert run.exit_code == 0, run.output
    assert "3 block RAMs, 77 of wire" in run.output
    assert "7 after" in run.output
    found = json.loads((tmp_path / "sites.json").read_text())
    assert found == {**sites, "left": sites["right"], "right": sites["left"]}
