"""The command: table of commands, exit codes, one-line errors, quiet pipes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from reverb_fpga.host import cli
from reverb_fpga.hw.errors import BuildError, DeviceError, EnvironmentMissing, InputError

HEAVY = ("torch", "amaranth", "numpy", "PIL", "rich")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reverb_fpga.host.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, click.testing; from reverb_fpga.host.cli import cli;"
        "r = click.testing.CliRunner().invoke(cli, ['--help']); print(r.output);"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in cli.COMMANDS:
        assert f"  {name} " in result.stdout
    assert result.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_exists_and_has_examples(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert isinstance(command, click.Command)
    text = command.get_help(click.Context(command, info_name=name))
    assert "Example" in text
    assert f"reverb-fpga {name}" in text


def test_version() -> None:
    result = _run("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("reverb-fpga, version ")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["classify", "--top", "0"], ["classify", "--nonsense"], ["build"], ["classify", "--backend", "x"]],
)
def test_usage_errors_are_one_line(arguments: list[str]) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("reverb-fpga: error: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a\nb"), 2),
        (DeviceError("gone"), 1),
        (BuildError("no"), 3),
        (EnvironmentMissing("no"), 3),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file", "x"), 2),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: fails)
    with pytest.raises(SystemExit) as caught:
        cli.main(["info"])
    assert caught.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") <= 1


READERS_GONE = {
    "classify": ["classify", "--model"],
    "classify --json": ["classify", "--json", "--model"],
    "report": ["report", "fashion-mnist", "--images", "1"],
    "info": ["info"],
    "info --json": ["info", "--json"],
    "help": ["--help"],
    "help of a command": ["info", "--help"],
    "version": ["--version"],
}


@pytest.mark.parametrize("name", READERS_GONE)
def test_a_reader_that_goes_away_ends_every_command_alike(name: str, fashion_rvb: Path) -> None:
    arguments = READERS_GONE[name]
    command = [sys.executable, "-u", "-m", "reverb_fpga.host.cli", *arguments]
    if arguments[-1] == "--model":
        command.append(str(fashion_rvb))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


def test_no_standard_output_is_told_before_the_work() -> None:
    command = f"{sys.executable} -m reverb_fpga.host.cli"
    done = subprocess.run(["sh", "-c", f"{command} info >&-"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("reverb-fpga: error: standard output is closed")
    assert done.stderr.count("\n") == 1
    done = subprocess.run(["sh", "-c", f"{command} info 2>&-"], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert "ulx3s-85f" in done.stdout
    done = subprocess.run(["sh", "-c", f"{command} nonsense 2>&-"], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["info"], ["--help"], ["report", "fashion-mnist", "--images", "1"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "reverb_fpga.host.cli", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "reverb-fpga: error: system: No space left on device\n"


def test_without_a_command_it_prints_its_help() -> None:
    result = _run()
    text = result.stdout + result.stderr
    assert result.returncode == (2 if result.stderr else 0)  # click 8.2 and later; before
    assert "error" not in text
    assert text.startswith("Usage: reverb-fpga [OPTIONS] COMMAND")
    for name in cli.COMMANDS:
        assert f"\n  {name} " in text


def test_help_is_fast() -> None:
    _run("--help")
    started = time.monotonic()
    _run("--help")
    assert time.monotonic() - started < 5  # typically 0.15 s; machines under test are busy
