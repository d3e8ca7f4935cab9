"""Children and temporary folders end with their work: by signals, by exceptions, and when the first signal is lost."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reverb_fpga.hw import processes

ROOT = Path(__file__).parent.parent
FAMILY = ["sh", "-c", "sleep 300 & echo $! > child; echo $$ > leader; wait"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

BUILD = """
import sys
sys.path.insert(0, {tests!r})
from test_hw_boards import Echo
from reverb_fpga.host import cli
from reverb_fpga.host.commands import build
from reverb_fpga.hw.boards import tools
build._core = lambda *_: Echo()
tools._CALLS["yosys"] = "f = lambda a: __import__('subprocess').call({family!r}, cwd={place!r})"
cli.main(["build", "--board", "ulx3s-12f", "-o", {place!r}, "--no-cache"])
"""
VERILATOR = """
from pathlib import Path
import sys
sys.path.insert(0, {tests!r})
from components import Counter
from reverb_fpga.host import cli
from reverb_fpga.hw import interrupts
from reverb_fpga.sim import building, verilate
import click
verilate._yosys = lambda folder: None
verilate.cache_directory = building.cache_directory = lambda: Path({place!r}) / "cache"
tool = Path({place!r}) / "verilator"
tool.write_text("#!/bin/sh\\ncd {place}\\n" + {family!r}[2])
tool.chmod(0o755)
verilate.verilator_environment = lambda: (tool, None)
@click.command()
def command():
    verilate.build_executable(Counter(), "counter", Path({place!r}) / "verilator")
cli.run(command, "fake", [])
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _await(path: Path, process: subprocess.Popen[str]) -> int:
    for _ in range(1200):
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        if process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()}")
        time.sleep(0.05)
    pytest.fail(f"{path} never came")


def _script(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("script", [BUILD, VERILATOR], ids=["build", "verilator"])
def test_a_signal_ends_every_child_and_leaves_no_folder(tmp_path: Path, number: signal.Signals, script: str) -> None:
    code = script.format(tests=str(ROOT / "tests"), family=FAMILY, place=str(tmp_path))
    process = _script(code)
    pids = [_await(tmp_path / name, process) for name in ("child", "leader")]
    assert all(map(_alive, pids))
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == CODES[number], errors
    assert "Traceback" not in errors
    assert not any(map(_alive, pids))
    assert not list(tmp_path.rglob(".*"))
    if script is BUILD:
        line = errors.strip().splitlines()[-1]
        assert line.startswith("reverb-fpga: error: stopped in synthesis")
        assert "no bitstream" in line


def test_an_exception_ends_the_group(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        with processes.running(FAMILY, cwd=tmp_path) as process:
            pids.extend(_await(tmp_path / name, process) for name in ("child", "leader"))
            assert os.getpgid(pids[0]) == process.pid != os.getpgid(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(pids) == 2
    assert not any(map(_alive, pids))


def test_what_a_child_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    done = processes.run(["sh", "-c", "sleep 300 & echo $! > child; exit 3"], cwd=tmp_path)
    assert done.returncode == 3
    assert not _alive(int((tmp_path / "child").read_text()))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_a_child_that_leads_no_group_ends_too(patience: float) -> None:
    """It waits for its standard input, as a simulation does: to wait for it without ending it would hang."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # in the group of this process
    processes.end(child, patience)
    assert child.returncode in (-signal.SIGTERM, -signal.SIGKILL)


def test_patience_lets_a_child_finish(tmp_path: Path) -> None:
    command = ["sh", "-c", "trap 'echo done > end; exit 0' TERM; echo 1 > ready; while :; do sleep 0.05; done"]
    with processes.running(command, cwd=tmp_path, patience=10) as process:
        _await(tmp_path / "ready", process)
    assert (tmp_path / "end").read_text() == "done\n"


def test_scratch_folders_go_whatever_happens(tmp_path: Path) -> None:
    def fail() -> None:
        with processes.scratch(".x-", tmp_path) as folder:
            (folder / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


HEAD = """
import os, signal, sys, time, weakref
from pathlib import Path
from reverb_fpga.hw import interrupts, processes
"""
LOST = {
    "in a weakref callback": """
class Thing: pass
thing = Thing()
with interrupts.unwinding():
    watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    try:
        del thing
        print("lost", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("found")
""",
    "by code that catches everything": """
with interrupts.unwinding():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        print("lost", flush=True)
    try:
        for batch in range(10):
            interrupts.check()
    except KeyboardInterrupt:
        print("found")
""",
}


def _run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("how", LOST)
def test_a_lost_interrupt_comes_back(how: str) -> None:
    done = _run(LOST[how])
    assert (done.stdout, done.stderr) == ("lost\nfound\n", "")


def test_a_second_signal_forces(tmp_path: Path) -> None:
    """The first one is stuck in a cleanup; the second ends the process, its children and its folders."""
    code = f"""
with interrupts.unwinding(), processes.scratch(".stuck-", Path({str(tmp_path)!r})):
    try:  # its files may be there before it has returned
        process = processes.start({FAMILY!r}, cwd={str(tmp_path)!r})
        time.sleep(60)
    finally:
        Path({str(tmp_path / "stuck")!r}).write_text("1")
        while True: time.sleep(0.01)
"""
    process = _script(HEAD + code)
    pids = [_await(tmp_path / name, process) for name in ("child", "leader")]
    process.send_signal(signal.SIGTERM)
    _await(tmp_path / "stuck", process)
    process.send_signal(signal.SIGTERM)  # at once: the same wish, sent to the process and to its group
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143
    time.sleep(0.1)
    assert not any(map(_alive, pids))
    assert not list(tmp_path.glob(".stuck-*"))


def _await_end(*pids: int) -> None:
    for _ in range(600):  # half a minute: what ends them competes for a processor that may be busy
        if not any(map(_alive, pids)):
            return
        time.sleep(0.05)
    pytest.fail(f"still alive: {[pid for pid in pids if _alive(pid)]}")


@pytest.mark.parametrize("script", [BUILD, VERILATOR], ids=["build", "verilator"])
def test_a_killed_command_leaves_no_child(tmp_path: Path, script: str) -> None:
    process = _script(script.format(tests=str(ROOT / "tests"), family=FAMILY, place=str(tmp_path)))
    pids = [_await(tmp_path / name, process) for name in ("child", "leader")]
    process.kill()
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    _await_end(*pids)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_guard_forgets_groups_that_ended_and_is_replaced_when_lost(tmp_path: Path) -> None:
    """Of a hundred groups one lives; the guard is killed before it is told of a last one."""
    code = f"""
first = processes.start({FAMILY!r}, cwd={str(tmp_path)!r})
guard = processes._guard._shell
for _ in range(100):
    processes.run(["true"])
stranger = __import__("subprocess").Popen(["sleep", "300"], process_group=0, stdout=-3, stderr=-3)
guard.kill()
guard.wait()
second = processes.start(["sleep", "300"], stdout=-3, stderr=-3)
print(first.pid, second.pid, stranger.pid, processes._guard._shell.pid, flush=True)
time.sleep(60)
"""
    process = _script(HEAD + code)
    assert process.stdout is not None
    first, second, stranger, guard = map(int, process.stdout.readline().split())
    child = _await(tmp_path / "child", process)
    try:
        assert set(_children(process.pid)) == {first, second, stranger, guard}
        process.kill()
        process.wait(timeout=10)
        _await_end(first, child, second, guard)
        assert _alive(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)


def test_a_command_that_ends_takes_its_guard_along() -> None:
    done = _run('processes.run(["true"]); print(processes._guard._shell.pid)')
    assert done.returncode == 0
    _await_end(int(done.stdout))


def test_signals_that_are_ignored_stay_ignored() -> None:
    code = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with interrupts.unwinding():
    os.kill(os.getpid(), signal.SIGHUP)
    print(interrupts.arrived())
"""
    done = _run(code)
    assert (done.returncode, done.stdout) == (0, "None\n")


def test_held_signals_come_at_the_end_of_the_block() -> None:
    code = """
with interrupts.unwinding():
    try:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            print("whole")
        print("not reached")
    except interrupts.Terminated:
        print("then")
"""
    done = _run(code)
    assert done.stdout == "whole\nthen\n"


FORBIDDEN = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "posix_spawn", "spawnv", "execv"},
    "tempfile": {"mkdtemp", "TemporaryDirectory"},
    "multiprocessing": {"Process", "Pool"},
}


def _calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            name = called.value.id
            if called.attr in FORBIDDEN.get(name, ()):
                yield f"{path.relative_to(ROOT)}: {name}.{called.attr}"
        modules = ("multiprocessing", "concurrent.futures")
        threads = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} == {"ThreadPoolExecutor"}
        if isinstance(node, ast.ImportFrom) and node.module in modules and not threads:  # they end with their process
            yield f"{path.relative_to(ROOT)}: {node.module}"


def test_nothing_else_starts_processes_or_makes_folders() -> None:
    files = [
        path
        for room in ("models", "compiler", "hw", "sim", "host", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
    ]
    found = [call for path in files for call in _calls(path)]
    assert found
    assert {call.partition(":")[0] for call in found} == {"hw/processes.py"}
