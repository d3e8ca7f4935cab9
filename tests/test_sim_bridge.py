"""The manners of a USB-serial bridge in simulated time: latency timer, packets, the line's rate."""

from __future__ import annotations

import pytest

from reverb_fpga.host.bench_transport import BenchTransport
from reverb_fpga.host.driver import Device
from reverb_fpga.host.session import Timing
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.link.uart import BRIDGE_FILL
from reverb_fpga.sim.line import Line
from reverb_fpga.sim.link_bench import LinkBench

BAUD = 2_000_000
TIMING = Timing(response=0.2, per_byte=12 / BAUD)


def seconds_of(latency_ms: float, words: int, fill: int = 0) -> float:
    """Simulated time of one READ, mean of five."""
    line = Line(divisor=25, clock_hz=25 * BAUD, latency_ms=latency_ms)
    with LinkBench(preset("tiny"), line, hurry=True, fill=fill) as bench:
        device = Device(BenchTransport(bench), TIMING)
        device.connect()
        begin = bench.seconds
        for _ in range(5):
            device.read(Region.ACT, 0, words)
        return (bench.seconds - begin) / 5


@pytest.mark.parametrize("latency_ms", [1, 16])
def test_a_short_answer_waits_for_the_latency_timer(latency_ms: float) -> None:
    assert 0.8 * latency_ms < 1e3 * seconds_of(latency_ms, 1) < latency_ms + 1.2


def test_without_a_bridge_only_the_line_takes_time() -> None:
    line_time = (14 + 13) * 10 / BAUD  # request and response, separators and COBS included
    assert line_time < seconds_of(0, 1) < 1.5 * line_time
    assert seconds_of(0, 256) > 1024 * 10 / BAUD


def test_full_packets_do_not_wait() -> None:
    """A long answer takes the line's time and then one timer for its end, not one timer per packet."""
    assert seconds_of(16, 256) < 0.016 + 1.2 * 1100 * 10 / BAUD + 0.002


@pytest.mark.parametrize("latency_ms", [1, 16])
def test_zeros_behind_an_answer_fill_the_packet(latency_ms: float) -> None:
    """No answer waits for the timer; a frame of USB passes until the request has left the host."""
    assert seconds_of(latency_ms, 1, BRIDGE_FILL) < 0.0015
