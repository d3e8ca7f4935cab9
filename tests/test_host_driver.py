"""The driver against a device written in Python, and against ports with nothing, or not enough, behind them."""

from __future__ import annotations

import os
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_overlay import FakeOverlay

from reverb_fpga.compiler.program import Program
from reverb_fpga.host.driver import Device
from reverb_fpga.host.faults import FaultyTransport
from reverb_fpga.host.session import Timing
from reverb_fpga.host.transport import SerialTransport
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Csr, Fault, Region
from reverb_fpga.hw.errors import DeviceError, InputError

TINY = preset("tiny")
TIMING = Timing(response=0.5, per_byte=1e-4, tries=4, hello_tries=3, run=5.0)


@pytest.fixture
def overlay() -> FakeOverlay:
    return FakeOverlay()


@pytest.fixture
def device(overlay: FakeOverlay) -> Device:
    device = Device(overlay, TIMING)
    device.connect(TINY.digest)
    return device


def one_line(error: pytest.ExceptionInfo[DeviceError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert error.value.exit_code == 1
    return text


# -- words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_words_of_any_length_are_split_into_frames(device: Device, count: int) -> None:
    words = np.arange(count, dtype=np.uint32) * 0x01010101
    steps: list[tuple[int, int]] = []
    device.write(Region.WEIGHT, 12, words, lambda done, total: steps.append((done, total)))
    assert device.read(Region.WEIGHT, 12, count).tolist() == words.tolist()
    assert [done for done, _ in steps] == [*range(256, count, 256)] + [count] * (count > 0)


def test_a_range_outside_its_region_is_refused(device: Device) -> None:
    with pytest.raises(InputError, match="leave region ACT"):
        device.write(Region.ACT, (1 << contract.OFFSET_BITS) - 1, [1, 2])
    with pytest.raises(InputError, match="leave region ACT"):
        device.read(Region.ACT, -1, 1)


def test_faults_on_the_line_never_change_an_answer(overlay: FakeOverlay) -> None:
    line = FaultyTransport(overlay, rate=0.01, seed=4)
    device = Device(line, Timing(response=0.5, per_byte=1e-4, tries=20, hello_tries=20))
    device.connect()
    for turn in range(300):
        device.write(Region.PARAM, turn, [turn, 0])
        assert device.read(Region.PARAM, turn, 2).tolist() == [turn, 0]
    assert line.faults > 100


# -- programs and images ------------------------------------------------------------------------------------


def test_load_and_infer(overlay: FakeOverlay, device: Device, fashion_program: Program) -> None:
    overlay.image_bytes = 784
    overlay.words[Csr.CYCLES] = 4711
    progress: list[tuple[int, int]] = []
    device.load(fashion_program, lambda done, total: progress.append((done, total)))
    total = sum(len(words) for _, words in fashion_program.sections())
    assert progress[-1] == (total, total)
    for region, words in fashion_program.sections():
        assert device.read(region, 0, len(words)).tolist() == words.tolist()
    for fill in (0, 1, 255):
        result = device.infer(np.full((28, 28), fill, dtype=np.uint8))
        assert (result.logits[0], result.cycles) == (-784 * fill, 4711)
        assert len(result.logits) == 10


def test_a_program_that_is_held_is_not_sent_again(
    overlay: FakeOverlay, device: Device, fashion_program: Program
) -> None:
    device.load(fashion_program)
    overlay.armed = True
    sent = overlay.bytes_in
    device.load(fashion_program)
    assert overlay.bytes_in - sent < 200
    overlay.words[contract.address(Region.DESC, 9)] ^= 1  # another hash
    sent = overlay.bytes_in
    device.load(fashion_program)
    assert overlay.bytes_in - sent > 1000


def test_streamed_images(overlay: FakeOverlay, device: Device, fashion_program: Program) -> None:
    overlay.image_bytes = 784
    overlay.words[Csr.CYCLES] = 4711
    device.load(fashion_program)
    fills = [0, 1, 255, 3, 4, 5, 6, 7]
    now_and_then = [part for fill in fills for part in (np.full(784, fill, dtype=np.uint8), None)]
    results = list(device.stream(now_and_then))
    assert [result.logits[0] for result in results] == [-784 * fill for fill in fills]
    assert {(result.cycles, result.waited) for result in results} == {(4711, 7)}
    assert results[0].logits[1:].tolist() == list(range(1, 10))
    assert device.infer(np.full(784, 2, dtype=np.uint8)).logits[0] == -1568


def test_a_stream_is_given_up_cleanly(overlay: FakeOverlay, device: Device, fashion_program: Program) -> None:
    overlay.image_bytes = 784
    device.load(fashion_program)
    for _ in device.stream(np.full((9, 784), 1, dtype=np.uint8)):
        break
    assert overlay.streaming is None
    with pytest.raises(InputError, match="783 codes"):
        list(device.stream([np.zeros(784, np.uint8), np.zeros(783, np.uint8)]))
    assert [r.logits[0] for r in device.stream([np.ones(784, np.uint8)])] == [-784]


def test_a_fault_in_a_stream_is_reported_with_its_descriptor(
    overlay: FakeOverlay, device: Device, fashion_program: Program
) -> None:
    overlay.image_bytes = 784
    device.load(fashion_program)
    overlay.fault = Fault.WATCHDOG
    with pytest.raises(DeviceError) as error:
        list(device.stream([np.zeros(784, np.uint8)]))
    assert "WATCHDOG at descriptor 3" in one_line(error)


def test_faults_on_the_line_never_change_a_streamed_answer(overlay: FakeOverlay, fashion_program: Program) -> None:
    overlay.image_bytes = 784
    line = FaultyTransport(overlay, rate=5e-4, seed=4)
    device = Device(line, Timing(response=0.5, per_byte=1e-4, tries=20, hello_tries=20, lost=1e9))
    device.connect()
    line.enabled = False
    device.load(fashion_program)
    line.enabled = True
    results = list(device.stream(np.full(784, fill, dtype=np.uint8) for fill in range(200)))
    assert [result.logits[0] for result in results] == [-784 * fill for fill in range(200)]
    assert line.faults > 50


def test_an_image_of_the_wrong_size_is_refused(device: Device, fashion_program: Program) -> None:
    with pytest.raises(DeviceError, match="no program"):
        device.infer(np.zeros(784, np.uint8))
    device.attach(fashion_program)
    with pytest.raises(InputError, match="783 codes of uint8; the program takes 784"):
        device.infer(np.zeros(783, np.uint8))
    with pytest.raises(InputError, match="int64"):
        device.infer(np.zeros(784, np.int64))


def test_a_fault_is_reported_with_its_descriptor(
    overlay: FakeOverlay, device: Device, fashion_program: Program
) -> None:
    overlay.image_bytes = 784
    device.load(fashion_program)
    overlay.fault = Fault.WATCHDOG
    with pytest.raises(DeviceError) as error:
        device.infer(np.zeros(784, np.uint8))
    assert "WATCHDOG at descriptor 3" in one_line(error)


def test_an_image_that_never_ends_is_reported(overlay: FakeOverlay, device: Device, fashion_program: Program) -> None:
    overlay.image_bytes = 785  # one more than comes
    device.load(fashion_program)
    with pytest.raises(DeviceError) as error:
        device.infer(np.zeros(784, np.uint8))
    assert "still in state INPUT" in one_line(error)


# -- what is behind the port --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("magic", 7, "no reverb-fpga overlay"), ("version", 99, "contract version 99"), ("digest", 5, "wanted is")],
)
def test_other_devices_are_refused(overlay: FakeOverlay, field: str, value: int, message: str) -> None:
    setattr(overlay, field, value)
    with pytest.raises(DeviceError) as error:
        Device(overlay, TIMING).connect(TINY.digest)
    assert message in one_line(error)


def test_a_program_for_another_configuration_is_refused(overlay: FakeOverlay, fashion_program: Program) -> None:
    overlay.digest = 5
    device = Device(overlay, TIMING)
    device.connect()
    with pytest.raises(DeviceError) as error:
        device.load(fashion_program)
    assert "compiled for configuration tiny" in one_line(error)


def test_a_device_that_lost_power_refuses_to_go_on(overlay: FakeOverlay, device: Device) -> None:
    overlay.sequence = None
    with pytest.raises(DeviceError) as error:
        device.read(Region.CSR, 0, 1)
    assert "restarted" in one_line(error)
    device.connect()
    device.read(Region.CSR, 0, 1)


def test_a_device_that_falls_silent_is_reported_in_bounded_time(overlay: FakeOverlay, device: Device) -> None:
    overlay.frames_left = 3
    begin = overlay.now
    with pytest.raises(DeviceError) as error:
        device.write(Region.ACT, 0, range(10_000))
    assert "no answer from fake after 4 tries" in one_line(error)
    assert overlay.now - begin < 4


def test_words_without_a_session_are_refused(overlay: FakeOverlay) -> None:
    with pytest.raises(DeviceError, match="not connected"):
        Device(overlay, TIMING).read(Region.CSR, 0, 1)


# -- ports --------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: its master side, and the path of its slave."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def test_no_such_port() -> None:
    with pytest.raises(DeviceError) as error:
        SerialTransport("/dev/ttyNoSuchBoard", 115_200)
    assert "no such port: /dev/ttyNoSuchBoard" in one_line(error)


def test_a_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"x")
    with pytest.raises(DeviceError) as error:
        SerialTransport(str(path), 115_200)
    assert "as a serial port" in one_line(error)


def test_nothing_behind_the_port_is_reported_within_three_seconds(terminal: tuple[int, str]) -> None:
    with Device(SerialTransport(terminal[1], 115_200)) as device:
        begin = time.monotonic()
        with pytest.raises(DeviceError) as error:
            device.connect()
        assert time.monotonic() - begin < 3.5
    assert "no answer" in one_line(error)


def test_an_echo_is_no_device(terminal: tuple[int, str]) -> None:
    """Transmit and receive wires tied together."""
    master, path = terminal

    class Echo(SerialTransport):
        def write(self, data: bytes) -> None:
            os.write(master, data)

    with (
        Device(Echo(path, 115_200), Timing(response=0.1, hello_tries=2)) as device,
        pytest.raises(DeviceError, match="no answer"),
    ):
        device.connect()


def test_a_port_in_use_is_reported(terminal: tuple[int, str]) -> None:
    with SerialTransport(terminal[1], 115_200):
        with pytest.raises(DeviceError) as error:
            SerialTransport(terminal[1], 115_200)
        assert "in use" in one_line(error)


def test_a_port_that_hangs_up_is_reported() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        with Device(SerialTransport(os.ttyname(slave), 115_200)) as device:
            os.close(master)
            with pytest.raises(DeviceError) as error:
                device.connect()
            assert "lost the connection" in one_line(error)
    finally:
        os.close(slave)


@pytest.mark.parametrize(
    ("digest", "words"),
    [
        (
            preset("ulx3s-12f").digest,
            ["configuration ulx3s-12f", "--target ulx3s-12f", "bundled for it: fashion-mnist-12f"],
        ),
        (5, ["a configuration that this version does not have", "program the board again"]),
    ],
)
def test_a_board_of_another_configuration_is_told_by_name(
    overlay: FakeOverlay, fashion_program: Program, digest: int, words: list[str]
) -> None:
    overlay.digest = digest
    device = Device(overlay, TIMING)
    with pytest.raises(DeviceError) as wanted:
        device.connect(TINY.digest)
    device.connect()
    with pytest.raises(DeviceError) as loaded:
        device.load(fashion_program)
    for error in (wanted, loaded):
        text = one_line(error)
        assert "configuration tiny" in text
        assert f"{TINY.digest:016x}" not in text
        for word in words:
            assert word in text
