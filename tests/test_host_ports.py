"""Finding boards, at whatever rate; and boards that misbehave in every way: one line each, in bounded time."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import serial
from fake_overlay import FakeOverlay
from pty_board import PtyBoard, Twist

from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli, ports
from reverb_fpga.host.driver import Device
from reverb_fpga.host.framing import FrameDecoder, encode_frame
from reverb_fpga.host.session import Timing
from reverb_fpga.host.transport import SerialTransport
from reverb_fpga.hw import contract
from reverb_fpga.hw.contract import LinkOp, LinkStatus
from reverb_fpga.hw.errors import DeviceError

FT231X = {"vid": 0x0403, "pid": 0x6015, "manufacturer": "FER-RADIONA-EMARD", "product": "ULX3S FPGA 85K v3.0.8"}
HASTY = Timing(response=0.05, per_byte=1e-5, tries=4, hello_tries=3, lost=1.0, run=1.5)
LONGEST = 15.0  # seconds that any misbehaving board may take of HASTY's driver, on a busy machine
NAK = encode_frame(bytes([contract.NAK, 0, LinkStatus.BAD_FRAME]))
RNG = random.Random(3)


def entry(port: str, **changes: object) -> SimpleNamespace:
    return SimpleNamespace(device=port, description="a port", **(FT231X | changes))


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the system says is attached."""
    found: list[SimpleNamespace] = []
    monkeypatch.setattr(ports.list_ports, "comports", lambda: found)
    return found


@pytest.mark.parametrize("baud", [2_000_000, 115_200])
def test_the_rate_is_found(baud: int, attached: list[SimpleNamespace]) -> None:
    with PtyBoard(FakeOverlay(), baud=baud) as board:
        attached.append(entry(board.port))
        with ports.connect(None, None) as (device, identity):
            assert device.transport.name == board.port
            assert isinstance(device.transport, SerialTransport)
            assert device.transport.baud == baud
            assert device.timing == Timing.at(baud)
            assert ports.configuration_name(identity.config_digest) == "tiny"


def test_a_rate_that_is_not_the_boards_is_named() -> None:
    with (
        PtyBoard(FakeOverlay(), baud=1_000_000) as board,
        pytest.raises(DeviceError, match=r"no answer .*250000"),
        ports.connect(board.port, 250_000),
    ):
        pass


def test_only_known_devices_are_spoken_to(attached: list[SimpleNamespace]) -> None:
    silent = FakeOverlay()
    with PtyBoard(silent) as board:
        attached += [
            entry(board.port, product="3D printer"),
            entry(board.port, vid=0x1209, manufacturer="somebody", product="else"),
            entry(board.port, vid=None, pid=None),
        ]
        assert ports.candidates() == []
        with pytest.raises(DeviceError, match="no board found"), ports.connect("auto", None):
            pass
    assert silent.bytes_in == 0


def test_busy_and_absent_are_told_apart(attached: list[SimpleNamespace], tmp_path: Path) -> None:
    with PtyBoard(FakeOverlay()) as board:
        attached += [entry(board.port), entry(str(tmp_path / "gone"))]
        with SerialTransport(board.port, 115_200), pytest.raises(DeviceError) as error, ports.connect(None, None):
            pass
    assert "in use" in str(error.value)
    assert "no such port" in str(error.value)
    assert "\n" not in str(error.value)


def test_boards_are_listed(attached: list[SimpleNamespace], capsys: pytest.CaptureFixture[str]) -> None:
    with PtyBoard(FakeOverlay(), baud=3_000_000) as board:
        attached += [entry(board.port), entry("/dev/none")]
        with pytest.raises(SystemExit) as caught:
            cli.main(["boards", "--json"])
        assert caught.value.code == 0
        first, second = sorted(json.loads(capsys.readouterr().out), key=lambda one: one["error"] is not None)
        assert (first["port"], first["baud"], first["configuration"]) == (board.port, 3_000_000, "tiny")
        assert "no such port" in second["error"]
        with pytest.raises(SystemExit):
            cli.main(["boards"])
        assert "ULX3S FPGA 85K" in capsys.readouterr().out


RAISED = [
    termios.error(22, "Invalid argument"),
    OSError(5, "I/O"),
    ValueError("x"),
    AttributeError("y"),
    struct.error("z"),
]


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_the_serial_library_raises_is_one_line(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    with PtyBoard(FakeOverlay()) as board:
        line = SerialTransport(board.port, 115_200)
        actions: list[Callable[[], object]] = [
            lambda: line.write(b"x"),
            lambda: line.read(0.1),
            lambda: line.set_rate(9600),
        ]
        for name in ("read", "write", "close"):
            monkeypatch.setattr(line._serial, name, fail)
        monkeypatch.setattr(type(line._serial), "in_waiting", property(fail))
        monkeypatch.setattr(type(line._serial), "baudrate", property(lambda _: 1, fail))
        for act in actions:
            with pytest.raises(DeviceError) as error:
                act()
            assert "\n" not in str(error.value)
        line.close()
        monkeypatch.setattr(serial, "Serial", fail)
        with pytest.raises(DeviceError):
            SerialTransport(board.port, 115_200)


# -- boards that misbehave ------------------------------------------------------------------------------------


def frames(data: bytes) -> list[bytes]:
    return [frame for frame in FrameDecoder().feed(data) if frame is not None]


def each(change: Callable[[bytes], bytes]) -> Twist:
    """Change every frame but answers to HELLO."""

    def twist(data: bytes) -> bytes:
        return b"".join(
            encode_frame(frame if frame[0] == LinkOp.HELLO | contract.RESPONSE_BIT else change(frame))
            for frame in frames(data)
        )

    return twist


def every(nth: int) -> Twist:
    """Answer only every so many times."""
    count = 0

    def twist(data: bytes) -> bytes:
        nonlocal count
        count += 1
        return data if count % nth == 0 or count <= 2 else b""

    return twist


def after(frame_count: int, then: Twist) -> Twist:
    count = 0

    def twist(data: bytes) -> bytes:
        nonlocal count
        count += 1
        return data if count <= frame_count else then(data)

    return twist


def report(frame: bytes, **changes: int) -> bytes:
    """A report with other numbers in it."""
    if frame[0] != contract.REPORT:
        return frame
    names = ["opcode", "turn", "status", "epoch", "position", "limit", "first"]
    values = dict(zip(names, struct.unpack_from("<BBBIIII", frame), strict=True))
    for name, change in changes.items():
        values[name] = (values[name] + change) & (0xFF if name in names[:3] else 0xFFFFFFFF)
    return struct.pack("<BBBIIII", *values.values()) + frame[19:]


TWISTS: dict[str, Callable[[], Twist]] = {
    "silence": lambda: lambda _: b"",
    "silence after a while": lambda: after(6, lambda _: b""),
    "garbage": lambda: lambda data: RNG.randbytes(len(data)),
    "garbage after a while": lambda: after(6, lambda data: RNG.randbytes(len(data))),
    "only naks": lambda: lambda _: NAK * 3,
    "naks after a while": lambda: after(6, lambda _: NAK * 3),
    "other sequence numbers": lambda: each(lambda frame: bytes([frame[0], (frame[1] + 1) % 256]) + frame[2:]),
    "no status": lambda: each(lambda frame: frame[:2]),
    "unknown status": lambda: each(lambda frame: frame[:2] + b"\x63" + frame[3:]),
    "every eighth answer": lambda: every(8),
    "every third answer": lambda: every(3),
    "other epoch": lambda: each(lambda frame: report(frame, epoch=1)),
    "credit without end": lambda: each(lambda frame: report(frame, limit=1 << 30)),
    "no credit": lambda: each(lambda frame: report(frame, limit=-2048)),
    "position ahead": lambda: each(lambda frame: report(frame, position=5000, limit=5000)),
    "position behind": lambda: each(lambda frame: report(frame, position=-700)),
    "results from nowhere": lambda: each(lambda frame: report(frame, first=9)),
    "half a report": lambda: each(lambda frame: frame[:11] if frame[0] == contract.REPORT else frame),
    "gaps for ever": lambda: each(lambda frame: report(frame, status=LinkStatus.GAP)),
    "core time-out": lambda: each(lambda frame: report(frame, status=LinkStatus.CORE_TIMEOUT)),
    "stopped for no reason": lambda: each(lambda frame: report(frame, status=77)),
    "short answers": lambda: each(lambda frame: frame[:-1]),
    "long answers": lambda: each(lambda frame: frame + bytes(801)),
}


@pytest.mark.parametrize("name", TWISTS)
def test_a_misbehaving_board_is_one_line_in_bounded_time(name: str, fashion_program: Program) -> None:
    """It may also get by: but then with all results right, and in order."""
    overlay = FakeOverlay()
    overlay.image_bytes = 784
    images = [np.full(784, fill, dtype=np.uint8) for fill in range(12)]
    begin = time.monotonic()
    with (
        PtyBoard(overlay, twist=TWISTS[name]()) as board,
        Device(SerialTransport(board.port, 115_200), HASTY) as device,
    ):
        results, line = None, ""
        try:
            device.connect()
            device.load(fashion_program)
            results = [int(result.logits[0]) for result in device.stream(images)]
        except DeviceError as error:
            line = str(error)
        assert results == [-784 * fill for fill in range(12)] or board.port in line
        assert "\n" not in line
    assert time.monotonic() - begin < LONGEST


@pytest.mark.parametrize(
    "babble", [RNG.randbytes(1024), bytes(1024), b"\x01" * 1024, NAK * 100, encode_frame(bytes([0x83, 1, 0])) * 50]
)
def test_a_flood_is_one_line_in_bounded_time(babble: bytes) -> None:
    begin = time.monotonic()
    with (
        PtyBoard(FakeOverlay(), babble=babble) as board,
        Device(SerialTransport(board.port, 115_200), HASTY) as device,
        pytest.raises(DeviceError, match=r"no answer|takes no bytes|unanswered"),
    ):
        device.connect()
    assert time.monotonic() - begin < LONGEST


@pytest.mark.parametrize("payload", [0, 1, 3, 65535])
def test_a_board_with_odd_frames(payload: int, fashion_program: Program) -> None:
    """A frame that can carry no word is refused; one that could carry more than ours is not filled."""

    def twist(data: bytes) -> bytes:
        out = b""
        for frame in frames(data):
            hello = frame[0] == LinkOp.HELLO | contract.RESPONSE_BIT
            out += encode_frame(frame[:-3] + struct.pack("<HB", payload, 1) if hello else frame)
        return out

    with (
        PtyBoard(FakeOverlay(), twist=twist) as board,
        Device(SerialTransport(board.port, 115_200), HASTY) as device,
    ):
        if payload < 4:
            with pytest.raises(DeviceError, match=f"{payload} bytes, which is nonsense"):
                device.connect()
        else:
            device.connect()
            device.load(fashion_program)


def test_stale_naks_do_not_use_up_the_tries() -> None:
    """Three NAKs of an earlier session arrive first; the answer then counts."""
    sent = 0

    def twist(data: bytes) -> bytes:
        nonlocal sent
        sent += 1
        return NAK * 3 + data if sent == 1 else data

    once = dataclasses.replace(HASTY, hello_tries=1)
    with PtyBoard(FakeOverlay(), twist=twist) as board, Device(SerialTransport(board.port, 115_200), once) as device:
        assert device.connect().max_payload == 1024


# -- the command itself ---------------------------------------------------------------------------------------

FINDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "flood": ({"babble": RNG.randbytes(1024)}, r"no answer from .* bytes came that are none"),
    "silence": ({"twist": lambda _: b""}, r"no answer from .*is the board powered and programmed"),
    "garbage": ({"twist": lambda data: RNG.randbytes(len(data))}, r"no answer from .* bytes came that are none"),
    "silence after HELLO": ({"twist": after(2, lambda _: b"")}, r"no answer from .*is the board"),
    "wrong sequence numbers": ({"twist": TWISTS["other sequence numbers"]()}, r"no answer from .* bytes came that"),
    "results from nowhere": ({"twist": TWISTS["results from nowhere"]()}, r"nothing has got on"),
    "results of another stream": ({"twist": TWISTS["other epoch"]()}, r"stopped answering"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_classify_on_whatever_calls_itself_a_board(
    name: str,
    attached: list[SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that says what is the matter, exit code 1, and soon."""
    monkeypatch.setattr(ports, "_PROBE", dataclasses.replace(HASTY, hello_tries=1))
    monkeypatch.setattr(Timing, "at", classmethod(lambda cls, baud: HASTY))
    manners, expected = FINDINGS[name]
    overlay = FakeOverlay()
    overlay.digest, overlay.image_bytes = bundled.load_model("fashion-mnist").config_digest, 784
    begin = time.monotonic()
    with PtyBoard(overlay, **manners) as board:
        attached.append(entry(board.port))
        with pytest.raises(SystemExit) as caught:
            cli.main(["classify", "--backend", "serial", "--port", "auto", "--limit", "3", "--no-progress"])
    out, err = capsys.readouterr()
    assert caught.value.code == 1
    assert out == ""
    assert re.search(expected, err), err
    assert err.count("\n") == 1
    assert time.monotonic() - begin < LONGEST
