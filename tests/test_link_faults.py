"""10,000 faults against the link's RTL: every request ends in the right answer or a reported error, and is never
executed twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from reverb_fpga.host.bench_transport import BenchTransport
from reverb_fpga.host.driver import Device
from reverb_fpga.host.faults import Direction, Fault, FaultyTransport
from reverb_fpga.host.session import Timing
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Csr, Region, State
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.line import Line
from reverb_fpga.sim.link_bench import INPUT_HASH, INPUT_LENGTH, INPUT_STRIP, SUM, LinkBench

FAULTS = 10_000
CLOCK_HZ = 1_000_000  # of the bench's time; any number does
TIMING = Timing(response=8e-3, per_byte=1e-4, tries=8, hello_tries=8, run=10.0)  # a byte takes 40 clocks
MEMORY_WORDS = 256
REGIONS = [Region.DESC, Region.WEIGHT, Region.ACT, Region.COUNTER]


@pytest.fixture(scope="module")
def bench() -> Iterator[LinkBench]:
    with LinkBench(preset("tiny"), Line(clock_hz=CLOCK_HZ), seed=7) as link:
        yield link


def fnv1a(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


class Shadow:
    """What the device must hold, if all that was promised is kept.

    After a reported error a word may hold the old or the new value; nothing else. It is then read on a clean line.
    """

    def __init__(self, device: Device, line: FaultyTransport, rng: random.Random) -> None:
        self.device, self.line, self.rng = device, line, rng
        self.memory = {(region, offset): 0 for region in REGIONS for offset in range(MEMORY_WORDS)}
        self.sum = 0
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0

    def request(self) -> None:
        """One random request; bounded time, and right or reported."""
        kind = self.rng.choice(["read", "write", "add", "input", "status", "reset"])
        begin = self.line.clock()
        try:
            getattr(self, f"_{kind}")()
            self.outcomes["answered"] += 1
        except DeviceError:
            self.outcomes["reported"] += 1
            self._recover()
        self.longest = max(self.longest, self.line.clock() - begin)

    def _place(self) -> tuple[Region, int, int]:
        count = self.rng.randrange(1, 5)
        return self.rng.choice(REGIONS), self.rng.randrange(MEMORY_WORDS - count), count

    def _read(self) -> None:
        region, offset, count = self._place()
        expected = [self.memory[region, offset + i] for i in range(count)]
        assert self.device.read(region, offset, count).tolist() == expected

    def _write(self) -> None:
        region, offset, count = self._place()
        words = [self.rng.choice([0, self.rng.getrandbits(32)]) for _ in range(count)]
        keys = [(region, offset + i) for i in range(count)]
        try:
            self.device.write(region, offset, words)
        except DeviceError:
            self._recover()
            for key, word in zip(keys, words, strict=True):
                held = int(self.device.read(*key, 1)[0])
                assert held in (self.memory[key], word)
                self.memory[key] = held
            self.line.enabled = True
            raise
        self.memory.update(zip(keys, words, strict=True))

    def _add(self) -> None:
        """A write that shows when it is executed twice."""
        value = self.rng.getrandbits(16)
        once = (self.sum + value) & 0xFFFFFFFF
        try:
            self.device.write(Region.CSR, SUM, [value])
        except DeviceError:
            self._recover()
            held = int(self.device.read(Region.CSR, SUM, 1)[0])
            assert held in (self.sum, once)
            self.sum = held
            self.line.enabled = True
            raise
        self.sum = once
        assert int(self.device.read(Region.CSR, SUM, 1)[0]) == once

    def _input(self) -> None:
        """A short image: every byte is taken once, in order, or an error is reported."""
        image = self.rng.randbytes(self.rng.randrange(1, 40))
        self.device.write(Region.CSR, INPUT_LENGTH, [len(image)])
        self.device.write(Region.CSR, INPUT_STRIP, [self.rng.choice([0, 0, 7])])
        self.device.start()
        self.device.feed(image)
        self.device.wait()
        assert self.device.status().state is State.DONE
        assert self.device.read_register(Csr.INPUT_BYTES) == len(image)
        assert int(self.device.read(Region.CSR, INPUT_HASH, 1)[0]) == fnv1a(image)

    def _status(self) -> None:
        self.device.status()

    def _reset(self) -> None:
        self.device.reset()
        assert self.device.status().state is State.IDLE

    def _recover(self) -> None:
        """A clean line, and a new session."""
        self.line.enabled = False
        self.device.connect()
        self.device.reset()

    def check(self) -> None:
        """Everything, on a clean line."""
        self._recover()
        for region in REGIONS:
            expected = [self.memory[region, offset] for offset in range(MEMORY_WORDS)]
            assert self.device.read(region, 0, MEMORY_WORDS).tolist() == expected
        assert int(self.device.read(Region.CSR, SUM, 1)[0]) == self.sum


def fault_table(line: FaultyTransport) -> str:
    rows = [f"{'fault':<16} {Direction.TO_DEVICE.value:>10} {Direction.TO_HOST.value:>10}"]
    for fault in Fault:
        cells = [line.counts[direction, fault] for direction in Direction]
        rows.append(f"{fault.value:<16} {cells[0]:>10} {cells[1]:>10}")
    return "\n".join(rows)


def bombard(bench: LinkBench, faults: int, seed: int) -> tuple[Shadow, FaultyTransport]:
    line = FaultyTransport(BenchTransport(bench), rate=1 / 45, seed=seed)
    device = Device(line, TIMING)
    shadow = Shadow(device, line, random.Random(seed))
    line.enabled = False
    device.connect()
    device.reset()
    for region in REGIONS:
        device.write(region, 0, [0] * MEMORY_WORDS)
    shadow.sum = int(device.read(Region.CSR, SUM, 1)[0])
    while line.faults < faults:
        line.enabled = True
        shadow.request()
    shadow.check()
    return shadow, line


def report(shadow: Shadow, line: FaultyTransport) -> None:
    print(f"\n{fault_table(line)}")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in shadow.outcomes.items())
    print(f"{line.faults} faults in {shadow.outcomes.total()} operations: {outcomes}, 0 wrong")
    print(f"longest operation {shadow.longest * CLOCK_HZ:.0f} clocks")


def test_faults_end_in_the_right_answer_or_a_reported_error(bench: LinkBench) -> None:
    shadow, line = bombard(bench, FAULTS, seed=2026)
    report(shadow, line)
    for direction in Direction:
        for fault in Fault:
            assert line.counts[direction, fault] > FAULTS / 16
    assert shadow.outcomes["answered"] > 0.9 * shadow.outcomes.total()
    # no request may take longer than its tries; the longest operation makes a few dozen
    assert shadow.longest < 1.0


def test_longest_frames_and_clean_line(bench: LinkBench) -> None:
    device = Device(BenchTransport(bench), TIMING)
    device.connect(preset("tiny").digest)
    rng = random.Random(5)
    words = [rng.choice([0, 1, 0x01010101, 0xFFFFFFFF]) for _ in range(MEMORY_WORDS)]
    device.write(Region.PARAM, 0, words)
    assert device.read(Region.PARAM, 0, MEMORY_WORDS).tolist() == words


def test_garbage_before_the_session_does_not_matter(bench: LinkBench) -> None:
    rng = random.Random(6)
    for _ in range(50):
        bench.exchange(rng.randbytes(rng.randrange(60)), 3000)
        Device(BenchTransport(bench), TIMING).connect()


def test_over_long_frames_are_refused_and_the_next_one_works(bench: LinkBench) -> None:
    device = Device(BenchTransport(bench), TIMING)
    device.connect()
    bench.exchange(b"\0" + b"\xff" * 9000, 400_000)
    device.write(Region.ACT, 3, [42])
    assert device.read(Region.ACT, 3, 1).tolist() == [42]
