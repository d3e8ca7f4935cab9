"""``classify`` on the simulated gateware: the same logits, and what happens when the line is bad."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reverb_fpga.host import cli
from reverb_fpga.hw.config import preset
from reverb_fpga.sim.virtual_board import VirtualBoard

LIMIT = ["--limit", "3", "--json"]


@pytest.fixture(scope="module")
def board() -> Iterator[VirtualBoard]:
    """A virtual board of the tiny configuration."""
    with VirtualBoard(preset("tiny")) as running:
        yield running


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["classify", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


def _line(result: tuple[int, str, str], *parts: str) -> None:
    code, out, err = result
    assert code == 1
    assert out == ""
    assert err.startswith("reverb-fpga: error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_three_backends_give_identical_logits(
    capsys: pytest.CaptureFixture[str], fashion_rvb: Path, board: VirtualBoard
) -> None:
    answers = {}
    for backend in (["golden"], ["rtl"], ["serial", "--port", board.port, "--baud", "2000000"]):
        code, out, err = _run(capsys, "--model", fashion_rvb, *LIMIT, "--backend", *backend)
        assert (code, err) == (0, "")
        answers[backend[0]] = json.loads(out)
    assert answers["golden"]["results"] == answers["rtl"]["results"] == answers["serial"]["results"]
    assert answers["golden"]["cycles"] is None
    assert len(answers["rtl"]["cycles"]) == 3
    assert all(cycles > 0 for cycles in answers["rtl"]["cycles"])


def test_no_such_port(capsys: pytest.CaptureFixture[str], fashion_rvb: Path) -> None:
    _line(
        _run(capsys, "--model", fashion_rvb, "--backend", "serial", "--port", "/dev/none"), "no such port", "/dev/none"
    )


def test_the_port_option_and_the_backend_go_together(capsys: pytest.CaptureFixture[str], fashion_rvb: Path) -> None:
    _line(_run(capsys, "--model", fashion_rvb, "--backend", "serial"), "no board found", "--port")
    code, _, err = _run(capsys, "--model", fashion_rvb, "--port", "/dev/none")
    assert code == 2
    assert "--backend serial" in err


def test_a_port_with_nothing_behind_it(capsys: pytest.CaptureFixture[str], fashion_rvb: Path) -> None:
    master, terminal = os.openpty()
    try:
        started = time.monotonic()
        result = _run(capsys, "--model", fashion_rvb, "--backend", "serial", "--port", os.ttyname(terminal))
        _line(result, "no answer")
        assert time.monotonic() - started < 30
    finally:
        os.close(master)
        os.close(terminal)


def test_a_cable_pulled_in_the_middle(capsys: pytest.CaptureFixture[str], fashion_rvb: Path) -> None:
    with VirtualBoard(preset("tiny")) as board:
        timer = threading.Timer(0.5, board.unplug)
        timer.start()
        _line(_run(capsys, "--model", fashion_rvb, "--json", "--backend", "serial", "--port", board.port), board.port)
        timer.join()


def test_a_board_of_another_configuration(
    capsys: pytest.CaptureFixture[str], fashion_rvb: Path, board: VirtualBoard
) -> None:
    import dataclasses

    from reverb_fpga.host.driver import Device
    from reverb_fpga.host.transport import SerialTransport
    from reverb_fpga.hw.errors import DeviceError

    other = dataclasses.replace(preset("tiny"), max_timesteps=4)
    with Device(SerialTransport(board.port, 115_200)) as device, pytest.raises(DeviceError, match="configuration"):
        device.connect(other.digest)
