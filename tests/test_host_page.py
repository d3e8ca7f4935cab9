"""``reverb-fpga report -o``: the figures of the page, and the page in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import look_at
from build_reports import build_report
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from strategies import specs

from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.random_networks import Profile, build
from reverb_fpga.compiler.testing import plain_meta
from reverb_fpga.host import bundled
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.commands import compile as compiling
from reverb_fpga.host.commands.report import command
from reverb_fpga.host.images import over_time, to_codes
from reverb_fpga.host.page.facts import PageFacts, Sources, gather_facts
from reverb_fpga.host.page.memory import memory_over_schedule
from reverb_fpga.host.page.runs import read_runs
from reverb_fpga.host.page.timeline import _union, timeline
from reverb_fpga.host.page.write import page
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden.schedule import decode

pytest.importorskip("bokeh")

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>$$x^2$$ \\(y\\)"
)
MODELS = bundled.ASSETS / "models"


def _pixels(program: Program, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    shape = (program.input.height, program.input.width, program.input.channels)
    return [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(count)]


def _facts(program: Program, sources: Sources, name: str = "image") -> PageFacts:
    return gather_facts(program, config_of(program), _pixels(program, 2), [name, name], sources)


def test_the_timeline_is_that_of_the_cycle_model() -> None:
    program = bundled.load_model("fashion-mnist-t2")
    config = config_of(program)
    codes = over_time(to_codes(_pixels(program, 1), program.input), program)
    found = timeline(program, config, codes, bins=97)
    assert found is not None
    model = CycleModel(program, config)
    strips = model.strips(codes)[0]
    assert found.cycles == model.cycles(codes)[0]
    assert [span.end - span.start for span in found.spans] == [strip.cycles for strip in strips]
    assert found.total[1] == pytest.approx(sum(strip.beats for strip in strips) / found.cycles)
    assert found.busy.shape == (4, 97)
    assert found.busy.mean(axis=1) == pytest.approx(found.total, abs=1e-5)
    assert found.busy.max() <= 1
    for before, after in zip(found.spans, found.spans[1:], strict=False):
        assert before.end < after.start
    assert found.spans[-1].end < found.cycles


def test_a_unit_that_begins_anew_before_it_has_ended_is_busy_once() -> None:
    spans = np.array([[4, 9], [0, 3], [8, 12], [12, 13], [20, 22], [20, 21]])
    np.testing.assert_array_equal(_union(spans), [[0, 3], [4, 13], [20, 22]])
    assert _union(np.zeros((0, 2), dtype=np.int64)).shape == (0, 2)


def test_memory_is_in_use_from_the_first_writing_to_the_last_reading(fashion_program: Program) -> None:
    config = config_of(fashion_program)
    found = memory_over_schedule(fashion_program, decode(fashion_program, config), config)
    assert found.tensors == ("image", "conv")
    strips = len(fashion_program.layers[0].strips)
    slots = -(-4 // config.banks)
    assert found.words[1, -1] == 49 * slots  # the classifier reads all of the first layer's tensor
    assert found.words[0, -1] == 0  # and nothing of the image
    assert found.words[0, 0] == 28 * 28
    assert found.words[1, :strips].tolist() == sorted(found.words[1, :strips].tolist())
    assert found.peak <= found.capacity


@pytest.mark.parametrize("name", ["cifar10-cnv", "fashion-mnist-12f", "cifar10-cnv-t2"])
def test_memory_that_the_schedule_needs_fits(name: str) -> None:
    program = bundled.load_model(name)
    config = config_of(program)
    schedule = decode(program, config)
    found = memory_over_schedule(program, schedule, config)
    assert 0 < found.peak <= config.act_words
    for when, strip in enumerate(schedule.strips):  # what a strip reads and writes is there while it runs
        row = 0 if when == 0 else found.layers.index(strip.fields["layer"]) if strip.fields["spiking"] else None
        if row is not None:
            assert found.words[row, when] > 0


def test_precision_is_what_the_tensors_hold() -> None:
    program = bundled.load_model("fashion-mnist")
    facts = _facts(program, Sources())
    for layer in facts.precision[:-1]:
        assert layer.code_max == 255
        assert 0 < layer.largest <= 255
        assert 0 < layer.fired < 1
        assert sum(layer.codes) == 2 * np.prod(next(at.shape for at in program.layers if at.name == layer.name))
    assert facts.precision[-1].code_max == 0
    assert all(1 < layer.z_bits <= layer.z_width for layer in facts.precision)
    kinds = [layer.legs[-1].kind for layer in facts.layers]
    assert kinds == ["4 bit", "binary", "binary", "binary", "binary", "4 bit"]
    assert [layer.code_bits for layer in facts.layers] == [8] * 5 + [0]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and its program."""
    pytest.importorskip("torch")
    checkpoint = MODELS / "fashion-mnist-small.safetensors"
    program = tmp_path_factory.mktemp("compiled") / "small.rvb"
    done = CliRunner().invoke(compiling.command, [str(checkpoint), "-o", str(program), "--check", "0"])
    assert done.exit_code == 0, done.output
    return checkpoint, program


KINDS = {WeightKind.BINARY: "binary", WeightKind.TERNARY: "ternary", WeightKind.UNIT: "identity"}


@pytest.mark.parametrize("name", ["tiny", "tiny-row"])
@settings(
    max_examples=10, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_figures_of_any_program(name: str, data: st.DataObject) -> None:
    """Shortcuts, gates, several steps, rings, rows: what the page says of them is what they are."""
    case, config = build(data.draw(specs(Profile.EVERYTHING))), preset(name)
    try:
        hints = dataclasses.replace(case.hints, row_mode=config.taps > 1)
        program = lower(case.network, config, plain_meta(case.network), hints)
    except InputError as error:
        assume("too large" not in str(error))
        raise
    facts = gather_facts(program, config, list(case.codes), ["a", "b"], Sources())
    for found, layer in zip(facts.layers, case.network.layers, strict=True):
        if layer.maps:
            own = layer.maps[-1]
            assert KINDS.get(own.kind, f"{own.bits} bit") in [leg.kind for leg in found.legs]
        assert (found.code_bits == 0) == (not layer.spiking)
    strips = CycleModel(program, config).strips(case.codes[:1])[0]
    assert facts.timeline is not None
    cycles = facts.timeline.cycles
    assert facts.timeline.total[1] == pytest.approx(sum(strip.beats for strip in strips) / cycles)
    assert facts.timeline.busy.mean(axis=1) == pytest.approx(facts.timeline.total, abs=1e-4)
    assert all(share <= 1 for share in facts.timeline.total)
    assert [span.end - span.start for span in facts.timeline.spans] == [strip.cycles for strip in strips]
    assert 0 < facts.memory.peak <= facts.memory.capacity
    assert all(layer.z_bits <= layer.z_width for layer in facts.precision)
    text = page(facts)
    assert all(layer.name in text for layer in program.layers)


def test_golden_against_float(compiled: tuple[Path, Path]) -> None:
    from reverb_fpga.host.agreement import agreement, bundled_samples

    checkpoint, file = compiled
    program = bundled.load_model(str(file))
    assert any(info.order for info in program.layers)  # layers are compared channel by channel
    samples = bundled_samples("fashion-mnist", (28, 28, 1), 12)
    assert samples is not None
    pixels = list(np.moveaxis(samples, 1, -1))
    facts = gather_facts(program, config_of(program), pixels, ["x"] * 12, Sources(checkpoint=checkpoint))
    found, wanted = facts.floating, agreement(checkpoint, program, config_of(program), samples)
    assert found is not None
    assert (found.images, found.agree) == (12, wanted.agree)
    assert np.abs(found.wanted - found.found).max() == pytest.approx(wanted.difference, rel=1e-3)
    assert found.same
    assert list(found.signal) == [layer.name for layer in program.layers[:-1]]
    assert all(15 < value < 80 for value in found.signal.values())


def test_a_checkpoint_of_another_network_is_refused(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["cifar10-cnv", "--images", "1", "-o", str(tmp_path / "p.html"), "--checkpoint", str(compiled[0])]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, InputError)
    assert "is not the checkpoint of cifar10-cnv" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_runs_are_read_from_their_logs(tmp_path: Path) -> None:
    log = MODELS / "cifar10-cnv.metrics.jsonl"
    lines = log.read_text().splitlines()
    wrong = json.loads(lines[0]) | {"accuracy": "<b>"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text("\n".join([*lines[:3], json.dumps(wrong), '{"epoch": NaN}', "[" * 9]))
    (curve,) = read_runs(tmp_path)
    assert (curve.name, curve.epochs) == ("a", (1, 2, 3))
    assert curve.accuracy == (44.3, 52.6, 57.9)
    assert read_runs(log)[0].epochs[-1] == 46
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run with a finished epoch"):
        read_runs(tmp_path / "empty")


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    arguments = ["cifar10-cnv", "--images", "1", "--clock", "50", "-o", str(target)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"written: {target}" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    text = target.read_text()
    assert len(text) < 2_000_000
    assert "default-src 'none'" in text
    bare = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)\s*=|url\(|@import", bare)
    for part in ("Accuracy and density", "What each layer costs", "Precision that is left", "conv6", "2,000,000 baud"):
        assert part in bare


def test_machines_get_all_that_the_page_shows(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from reverb_fpga.hw.boards.report import write_report

    model, checkpoint = tmp_path / "small.rvb", MODELS / "fashion-mnist-small.safetensors"
    done = CliRunner().invoke(compiling.command, [str(checkpoint), "-o", str(model), "--target", "ulx3s-25f"])
    assert done.exit_code == 0, done.output
    program = bundled.load_model(str(model))
    digest = f"{program.config_digest:016x}"
    write_report(tmp_path, build_report(config=program.config_name, config_digest=digest))
    arguments = [str(model), "--images", "2", "--checkpoint", str(checkpoint), "--build", str(tmp_path)]
    run = MODELS / "cifar10-cnv.metrics.jsonl"
    done = CliRunner().invoke(command, [*arguments, "--run", str(run), "--json"], catch_exceptions=False)
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    names = {field.name for field in dataclasses.fields(PageFacts)} - {"program", "config", "names", "report", "uses"}
    assert found.keys() >= (names - {"layers", "sources"}) | {"network", "memories", "build", "estimate", "latency"}
    assert not [name for name, value in found.items() if value in (None, []) and name != "estimate"]
    assert found["floating"]["images"] == 2
    assert len(found["floating"]["wanted"]) == 20
    assert found["build"]["fmax_mhz"] == 60
    assert found["timeline"]["total"] == pytest.approx(
        [sum(row) / len(row) for row in found["timeline"]["busy"]], abs=1e-4
    )
    assert found["memory"]["peak"] <= found["memory"]["capacity"]
    assert [layer["name"] for layer in found["network"]] == [layer["name"] for layer in found["layers"]]
    assert {len(found["precision"]), len(found["network"])} == {len(program.layers)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "a.safetensors"], "or --json: give -o PAGE.html"),
        (["--run", "runs"], "or --json: give -o PAGE.html"),
        (["-o", "no/such/folder/page.html"], "no/such/folder"),
        (["-o", "."], "folder"),
        (["-o", "p.html", "--run", "."], "holds no run"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["fashion-mnist", "--images", "1", *arguments])
    assert isinstance(result.exception, InputError), result.output
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_without_bokeh_only_the_page_is_missing(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys; found = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'bokeh' else found(name, *more); "
        "sys.modules |= {'bokeh': None, 'torch': None}; from reverb_fpga.host import cli; cli.main()"
    )
    arguments = [sys.executable, "-c", code, "report", "fashion-mnist", "--images", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    arguments += ["-o", str(tmp_path / "page.html")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3
    assert done.stderr.splitlines() == ["reverb-fpga: error: a page needs bokeh: pip install 'reverb-fpga[report]'"]
    assert not list(tmp_path.iterdir())


def test_a_page_of_hostile_names_in_a_browser(fashion_program: Program, tmp_path: Path) -> None:
    layers = tuple(dataclasses.replace(layer, name=HOSTILE) for layer in fashion_program.layers)
    program = dataclasses.replace(fashion_program, name=HOSTILE, arch=HOSTILE, dataset=HOSTILE, layers=layers)
    (tmp_path / "run'<b>").mkdir()
    (tmp_path / "run'<b>" / "metrics.jsonl").write_text((MODELS / "cifar10-cnv.metrics.jsonl").read_text())
    build = build_report(
        board=HOSTILE, bram_by_use={HOSTILE: 3, HOSTILE + "2": 2}, critical_path=[f"1.00 ns net {HOSTILE}"] * 2
    )
    sources = Sources(build=build, run=tmp_path, clock_mhz=50.0, baud=2_000_000)
    target = tmp_path / "page.html"
    target.write_text(page(_facts(program, sources, HOSTILE)), encoding="utf-8")
    for width in (1280, 400):
        look = look_at(target, width)
        found = json.loads(look.found)
        assert look.errors == []
        assert found["title"] == f"{HOSTILE}: reverb-fpga report"
        assert HOSTILE in found["texts"]
        assert found["canvases"] >= 10
        assert found["width"] <= width
        assert found["height"] > 1000
