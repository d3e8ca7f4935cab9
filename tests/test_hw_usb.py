"""USB at its pins, against a full-speed host: enumeration as CDC-ACM, bulk data both ways, the driver over it."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_stream_faults import attach, expected

import reverb_fpga.sim.link_bench
from reverb_fpga.host.bench_transport import BenchTransport
from reverb_fpga.host.driver import Device
from reverb_fpga.host.session import Timing
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.hw.link.serial import UsbEcho
from reverb_fpga.hw.usb_identity import USB_MANUFACTURER, USB_PRODUCT, USB_PRODUCT_ID, USB_VENDOR_ID
from reverb_fpga.sim.link_bench import INPUT_LENGTH, USB_HZ, UsbLinkBench
from reverb_fpga.sim.verilate import build_executable

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HARNESS = Path(reverb_fpga.sim.link_bench.__file__).parent / "cpp" / "usb_echo_harness.cpp"
TIMING = Timing(response=0.02, per_byte=2e-6, run=1.0)
TINY = preset("tiny")


@pytest.fixture(scope="module")
def bench() -> Iterator[UsbLinkBench]:
    with UsbLinkBench(TINY, hurry=True) as running:
        yield running


def echo(size: int) -> tuple[int, float]:
    """Bytes a second, each way while the other runs, and OUT packets that were refused; none lost, none wrong."""
    executable = build_executable(UsbEcho(), "usb-echo", HARNESS)
    done = subprocess.run([str(executable), str(size), "7"], capture_output=True, text=True, check=True)
    wrong, ticks, damaged, refused = map(int, done.stdout.split())
    assert (wrong, damaged) == (0, 0)
    print(f"{size} bytes both ways: {size / ticks * USB_HZ:,.0f} bytes/s each, {refused} packets refused")
    return refused, size / ticks * USB_HZ


def test_enumerates_as_a_serial_port(bench: UsbLinkBench) -> None:
    device, configuration, manufacturer, product = bench.descriptors()
    assert len(device) == 18
    assert int.from_bytes(device[8:10], "little") == USB_VENDOR_ID
    assert int.from_bytes(device[10:12], "little") == USB_PRODUCT_ID
    assert (manufacturer, product) == (USB_MANUFACTURER, USB_PRODUCT)
    interfaces, endpoints = [], []
    at = 0
    while at < len(configuration):
        kind = configuration[at + 1]
        if kind == 4:
            interfaces.append(tuple(configuration[at + 5 : at + 8]))
        if kind == 5:
            endpoints.append((configuration[at + 2], configuration[at + 3], configuration[at + 4]))
        at += configuration[at]
    assert interfaces == [(2, 2, 1), (10, 0, 0)]  # CDC, ACM; CDC data
    assert endpoints == [(0x83, 3, 64), (0x84, 2, 64), (0x04, 2, 64)]  # interrupt; bulk in, bulk out


@pytest.mark.slow
def test_a_megabyte_both_ways_without_loss() -> None:
    assert echo(1 << 20)[1] > 400_000


def test_the_driver_over_usb(bench: UsbLinkBench) -> None:
    device = Device(BenchTransport(bench), TIMING)
    device.connect(TINY.digest)
    words = [random.Random(5).getrandbits(32) for _ in range(256)]
    device.write(Region.PARAM, 0, words)
    assert device.read(Region.PARAM, 0, 256).tolist() == words
    images = np.frombuffer(random.Random(6).randbytes(12 * 784), np.uint8).reshape(12, 784)
    device.write(Region.CSR, INPUT_LENGTH, [784])
    bench.set_compute(2000)
    attach(device, 784)
    begin = bench.seconds
    results = list(device.stream(images))
    rate = len(images) * 784 / (bench.seconds - begin)
    print(f"{rate:,.0f} bytes of images a second")
    assert [result.logits.tolist() for result in results] == [expected(image) for image in images]
    assert rate > 300_000


def test_a_cable_that_was_pulled_is_reported_and_a_new_session_works(bench: UsbLinkBench) -> None:
    device = Device(BenchTransport(bench), TIMING)
    device.connect()
    device.write(Region.CSR, INPUT_LENGTH, [60])
    attach(device, 60)
    images = np.zeros((40, 60), np.uint8)
    stream = device.stream(images)
    next(stream)
    bench.power_cycle()
    with pytest.raises(DeviceError, match="restarted"):
        list(stream)
    device.connect()
    device.write(Region.CSR, INPUT_LENGTH, [60])
    assert next(device.stream(images[:1])).logits.tolist() == expected(images[0])
