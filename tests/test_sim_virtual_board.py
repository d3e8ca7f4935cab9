"""The whole overlay through its UART pins: the host's serial path, unchanged, against gateware in simulation."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import plain_meta, random_codes, random_network
from reverb_fpga.host.driver import Device
from reverb_fpga.host.faults import FaultyTransport
from reverb_fpga.host.session import SIMULATED, Timing
from reverb_fpga.host.transport import SerialTransport
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Csr, Fault, LinkOp, Opcode, Region, State
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.line import Line
from reverb_fpga.sim.virtual_board import VirtualBoard

TINY = preset("tiny")
FAULTS = 1000


@pytest.fixture(scope="module")
def board() -> Iterator[VirtualBoard]:
    with VirtualBoard(TINY) as virtual:
        yield virtual


@pytest.fixture
def device(board: VirtualBoard) -> Iterator[Device]:
    with Device(SerialTransport(board.port, 115_200), SIMULATED) as attached:
        attached.connect(TINY.digest)
        attached.reset()
        yield attached


@functools.cache
def example(seed: int, images: int, hints: Hints | None = None) -> tuple[Program, NDArray[np.uint8], NDArray[np.int64]]:
    """A random program, the bytes of some images, and the golden model's logits."""
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    program = lower(network, TINY, plain_meta(network), hints)
    golden = GoldenModel(program, TINY)
    codes = random_codes(rng, network, images)
    return program, golden.input_bytes(codes), golden.run(codes)


def opcodes(program: Program) -> list[Opcode]:
    return [program.descriptor(index)[0] for index in range(program.n_descriptors)]


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_logits_are_those_of_the_golden_model(device: Device, seed: int) -> None:
    program, images, expected = example(seed, 3)
    device.load(program)
    for image, logits in zip(images, expected, strict=True):
        result = device.infer(image)
        assert result.logits.tolist() == logits.tolist()
        assert result.cycles > 0
    counters = device.counters(program.n_descriptors)
    assert counters[1:-1, 0].all()  # every layer took cycles
    assert device.status().armed


ROWS = Hints(input_rows=1, max_strip_rows=1)  # the image comes a row at a time


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("hints", [None, ROWS])
def test_streamed_logits_are_those_of_the_golden_model(device: Device, seed: int, hints: Hints | None) -> None:
    program, images, expected = example(seed, 12, hints)
    assert (Opcode.INPUT in opcodes(program)) == (hints is not None)
    device.load(program)
    results = list(device.stream(images))
    assert [result.logits.tolist() for result in results] == expected.tolist()
    single = device.infer(images[3])  # and without a stream again
    assert single.logits.tolist() == expected[3].tolist()
    assert single.cycles == results[3].cycles
    assert all(result.waited > 0 for result in results)


def test_a_damaged_program_yields_no_logits(device: Device) -> None:
    program, images, expected = example(0, 1)
    device.load(program)
    device.infer(images[0])
    word = int(device.read(Region.WEIGHT, 0, 1)[0])
    device.write(Region.WEIGHT, 0, [word ^ 1])
    assert not device.status().armed
    with pytest.raises(DeviceError, match="HASH_MISMATCH at descriptor 0"):
        device.infer(images[0])
    device.write(Region.WEIGHT, 0, [word])
    assert device.infer(images[0]).logits.tolist() == expected[0].tolist()


def test_memories_are_closed_and_soft_reset_works_in_the_middle_of_an_image(device: Device) -> None:
    program, images, expected = example(1, 1)
    device.load(program)
    device.start()
    device._wait({State.INPUT})
    device._session.request(LinkOp.INPUT, b"\0\0\0\0" + images[0][:5].tobytes())
    assert device.read_register(Csr.INPUT_BYTES) == 5
    with pytest.raises(DeviceError, match="BUSY"):
        device.write(Region.WEIGHT, 0, [0])
    device.reset()
    assert device.status().state is State.IDLE
    device.start()
    device._wait({State.INPUT})
    assert device.infer(images[0]).logits.tolist() == expected[0].tolist()  # gives that one up by itself


def test_an_image_of_rows_that_is_left_in_the_middle(device: Device) -> None:
    """Reset anywhere in an image that comes a row at a time, by requests and by streams; the next one is right."""
    program, images, expected = example(0, 4, ROWS)
    rng = random.Random(5)
    device.load(program)
    for turn in range(40):
        data = images[turn % 2].tobytes()
        if turn % 4 == 3:
            stream = device.stream(images[:2])
            if rng.random() < 0.5:
                next(stream)
            stream.close()
        else:
            device.start()
            device.feed(data[: rng.randrange(1, len(data) + 1)])
            device._give()  # what the rows that are there have made room for, perhaps
        if turn % 2:
            device.reset()
        number = 2 + turn % 2
        if turn % 3:
            assert device.infer(images[number]).logits.tolist() == expected[number].tolist(), turn
        else:
            results = [result.logits.tolist() for result in device.stream(images[2:])]
            assert results == expected[2:].tolist(), turn


def test_halting_and_going_on(device: Device) -> None:
    program, images, expected = example(1, 1)
    device.load(program)
    device.start(halt_after=1)
    device.feed(images[0].tobytes())
    device.wait()
    status = device.status()
    assert (status.state, status.pc, status.fault) == (State.HALTED, 1, Fault.NONE)
    device.resume()
    device.wait()
    assert device.logits().tolist() == expected[0].tolist()


def test_a_board_behind_a_bridge() -> None:
    """Time that nobody uses does not pass: the bridge's latency timer costs no time of ours."""
    program, images, expected = example(0, 2)
    line = Line(latency_ms=16)
    with VirtualBoard(TINY, line=line) as board, Device(SerialTransport(board.port, 115_200), SIMULATED) as device:
        device.connect(TINY.digest)
        device.load(program)
        for image, logits in zip(images, expected, strict=True):
            assert device.infer(image).logits.tolist() == logits.tolist()


def test_an_idle_board_rests(board: VirtualBoard, device: Device) -> None:
    def cpu_ticks() -> int:
        fields = Path(f"/proc/{board.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    device.status()
    time.sleep(1.0)
    before = cpu_ticks()
    time.sleep(0.5)
    assert cpu_ticks() - before <= 2
    device.status()


def test_a_cable_pulled_in_the_middle_of_an_image_is_one_error() -> None:
    program, images, _ = example(0, 1)

    class Scissors(SerialTransport):
        """Cuts the cable right after the frame with the image was written."""

        def write(self, data: bytes) -> None:
            super().write(data)
            if len(data) > len(images[0]):
                board.unplug()

    with VirtualBoard(TINY) as board, Device(Scissors(board.port, 115_200), SIMULATED) as device:
        device.connect()
        device.write(Region.DESC, 0, program.desc[:16])
        device.attach(program)
        for region, words in program.sections():
            for start in range(0, len(words), 16):  # short frames: the scissors wait for the image
                device.write(region, start, words[start : start + 16])
        begin = time.monotonic()
        with pytest.raises(DeviceError) as error:
            device.infer(images[0])
        assert "lost the connection" in str(error.value)
        assert "\n" not in str(error.value)
        assert time.monotonic() - begin < 10


def test_the_simulation_ends_with_its_parent(board: VirtualBoard) -> None:
    """Even if that is killed without a chance to clean up."""
    script = (
        "import time\nfrom reverb_fpga.hw.config import preset\n"
        "from reverb_fpga.sim.virtual_board import VirtualBoard\n"
        "with VirtualBoard(preset('tiny')) as board:\n    print(board.pid, flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().decode().strip()
        assert child.name.isdigit()
        assert child.exists()
        parent.kill()
    for _ in range(100):
        if not child.exists() or "State:\tZ" in (child / "status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the simulation outlived its parent")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_whole_images_survive_1000_faults(board: VirtualBoard) -> None:
    """Load, stream and compute images over a damaged line: right logits, or a reported error and another try."""
    timing = Timing(response=1.5, per_byte=5e-3, tries=10, hello_tries=10, run=120.0)
    outcomes: Counter[str] = Counter()
    rng = random.Random(11)
    longest = 0.0
    with FaultyTransport(SerialTransport(board.port, 115_200), rate=1 / 700, seed=3, host_rate=1 / 120) as line:
        device = Device(line, timing)
        device.connect()
        loaded = -1
        while line.faults < FAULTS:
            begin = time.monotonic()
            seed = rng.choice([0, 3]) if rng.random() < 0.15 or loaded < 0 else loaded
            program, images, expected = example(seed, 4, ROWS if seed else None)
            chosen = [rng.randrange(4) for _ in range(rng.randrange(1, 9))]
            try:
                if seed != loaded:
                    loaded = -1
                    device.load(program)
                    loaded = seed
                for index, result in zip(chosen, device.stream(images[chosen]), strict=True):
                    assert result.logits.tolist() == expected[index].tolist()
                    outcomes["right"] += 1
                assert device.infer(images[chosen[0]]).logits.tolist() == expected[chosen[0]].tolist()
                outcomes["right"] += 1
            except DeviceError as error:
                print(f"reported: {error}")
                outcomes["reported"] += 1
                loaded = -1
                line.enabled = False
                device.connect()
                line.enabled = True
            longest = max(longest, time.monotonic() - begin)
    print(f"\n{line.faults} faults: {dict(outcomes)}, 0 wrong, longest {longest:.1f} s")
    for (direction, fault), count in sorted(line.counts.items(), key=str):
        print(f"  {direction.value:<10} {fault.value:<16} {count}")
    assert outcomes["right"] > outcomes["reported"]
