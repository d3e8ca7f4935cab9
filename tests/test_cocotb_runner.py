"""The bench runner itself: sampling, figures, the cache, and that failing, hanging and empty benches are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from components import Counter

from reverb_fpga.sim.bench.model import build_model
from reverb_fpga.sim.bench.runner import BenchFailed, run_bench

HEAD = """
import cocotb
from reverb_fpga.sim.bench.environment import Bench

@cocotb.test()
async def bench(dut):
    bench = Bench(dut)
    await bench.start(100, ["port_step"])
"""
COUNTS = """
    bench.set(port_step=bench.parameters["step"])
    for cycle in range(10):
        await bench.tick()
        assert bench.get("port_count") == cycle * bench.parameters["step"]  # just before the edge
    bench.record(last=bench.get("port_count"))
"""
FAILS = """
    assert bench.get("port_count") == 1, "it is not one"
"""
HANGS = """
    await bench.until("port_count", 1)
"""


def bench(directory: Path, text: str) -> Path:
    path = directory / "bench_counter.py"
    path.write_text(text)
    return path


def test_a_bench_passes_and_its_model_is_cached(tmp_path: Path) -> None:
    outcome = run_bench(Counter(), "counter", bench(tmp_path, HEAD + COUNTS), {"step": 3})
    assert (outcome.tests, outcome.figures["last"]) == (1, 27)
    assert outcome.figures["cycles"] == pytest.approx(15, abs=1)
    assert build_model(Counter(), "counter").cached


@pytest.mark.parametrize("name", ["WAVES", "GUI", "COCOTB_TESTCASE", "COCOTB_LIST_TESTS", "COCOTB_TEST_FILTER"])
def test_the_shell_does_not_steer_a_bench(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    outcome = run_bench(Counter(), "counter", bench(tmp_path, HEAD + COUNTS), {"step": 3})
    assert (outcome.tests, outcome.figures["last"]) == (1, 27)
    assert os.environ[name] == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + FAILS, "it is not one"),
        (HEAD + HANGS, "not done after 100 cycles"),
        ("import nonsense", "No module named 'nonsense'"),
        ("import cocotb", "failed"),
    ],
)
def test_what_goes_wrong_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BenchFailed, match="bench_counter failed") as failure:
        run_bench(Counter(), "counter", bench(tmp_path, text))
    assert message in str(failure.value)
