"""The verify and simulate commands, with the golden model in the gateware's place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from targets import ModelTarget, Spoil

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import plain_layer, plain_meta
from reverb_fpga.host import cli
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Counter, Region
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.golden import GoldenModel

TINY = preset("tiny")


class Core(ModelTarget):
    """With what the commands ask of a core besides."""

    cycles = 1234
    broken = False

    def load(self, program: Program) -> None:
        super().load(program)
        self.traced: list[Path | None] = []

    def infer(self, data: np.ndarray) -> np.ndarray:
        self.feed(data.tobytes())
        return self.logits()

    def logits(self) -> np.ndarray:
        return GoldenModel(self._model.program, TINY).run(self._codes)[0]

    def counters(self, descriptor: int) -> dict[Counter, int]:
        return {counter: 10 * descriptor + counter for counter in Counter}

    def trace(self, path: Path | None) -> None:
        if path is not None:
            path.write_text("$end\n")
        elif self.broken:
            raise DeviceError("no space")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    three = np.full(3, 100)
    weight = rng.choice([-1, 1], (3, 1, 3, 3))
    layer = plain_layer("only", INPUT, weight, gain=three, bias=three, threshold=three, tau_q=256, spiking=False)
    network = IntNetwork(IntInput(1, 3, 3, np.zeros(1, dtype=np.uint8)), (layer,), 1, True)
    return rvb.save(lower(network, TINY, plain_meta(network)), tmp_path / "model.rvb")


def replace_core(monkeypatch: pytest.MonkeyPatch, spoil: Spoil | None = None) -> None:
    @contextmanager
    def simulated(config: Config, report: Callable[[str], None], waveform: Path | None = None) -> Iterator[Core]:
        yield Core(config, spoil)

    for module in ("verifying", "commands.simulate"):
        monkeypatch.setattr(f"reverb_fpga.host.{module}.simulated_core", simulated)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main([*arguments])
    captured = capsys.readouterr()
    code = exit_.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def test_verify_identical(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path) -> None:
    replace_core(monkeypatch)
    code, out, _ = run(capsys, "verify", str(model), "--images", "2", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["identical"]
    assert (report["images"], report["logits"], report["cycles"]) == (2, 6, [1234, 1234])
    assert len(report["predicted_cycles"]) == 2
    code, out, _ = run(capsys, "verify", str(model))
    assert code == 0
    assert "identical" in out
    assert "1,234 cycles" in out


def test_verify_different(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path) -> None:
    def spoil(region: Region, offset: int, word: int) -> int:
        return word ^ 4 if region is Region.MEMBRANE and offset == 1 else word

    replace_core(monkeypatch, spoil)
    code, out, _ = run(capsys, "verify", str(model))
    assert code == 1
    assert "layer only" in out
    assert "logit 1" in out
    code, out, _ = run(capsys, "verify", str(model), "--json")
    assert code == 1
    assert json.loads(out)["difference"]["place"] == "logit 1"


def test_simulate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    replace_core(monkeypatch)
    wave = tmp_path / "wave.vcd"
    code, out, _ = run(capsys, "simulate", str(model), "-o", str(wave), "--json")
    report = json.loads(out)
    assert code == 0
    assert wave.is_file()
    assert len(report["logits"]) == 3
    assert report["descriptors"][0]["layer"] == "only"
    assert report["descriptors"][0]["cycles"] == 10
    code, out, _ = run(capsys, "simulate", str(model))
    assert "1,234 cycles" in out


def test_a_waveform_that_breaks_off_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    replace_core(monkeypatch)
    (tmp_path / "out").mkdir()
    wave = tmp_path / "out" / "wave.vcd"
    wave.write_text("of an earlier run")
    monkeypatch.setattr(Core, "broken", True)
    assert run(capsys, "simulate", str(model), "-o", str(wave))[0] == 1
    assert wave.read_text() == "of an earlier run"
    monkeypatch.setattr(Core, "broken", False)
    assert run(capsys, "simulate", str(model), "-o", str(wave))[0] == 0
    assert wave.read_text() == "$end\n"
    assert sorted(file.name for file in wave.parent.iterdir()) == ["wave.gtkw", "wave.sucl", "wave.vcd"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--first", "3"], "descriptors 1 to 1"),
        (["--last", "9"], "descriptors 1 to 1"),
        (["-o", "/nowhere/at/all/x.vcd"], "no folder /nowhere/at/all"),
        (["-o", "/dev/null"], "not a regular file"),
    ],
)
def test_simulate_refuses(capsys: pytest.CaptureFixture[str], model: Path, arguments: list[str], message: str) -> None:
    code, _, err = run(capsys, "simulate", str(model), *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
