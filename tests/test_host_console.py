"""Each table at 80 and at 120 columns, and in a pipe: no column is lost or cut, whatever the terminal's width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.report import CompileReport, LayerReport, MapReport, Use
from reverb_fpga.host import console, progress
from reverb_fpga.host.backends import Outcome
from reverb_fpga.host.commands import compile as compile_command
from reverb_fpga.host.commands import info, report, simulate
from reverb_fpga.host.inputs import Item
from reverb_fpga.host.model_report import LayerCost, MapCost, ModelReport
from reverb_fpga.host.results import Run, print_table
from reverb_fpga.hw.boards.report import BuildReport
from reverb_fpga.hw.contract import Counter

LONG = "photographs of a long journey/" * 5 + "last.png"


def classify(program: Program, *, top: int, names: tuple[str, ...] = ("a.png", LONG)) -> None:
    logits = tuple(range(0, 10_000, 1000))
    items = [Item(name, 3, lambda: np.zeros((1, 1, 1), np.uint8)) for name in names]
    print_table(Run(program, "golden", items, [Outcome(logits, None)] * len(items), 1.0), top)


def compiled() -> None:
    mode = {"row_mode": False}
    own = MapReport("features.11", "binary", fan_in=18_432, z_bits=22, passes=8, rows=7_168, gain=1, shift=1, **mode)
    shortcut = MapReport("stem.conv", "unit", fan_in=512, z_bits=9, passes=8, rows=128, gain=1, shift=1, **mode)
    layer = LayerReport(
        name="features.12", shape=(512, 30, 30), maps=(shortcut, own), weight_blocks=112.0, additions=28_901_376,
        strips=15, code_step=0.006754, code_origin="training",
    )  # fmt: skip
    value = CompileReport(
        name="net", target="ulx3s-85f", timesteps_trained=1, timesteps=1, invariance=(), layers=(layer,),
        uses=(Use("activation words per bank", 14_336, 14_336),), block_rams={"weights": 112}, block_rams_available=208,
        notes=("a note",),
    )  # fmt: skip
    compile_command._print(value, Path("net.rvb"))


def model() -> None:
    leg = MapCost(
        kind="gated convolution", source="b12a", dense=28_901_376, additions=14_450_688.0, cycles=118_710.0,
        weight_rows=7168,
    )  # fmt: skip
    layer = LayerCost(
        name="conv2", shape=(512, 30, 30), density=0.201, dense=28_901_376, additions=14_450_688.0, cycles=118_710.0,
        busy=1.0, maps=(leg, leg), weight_blocks=112.0,
    )  # fmt: skip
    value = ModelReport(
        model="cifar10-cnv", target="ulx3s-85f", timesteps=1, images=1, accuracy=87.6, layers=(layer,), additions=1e6,
        joules=1e-5, first_layer_joules=1e-6, cycles=1e5,
    )  # fmt: skip
    report._print_model(value, 50.0)


def built() -> None:
    four = {"lut4": 83_640, "ff": 83_640, "bram": 208, "dsp": 156}
    report.print_report(
        BuildReport(
            board="ulx3s-85f", config="ulx3s-85f", config_digest="0" * 16, additions_per_cycle=512, available=four,
            clock_mhz=50.0, fmax_mhz=59.02, baud=2_000_000, divisor=25, seconds=1380.0, seed=1,
            bram_by_use={"gather.path.weights": 112}, critical_path=["1 ns x", "2 ns y"], tools={"yosys": "1"},
            design_digest="0", **four,
        )
    )  # fmt: skip


def simulated() -> None:
    counters = {counter.name.lower(): 123_456 for counter in Counter}
    simulate._print(
        {
            "model": "m", "input": "i", "cycles": 123_456, "logits": [1, 2], "waveform": "w.vcd",
            "views": {"gtkwave": "w.gtkw", "surfer": "w.sucl"},
            "descriptors": [{"descriptor": 62, "layer": "conv6"} | counters],
        }
    )  # fmt: skip


TABLES: dict[str, tuple[Callable[[Program], None], list[str]]] = {
    "classify": (lambda program: classify(program, top=1), ["label", "confidence", "truth", "image", LONG]),
    "classify --top 10": (lambda program: classify(program, top=10), ["rank", "10", "image", LONG]),
    "compile": (lambda _: compiled(), ["strips", "0.006754", "28,901,376", "512x30x30", "features.12", "+ stem.conv"]),
    "report MODEL": (
        lambda _: model(),
        ["density", "busy", "28,901,376", "118,710", "gated convolution", "of b12a"],
    ),
    "report BUILD": (lambda _: built(), ["83,640", "share", "gather.path.weights", "112"]),
    "simulate": (lambda _: simulated(), ["steal", "123,456"]),
    "info": (lambda _: info._print(info.collect()), ["LFE5U-12F-6BG381C", "XC7A100T-1LCSG324", "openFPGALoader", "T"]),
}


@pytest.fixture
def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fashion_program: Program
) -> Callable[[str, int | None], str]:
    """What a command's table is on a terminal of that width, or in a pipe (None)."""

    def show(name: str, width: int | None) -> str:
        if width is not None:
            monkeypatch.setattr(console, "output", lambda: console.Output(width=width, terminal=True))
            for module in ("compile", "info", "report", "simulate"):
                target = f"reverb_fpga.host.commands.{module}"
                monkeypatch.setattr(
                    f"{target}.{'standard_output' if module == 'compile' else 'output'}", console.output
                )
            monkeypatch.setattr("reverb_fpga.host.results.output", console.output)
        monkeypatch.setenv("COLUMNS", "40")  # only a terminal has a width
        TABLES[name][0](fashion_program)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return show


@pytest.mark.parametrize("width", [80, 120, None])
@pytest.mark.parametrize("name", TABLES)
def test_no_table_loses_anything(name: str, width: int | None, shown: Callable[[str, int | None], str]) -> None:
    text = shown(name, width)
    assert "…" not in text
    for word in TABLES[name][1]:
        assert word in text


@pytest.mark.parametrize("name", [name for name in TABLES if not name.startswith("classify")])
def test_tables_fit_80_columns(name: str, shown: Callable[[str, int | None], str]) -> None:
    assert max(len(line.rstrip()) for line in shown(name, 80).splitlines()) <= 80


def test_a_row_is_a_line_in_a_pipe(shown: Callable[[str, int | None], str]) -> None:
    lines = shown("classify --top 10", None).splitlines()
    assert len(lines) == 1 + 2 * 10 + 1
    for rank, line in enumerate(lines[11:21], start=1):
        assert line.split()[0] == str(rank)
        assert line.rstrip().endswith(LONG)


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], fashion_program: Program) -> None:
    classify(fashion_program, top=1, names=("[red]x[/].png", ":smile:.png"))
    text = capsys.readouterr().out
    assert "[red]x[/].png" in text
    assert ":smile:.png" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_progress_lines_keep_their_times(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the description: it is what gives way."""
    screen = io.StringIO()

    def terminal(**_: object) -> Console:
        return Console(file=screen, force_terminal=True, width=width, legacy_windows=False, color_system=None)

    monkeypatch.setattr(progress, "Console", terminal)
    with progress.bar("doing something that takes many words to say, with [brackets] " * 3, 1000, enabled=True) as done:
        done(7)
        assert isinstance(done._progress, Progress)
        done._progress.refresh()
    with progress.status_line(lambda: "about 20 min left", enabled=True) as line:
        assert line is not None
        line.add_task("placement (stage 3 of 5, 12 min last time): 12.3 % of the cells overlap and more", total=None)
        line.refresh()
    with progress.share("epoch 1/1000", "starting", enabled=True) as show:
        assert show is not None
        show("epoch 900/1000", 899.5, 1000, "loss 0.512, 1289 images/s, held out 91.15 %")
    text = screen.getvalue()
    assert "loss 0.512, 1289 images/s, held out 91.15 %" in text
    assert re.search(r"7/1000 0:00:0\d -:--:--", text)
    assert re.search(r"0:00:0\d about 20 min left", text)
    assert "0:0…" not in text
