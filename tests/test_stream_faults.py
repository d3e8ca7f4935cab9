"""Faults of every kind against the link's RTL while it streams: right results in order, or a reported error."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from reverb_fpga.host.bench_transport import BenchTransport
from reverb_fpga.host.driver import Device, Shape
from reverb_fpga.host.faults import Direction, Fault, FaultyTransport, PacketFault, UnrulyTransport
from reverb_fpga.host.session import Timing
from reverb_fpga.host.transport import Transport
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.line import Line
from reverb_fpga.sim.link_bench import INPUT_LENGTH, INPUT_STRIP, LinkBench

CLOCK_HZ = 1_000_000  # of the bench's time; any number does
TIMING = Timing(response=8e-3, per_byte=1e-4, tries=12, hello_tries=12, lost=4.0, run=5.0)  # a byte takes 40 clocks
CLASSES = 10
LONGEST = 20.0  # simulated seconds that a run of images may take, whatever happens


def fnv1a(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def expected(image: NDArray[np.uint8]) -> list[int]:
    """Logits of the bench's core."""
    first = fnv1a(image.tobytes())
    return [((first + k & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000 for k in range(CLASSES)]


class Mishaps(Transport):
    """Pulls the cable, or the power, once in a while."""

    def __init__(self, inner: BenchTransport, rng: random.Random) -> None:
        self.inner, self.name, self._rng = inner, inner.name, rng
        self.rate = 0.0
        self.counts: Counter[str] = Counter()

    def write(self, data: bytes) -> None:
        self.inner.write(data)

    def read(self, timeout: float) -> bytes:
        data = self.inner.read(timeout)
        if self._rng.random() < self.rate:
            kind = self._rng.choice(["unplugged", "reset"])
            self.counts[kind] += 1
            (self.inner.bench.replug if kind == "unplugged" else self.inner.bench.power_cycle)()
        return data

    def clock(self) -> float:
        return self.inner.clock()


@dataclasses.dataclass
class Bombardment:
    """A device behind a line on which everything goes wrong."""

    bench: LinkBench
    seed: int

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.mishaps = Mishaps(BenchTransport(self.bench), self.rng)
        self.packets = UnrulyTransport(self.mishaps, 0.02, self.seed)
        self.bytes = FaultyTransport(self.packets, 0.0, self.seed)
        self.device = Device(self.bytes, TIMING)
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0
        self.clean = False  # nothing but mishaps
        self.mishap_rates = [0, 0, 0.002]

    @property
    def faults(self) -> int:
        return self.bytes.faults + self.packets.faults + self.mishaps.counts.total()

    def quiet(self, on: bool) -> None:
        """A clean line, or a bad one, of a kind of its own each time."""
        rate = 0.0 if on else 1 / self.rng.choice([120, 400, 1500])
        self.bytes.enabled = self.packets.enabled = not on and not self.clean
        self.bytes.rate = dict.fromkeys(Direction, rate)
        self.mishaps.rate = 0.0 if on else self.rng.choice(self.mishap_rates)

    def begin(self, size: int) -> None:
        """A clean line, a new session, a core that takes images of this size."""
        self.quiet(True)
        self.device.connect()
        self.device.reset()
        self.device.write(Region.CSR, INPUT_LENGTH, [size])
        self.device.write(Region.CSR, INPUT_STRIP, [self.rng.choice([0, 1 + size // 5])])

    def images(self) -> NDArray[np.uint8]:
        shape = self.rng.randrange(2, 30), self.rng.choice([1, 20, 60, 150, 400])
        return np.frombuffer(self.rng.randbytes(shape[0] * shape[1]), np.uint8).reshape(shape)

    def run(self) -> None:
        """One run of images: all results right, in order, each once; or an error, and those before it right."""
        images = self.images()
        self.bench.set_compute(self.rng.choice([0, 300, 3000, 20_000]))
        self.begin(images.shape[1])
        attach(self.device, images.shape[1])
        self.quiet(False)
        begin = self.bench.seconds
        try:
            got = 0
            for image, result in zip(images, self.device.stream(images), strict=True):
                assert result.logits.tolist() == expected(image), f"image {got} of {len(images)}"
                got += 1
            self.outcomes["right"] += 1
        except DeviceError:
            self.outcomes["reported"] += 1
        self.outcomes["images"] += got
        self.longest = max(self.longest, self.bench.seconds - begin)


def attach(device: Device, size: int) -> None:
    """As if a program for images of this size had been loaded."""
    device.attach_shape(Shape(size, CLASSES))


@pytest.fixture(scope="module")
def bench() -> Iterator[LinkBench]:
    with LinkBench(preset("tiny"), Line(clock_hz=CLOCK_HZ), seed=7) as link:
        yield link


def bombard(bench: LinkBench, faults: int, seed: int) -> Bombardment:
    bombardment = Bombardment(bench, seed)
    while bombardment.faults < faults:
        bombardment.run()
    return bombardment


def report(done: Bombardment) -> None:
    counts = [*done.bytes.counts.items(), *done.packets.counts.items()]
    for (direction, fault), count in sorted(counts, key=str):
        print(f"  {fault.value:<16} {direction.value:<10} {count}")
    for kind, count in done.mishaps.counts.items():
        print(f"  {kind:<27} {count}")
    print(
        f"{done.faults} faults, {done.outcomes['images']} images in {done.outcomes['right']} runs without and "
        f"{done.outcomes['reported']} runs with a reported error, 0 wrong; longest run {done.longest:.2f} s simulated"
    )


def check(done: Bombardment, faults: int) -> None:
    report(done)
    assert done.outcomes["right"] > done.outcomes["reported"]
    assert done.longest < LONGEST
    for direction in Direction:
        for fault in Fault:
            assert done.bytes.counts[direction, fault] > faults / 100
        for packet in PacketFault:
            assert done.packets.counts[direction, packet] > faults / 2000


def test_faults_never_change_a_result(bench: LinkBench) -> None:
    check(bombard(bench, 3000, seed=1), 3000)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_faults_never_change_a_result(bench: LinkBench) -> None:
    done = bombard(bench, 100_000, seed=2026)
    check(done, 100_000)
    assert min(done.mishaps.counts.values()) > 20


def test_cable_and_power_may_go_at_any_moment(bench: LinkBench) -> None:
    bombardment = Bombardment(bench, 9)
    bombardment.clean, bombardment.mishap_rates = True, [0.02]
    while bombardment.mishaps.counts.total() < 80:
        bombardment.run()
    report(bombardment)
    assert min(bombardment.mishaps.counts.values()) > 20
    assert bombardment.outcomes["images"] > 100


def test_an_image_after_an_aborted_one_is_right(bench: LinkBench) -> None:
    """Streams that end at any moment, by any means; the next image is right, and no result is an earlier image's."""
    rng = random.Random(3)
    for turn in range(500):
        images = np.frombuffer(rng.randbytes(3 * 90), np.uint8).reshape(3, 90)
        bench.set_compute(rng.choice([0, 100, 4000]))
        line = Mortal(bench)
        device = Device(line, TIMING)
        device.connect()
        if turn == 0:
            device.write(Region.CSR, INPUT_LENGTH, [90])
        device.write(Region.CSR, INPUT_STRIP, [rng.choice([0, 0, 7, 30])])  # some take an image a few rows at a time
        attach(device, 90)
        stream = device.stream(images)
        first = next(stream) if rng.random() < 0.5 else None
        if first is not None:
            assert first.logits.tolist() == expected(images[0])
        else:
            half_sent(device, images[0].tobytes(), rng)
        bench.exchange(rng.randbytes(rng.randrange(3)), rng.randrange(1, 6000))
        if rng.random() < 0.5:
            stream.close()
        line.dead = True
        fresh = Device(BenchTransport(bench), TIMING)
        fresh.connect()
        attach(fresh, 90)
        again = list(fresh.stream(images[1:]))
        assert [result.logits.tolist() for result in again] == [expected(image) for image in images[1:]], turn


class Mortal(BenchTransport):
    """The line of a host that may be killed: nothing that it does later reaches the device."""

    dead = False

    def write(self, data: bytes) -> None:
        if self.dead:
            raise DeviceError("killed")
        super().write(data)


def half_sent(device: Device, image: bytes, rng: random.Random) -> None:
    """Begin an image by requests and leave it in the middle."""
    if device.status().state.name in ("INPUT", "RUN", "CHECK"):
        device.reset()
    device.start()
    part = rng.randrange(1, len(image))
    device.feed(image[:part])
