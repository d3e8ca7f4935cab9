"""What the link makes of the array: images a second over a UART with a USB-serial bridge, in simulated time.

    python benchmarks/link.py --out out/link

Simulated is the RTL of the link at the pins of its UART, with the bridge's packets and latency timer (sim/cpp/bridge.h)
between it and the driver that the host uses with a board. The core behind the link is behavioural: it takes a byte a
clock and computes for as many clocks as the cycle model, which equals the RTL, says of that model's images; its logits
are a hash of the image, and every one is compared. The host takes no time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.bench_transport import BenchTransport
from reverb_fpga.host.driver import Device, Inference
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.host.session import Timing
from reverb_fpga.hw.boards.table import board
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.line import Line
from reverb_fpga.sim.link_bench import INPUT_LENGTH, LinkBench

MODELS = ("fashion-mnist", "cifar10-cnv")
CLOCK_HZ = 50_000_000
BAUD = 2_000_000
LATENCIES_MS = (16, 1, 0)
TIMING = Timing(response=0.2, per_byte=12 / BAUD, tries=8, run=5.0)
RING = board("ulx3s-85f").ring
OVERLAP_MODEL = "fashion-mnist-t2"
OVERLAP_DIVISORS = (CLOCK_HZ // BAUD, 4)  # a line slower than the array, and one that is faster
SAMPLES = 3  # images whose mean cycles the core computes for

Images = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkFigures:
    """One run. ``latency_ms`` 0: no bridge. ``line_share``: of the images/s that the line's bare bytes would allow."""

    model: str
    baud: int
    latency_ms: float
    protocol: str
    images: int
    images_per_second: float
    line_share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlapFigures:
    """How long the array stands still between two images while they stream, and what it computes for, in clocks."""

    model: str
    baud: int
    images: int
    line_images_per_second: float
    array_images_per_second: float
    images_per_second: float
    computing_clocks: float
    waiting_clocks: float


@dataclasses.dataclass(frozen=True)
class Load:
    """What a model puts on link and core."""

    program: Program
    codes: Images
    cycles: int


def load_of(name: str, images: int) -> Load:
    """A bundled model, its input bytes (images, bytes), and the cycles of an image."""
    program = bundled.load_model(name)
    config = config_of(program)
    items = gather_items(Selection(limit=min(images, 100)), program)
    codes = to_codes([item.load() for item in items], program.input)
    cycles = CycleModel(program, config).cycles(codes[:SAMPLES])
    rows = GoldenModel(program, config).input_bytes(codes).reshape(len(codes), -1)
    return Load(program, np.resize(rows, (images, rows.shape[1])), round(float(np.mean(cycles))))


def fnv1a(data: bytes) -> int:
    """What the bench's core makes of an image."""
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def expected_logits(image: bytes, outputs: int) -> list[int]:
    """Logits of the bench's core: words of 32 bits, signed."""
    first = fnv1a(image)
    return [((first + k & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000 for k in range(outputs)]


def one_by_one(device: Device, images: Iterable[Images]) -> Iterator[Inference]:
    """Request and response: an image is sent when the one before has been read."""
    return map(device.infer, images)


PROTOCOLS: dict[str, Callable[[Device, Iterable[Images]], Iterator[Inference]]] = {
    "streaming": Device.stream,
    "request-response": one_by_one,
}


def run(load: Load, line: Line, protocol: str) -> tuple[list[Inference], float]:
    """Results of all images, and the seconds from the first byte of the first to the last logit of the last."""
    with LinkBench(preset("tiny"), line, hurry=True, ring=RING) as bench:
        bench.set_compute(load.cycles)
        device = Device(BenchTransport(bench), TIMING)
        device.connect()
        device.write(Region.CSR, INPUT_LENGTH, [load.codes.shape[1]])
        device.attach(load.program)
        begin = bench.seconds
        results = list(PROTOCOLS[protocol](device, load.codes))
        seconds = bench.seconds - begin
    outputs = len(load.program.labels)
    for number, (image, result) in enumerate(zip(load.codes, results, strict=True)):
        if result.logits.tolist() != expected_logits(image.tobytes(), outputs):
            raise DeviceError(f"{load.program.name}: the logits of image {number} are another image's")
    return results, seconds


def measure(load: Load, latency_ms: float, protocol: str) -> LinkFigures:
    """Images/s over the UART behind a bridge."""
    line = Line(divisor=CLOCK_HZ // BAUD, clock_hz=CLOCK_HZ, latency_ms=latency_ms)
    results, seconds = run(load, line, protocol)
    rate = len(results) / seconds
    return LinkFigures(
        model=load.program.name,
        baud=BAUD,
        latency_ms=latency_ms,
        protocol=protocol,
        images=len(results),
        images_per_second=round(rate, 2),
        line_share=round(rate * load.codes.shape[1] * 10 / BAUD, 4),
    )


def overlap(load: Load, divisor: int) -> OverlapFigures:
    """Clocks in which the array waits, over a UART of that many clocks a bit and no bridge."""
    results, seconds = run(load, Line(divisor=divisor, clock_hz=CLOCK_HZ), "streaming")
    baud = CLOCK_HZ // divisor
    return OverlapFigures(
        model=load.program.name,
        baud=baud,
        images=len(results),
        line_images_per_second=round(baud / 10 / load.codes.shape[1], 1),
        array_images_per_second=round(CLOCK_HZ / load.cycles, 1),
        images_per_second=round(len(results) / seconds, 1),
        computing_clocks=load.cycles,
        waiting_clocks=round(float(np.mean([result.waited for result in results[2:]])), 1),
    )


@click.command(help=__doc__)
@click.option("--images", type=click.IntRange(1), default=200, show_default=True)
@click.option("--protocol", "protocols", multiple=True, default=tuple(PROTOCOLS), show_default=True)
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/link"))
def main(images: int, models: tuple[str, ...], protocols: tuple[str, ...], out: Path) -> None:
    """Entry point."""
    out.mkdir(parents=True, exist_ok=True)
    figures: list[LinkFigures] = []
    for name in models:
        load = load_of(name, images)
        click.echo(f"{name}: {load.codes.shape[1]} bytes and {load.cycles} cycles an image")
        for protocol in protocols:
            for latency in LATENCIES_MS:
                figures.append(measure(load, latency, protocol))
                last = figures[-1]
                click.echo(
                    f"  {protocol:<16} {latency:>2} ms: {last.images_per_second:7.1f} images/s, "
                    f"{100 * last.line_share:.1f} % of the line"
                )
                (out / "link.json").write_text(json.dumps([dataclasses.asdict(one) for one in figures], indent=1))

    load = load_of(OVERLAP_MODEL, max(8, images // 4))
    overlaps = [overlap(load, divisor) for divisor in OVERLAP_DIVISORS]
    for one in overlaps:
        click.echo(
            f"{one.model} at {one.baud} baud: the line brings {one.line_images_per_second:,.0f} images/s, the array "
            f"computes {one.array_images_per_second:,.0f}; {one.images_per_second:,.0f} streamed, the array waits "
            f"{one.waiting_clocks:,.0f} clocks beside {one.computing_clocks:,} an image"
        )
    (out / "overlap.json").write_text(json.dumps([dataclasses.asdict(one) for one in overlaps], indent=1))


if __name__ == "__main__":
    cli.run(main, "link.py")
