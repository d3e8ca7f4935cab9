"""The accelerator's figures, by one command: JSON and a table.

    python benchmarks/run.py                                  # every bundled model
    python benchmarks/run.py cnv.rvb --images 3 --build out/ulx3s-85f -o out/bench

Cycles come from the RTL (Verilator), the clock from routed timing, images/s from both. The golden logits must
equal those of the RTL, or the benchmark stops.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.host.model_report import build_for
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import Counter
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFigures:
    """One layer, mean per image. ``busy``: additions done over additions possible in its cycles."""

    name: str
    density: float | None
    cycles: float
    events: float
    beats: float
    busy: float
    stall_table: float
    stall_drain: float
    stall_steal: float
    stall_emit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """One model.

    ``model_error``: largest relative error of the cycle model over the images. ``additions``: of events, per image.
    """

    model: str
    config: str
    timesteps: int
    images: int
    cycles: float
    model_error: float
    density: float
    additions: float
    busy: float
    golden_images_per_second: float
    clock_mhz: float | None
    compute_images_per_second: float | None
    link_images_per_second: float | None
    layers: tuple[LayerFigures, ...]


def bundled_codes(program: Program, limit: int) -> NDArray[np.uint8]:
    """Input codes of the first bundled images of the program's data set."""
    items = gather_items(Selection(limit=limit), program)
    return to_codes([item.load() for item in items], program.input)


def golden_speed(model: GoldenModel, codes: NDArray[np.uint8]) -> float:
    """Images per second of the golden model over one full batch."""
    batch = np.resize(codes, (model.batch, *codes.shape[1:]))
    model.run(batch[:1])
    start = time.perf_counter()
    model.run(batch)
    return len(batch) / (time.perf_counter() - start)


def rtl_counters(
    core: RtlCore, program: Program, codes: NDArray[np.uint8], expected: NDArray[np.int64]
) -> tuple[list[int], NDArray[np.float64]]:
    """Cycles of every image, and mean counters (layers, counters)."""
    cycles = []
    totals = np.zeros((len(program.layers), len(Counter)))
    for image, logits in zip(codes, expected, strict=True):
        if not np.array_equal(core.infer(image), logits):
            raise DeviceError(
                f"{program.name}: the RTL's logits differ from the golden model's; run reverb-fpga verify"
            )
        cycles.append(core.cycles)
        for row, info in zip(totals, program.layers, strict=True):
            for fires, _, _ in info.strips:
                for descriptor in info.descriptors(fires):
                    values = core.counters(descriptor)
                    row += [values[counter] for counter in Counter]
    return cycles, totals / len(codes)


def layer_figures(
    program: Program, config: Config, counters: NDArray[np.float64], densities: list[float | None]
) -> tuple[LayerFigures, ...]:
    """Counters by name."""
    figures = []
    for info, row, density in zip(program.layers, counters, densities, strict=True):
        value = {counter: float(row[counter]) for counter in Counter}
        figures.append(
            LayerFigures(
                name=info.name,
                density=density,
                cycles=value[Counter.CYCLES],
                events=value[Counter.EVENTS],
                beats=value[Counter.BEATS],
                busy=value[Counter.EVENTS] / (value[Counter.CYCLES] * config.ports),
                stall_table=value[Counter.STALL_TABLE],
                stall_drain=value[Counter.STALL_DRAIN],
                stall_steal=value[Counter.STALL_STEAL],
                stall_emit=value[Counter.STALL_EMIT],
            )
        )
    return tuple(figures)


def measure(program: Program, images: int, build: Path | None) -> Figures:
    """Everything about one program."""
    config = config_of(program)
    codes = bundled_codes(program, images)
    golden = GoldenModel(program, config)
    layers, logits = golden.run_layers(codes)
    densities = [
        float(np.mean(layer > 0)) if info.spiking else None for info, layer in zip(program.layers, layers, strict=True)
    ]
    with RtlCore(config) as core:
        core.load(program)
        cycles, counters = rtl_counters(core, program, codes, logits)
    predicted = CycleModel(program, config).cycles(codes)
    report = build_for(program, build) if build else None
    mean = float(np.mean(cycles))
    events = float(counters[:, Counter.EVENTS].sum())
    spiking = [layer for layer, info in zip(layers, program.layers, strict=True) if info.spiking]
    return Figures(
        model=program.name,
        config=config.name,
        timesteps=program.timesteps,
        images=len(codes),
        cycles=mean,
        model_error=max(abs(p - c) / c for p, c in zip(predicted, cycles, strict=True)),
        density=sum(int((layer > 0).sum()) for layer in spiking) / sum(layer.size for layer in spiking),
        additions=events * config.lanes,
        busy=events / (mean * config.ports),
        golden_images_per_second=golden_speed(golden, codes),
        clock_mhz=report.clock_mhz if report else None,
        compute_images_per_second=report.clock_mhz * 1e6 / mean if report else None,
        link_images_per_second=report.baud / 10 / codes[0].size if report and report.baud else None,
        layers=layer_figures(program, config, counters, densities),
    )


def table(figures: Figures) -> str:
    """One model, for people."""
    lines = [
        f"{figures.model} on {figures.config}, T = {figures.timesteps}, mean of {figures.images} images:",
        f"  {figures.cycles:,.0f} cycles (cycle model within {100 * figures.model_error:.2f} %), density "
        f"{figures.density:.3f}, {figures.additions / 1e6:.2f} M additions, array busy {100 * figures.busy:.1f} %",
        f"  golden model {figures.golden_images_per_second:,.0f} images/s",
    ]
    link = figures.link_images_per_second
    if figures.clock_mhz is not None:
        lines.append(
            f"  at {figures.clock_mhz:g} MHz: {figures.compute_images_per_second:,.0f} images/s computed"
            + ("" if link is None else f", {link:,.0f} images/s at most over the UART (benchmarks/link.py)")
        )
    lines.append("  layer       density    cycles    events     beats  busy %  table  drain  steal   emit")
    for layer in figures.layers:
        density = "     -" if layer.density is None else f"{layer.density:6.3f}"
        lines.append(
            f"  {layer.name:11} {density} {layer.cycles:9,.0f} {layer.events:9,.0f} {layer.beats:9,.0f} "
            f"{100 * layer.busy:7.1f} {layer.stall_table:6,.0f} {layer.stall_drain:6,.0f} {layer.stall_steal:6,.0f} "
            f"{layer.stall_emit:6,.0f}"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--images", default=3, show_default=True, help="Bundled images per model.")
@click.option("--build", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of a build.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
def main(models: tuple[Path, ...], images: int, build: Path | None, out: Path) -> None:
    """Entry point."""
    programs = [rvb.load(path) for path in models] or [rvb.load(path) for path in bundled.bundled_models().values()]
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for program in programs:
        results.append(measure(program, images, build))
        click.echo(table(results[-1]))
        (out / "bench.json").write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    cli.run(main, "run.py")
