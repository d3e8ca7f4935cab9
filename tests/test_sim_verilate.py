"""Verilated executables: built, cached, and refused in one line where a tool is missing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from components import Counter

from reverb_fpga.hw.errors import BuildError, EnvironmentMissing
from reverb_fpga.sim import building, verilate

HARNESS = """
#include <cstdio>
#include "Vtop.h"
int main() {
    VerilatedContext context;
    Vtop top(&context);
    top.rst = 0; top.port_step = STEP;
    for (int i = 0; i < 10; i++) { top.clk = 0; top.eval(); top.clk = 1; top.eval(); }
    printf("%d\\n", int(top.port_count));
    top.final();
    return 0;
}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Not XDG_CACHE_HOME: the WebAssembly tools keep their compiled selves there, a minute's work.
    for module in (verilate, building):
        monkeypatch.setattr(module, "cache_directory", lambda: tmp_path / "cache")
    return tmp_path


def _harness(path: Path, step: int) -> Path:
    path.write_text(HARNESS.replace("STEP", str(step)))
    return path


@pytest.mark.parametrize("trace", [False, True])
def test_builds_runs_and_caches(cache: Path, trace: bool) -> None:
    lines: list[str] = []
    harness = _harness(cache / "main.cpp", 3)
    first = verilate.build_executable(Counter(), "counter", harness, trace=trace, progress=lines.append)
    assert subprocess.run([first], capture_output=True, text=True, check=True).stdout == "30\n"
    assert len(lines) == 2
    assert verilate.build_executable(Counter(), "counter", harness, trace=trace, progress=lines.append) == first
    assert len(lines) == 2
    assert [p.name for p in (cache / "cache/verilated").iterdir()] == [first.parent.name]


def test_a_harness_that_changes_during_the_build(cache: Path) -> None:
    """What lies in the cache is what its name was made of, whatever an editor or a checkout does meanwhile."""
    harness = _harness(cache / "main.cpp", 3)
    first = verilate.build_executable(Counter(), "counter", harness, progress=lambda _: _harness(harness, 5) and None)
    assert subprocess.run([first], capture_output=True, text=True, check=True).stdout == "30\n"
    second = verilate.build_executable(Counter(), "counter", harness)
    assert second != first
    assert subprocess.run([second], capture_output=True, text=True, check=True).stdout == "50\n"


def test_a_harness_that_does_not_compile_is_one_line(cache: Path) -> None:
    harness = cache / "main.cpp"
    harness.write_text('#include "Vtop.h"\nint main() { return nonsense; }\n')
    with pytest.raises(BuildError, match=r"^verilator failed: .*error: .nonsense.*\(log: (.*)\)$") as caught:
        verilate.build_executable(Counter(), "counter", harness)
    assert list((cache / "cache/verilated").iterdir()) == []
    (log,) = (cache / "cache/logs").iterdir()
    assert str(log) in str(caught.value)
    assert "main.cpp" in log.read_text()


@pytest.mark.parametrize("name", ["a blank", "dollar$(x)", "hash#"])
def test_a_cache_whose_name_make_cannot_have(cache: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verilate, "cache_directory", lambda: cache / name)
    executable = verilate.build_executable(Counter(), "counter", _harness(cache / "main.cpp", 3))
    assert subprocess.run([executable], capture_output=True, text=True, check=True).stdout == "30\n"
    assert [p.name for p in (cache / name / "verilated").iterdir()] == [executable.parent.name]


def test_no_place_for_make_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "is_plain", lambda path: False)
    with (
        pytest.raises(EnvironmentMissing, match=r"blanks.*XDG_CACHE_HOME"),
        building.work_directory("x", tmp_path / "a blank"),
    ):
        pytest.fail("a place was found")


def test_verilator_behind_a_name_with_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = tmp_path / "site packages" / "verilator"
    root.mkdir(parents=True)
    for _ in range(2):
        link = verilate._plain_root(root)
        assert building.is_plain(link)
        assert link.resolve() == root
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(EnvironmentMissing, match="in the way"):
        verilate._plain_root(root)


def test_missing_compiler_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "g++" else which(tool))
    with pytest.raises(EnvironmentMissing, match=r"^g\+\+ is not on the PATH"):
        verilate.build_executable(Counter(), "counter", _harness(cache / "main.cpp", 1))


def test_verilog_is_deterministic() -> None:
    text = verilate.to_verilog(Counter())
    assert text == verilate.to_verilog(Counter())
    assert "module top(" in text


class _Store(wiring.Component):
    """Words that nothing writes before they are read."""

    def __init__(self, depth: int, init: list[int]) -> None:
        self.depth, self.init = depth, init
        super().__init__({"step": In(8), "count": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = Memory(shape=16, depth=self.depth, init=self.init)
        read, write = store.read_port(), store.write_port()
        m.d.comb += [read.addr.eq(self.step), read.en.eq(1), self.count.eq(read.data), write.en.eq(0)]
        return m


def test_zeros_of_large_memories_are_not_written_down() -> None:
    large = (1 << 17) // 16
    assert "$meminit" in verilate.to_rtlil(_Store(large - 1, []))
    assert "$meminit" in verilate.to_rtlil(_Store(large, [0, 0, 0, 7]))
    assert "$meminit" not in verilate.to_rtlil(_Store(large, []))


@pytest.mark.slow
@pytest.mark.parametrize(("init", "found"), [([], "0\n"), ([0, 0, 0, 7], "7\n")])
def test_large_memories_start_with_zeros_all_the_same(cache: Path, init: list[int], found: str) -> None:
    harness = cache / "main.cpp"
    harness.write_text(HARNESS.replace("STEP", "3").replace("port_", ""))
    run = verilate.build_executable(_Store((1 << 17) // 16, init), "store", harness)
    assert subprocess.run([run], capture_output=True, text=True, check=True).stdout == found
