"""Images arrive while others compute: clocks in which the array waits, beside a faster line and a slower one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from test_stream_faults import TIMING, attach, expected

from reverb_fpga.host.bench_transport import BenchTransport
from reverb_fpga.host.driver import Device
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.sim.line import Line
from reverb_fpga.sim.link_bench import INPUT_LENGTH, INPUT_STRIP, LinkBench

SIZE = 400  # bytes of an image; several fit the device's ring
LINE = Line(clock_hz=1_000_000)
ON_THE_LINE = SIZE * 10 * LINE.divisor  # clocks that its bytes take, without frames
IMAGES = 16


@pytest.fixture(scope="module")
def bench() -> Iterator[LinkBench]:
    with LinkBench(preset("tiny"), LINE, seed=7, hurry=True) as link:
        yield link


def waited(bench: LinkBench, compute: int, strip: int) -> float:
    """Mean clocks between two images in which the core does not compute; ``compute``: clocks of each strip."""
    images = np.frombuffer(random.Random(compute).randbytes(IMAGES * SIZE), np.uint8).reshape(IMAGES, SIZE)
    device = Device(BenchTransport(bench), TIMING)
    device.connect()
    device.reset()
    device.write(Region.CSR, INPUT_LENGTH, [SIZE])
    device.write(Region.CSR, INPUT_STRIP, [strip])
    bench.set_compute(compute)
    attach(device, SIZE)
    results = list(device.stream(images))
    assert [result.logits.tolist() for result in results] == [expected(image) for image in images]
    return float(np.mean([result.waited for result in results[3:]]))


@pytest.mark.parametrize("strip", [0, 100])
def test_a_line_that_is_faster_than_the_array(bench: LinkBench, strip: int) -> None:
    """The next image is there when one is done: what remains is a byte a clock, the start, and the logits."""
    clocks = waited(bench, 3 * ON_THE_LINE // (SIZE // strip if strip else 1), strip)
    print(f"{clocks:.0f} clocks waited, an image is {ON_THE_LINE} on the line")
    assert clocks < SIZE + ON_THE_LINE / 20


@pytest.mark.parametrize("strip", [0, 100])
def test_a_line_that_is_slower_than_the_array(bench: LinkBench, strip: int) -> None:
    """The array waits for the line's bytes and no longer: computing costs the line no time."""
    compute = ON_THE_LINE // 4
    clocks = waited(bench, compute // (SIZE // strip if strip else 1), strip)
    print(f"{clocks:.0f} clocks waited, an image is {ON_THE_LINE} on the line and computes for {compute}")
    assert clocks + compute == pytest.approx(ON_THE_LINE, rel=0.15)
