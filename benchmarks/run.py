"""The accelerator's figures, by one command: JSON, a table and plots.

    python benchmarks/run.py --out out/bench        # bundled models and the paper's ResNet-20
    python benchmarks/run.py --out out/bench cnv.rvb cifar10-cnv --images 3 --build out/ulx3s-85f

Cycles come from the RTL (Verilator), the clock from routed timing, images/s from both; without a build there are none.
The golden logits must equal those of the RTL, or the benchmark stops. The paper's ResNet-20 has random weights unless
--trained says otherwise, and runs on `large`, a configuration for simulation only.
Writes OUT/benchmark.json (`networks` by name; `build`: the first --build; `builds`: all, by configuration),
OUT/table.md and OUT/layers.png.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from matrix import Source, codes_of
from matrix_networks import untrained
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.pipeline import CompileOptions, compile_network
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.host.session import BYTE_BITS
from reverb_fpga.hw.boards.report import BuildReport, read_report
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Counter
from reverb_fpga.hw.errors import DeviceError, InputError
from reverb_fpga.models.checkpoint import read_checkpoint
from reverb_fpga.models.files import write_whole
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.operations import count_operations
from reverb_fpga.sim.rtl_core import RtlCore

Codes = NDArray[np.uint8]

PAPERS = {"resnet20": "large"}
"""Networks of the zoo that no bundled model is of, and the configuration that holds them whole."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFigures:
    """One layer, mean per image. ``busy``: events over events possible in its cycles; the rest are cycles lost."""

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
    """One network, mean per image.

    ``additions``: synaptic operations, of the first layer its products. ``model_error``: largest relative error of the
    cycle model over the images. ``images_per_second``: computed, whatever the link brings in; None without a build.
    """

    config: str
    timesteps: int
    trained: bool
    images: int
    cycles: float
    images_per_second: float | None
    link_images_per_second: float | None
    additions: float
    additions_per_cycle: float
    busy: float
    density: float
    model_error: float
    golden_images_per_second: float
    by_layer: dict[str, LayerFigures]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: a program and input codes (N, T_in, H, W, C)."""

    program: Program
    codes: Codes
    trained: bool


def bundled_codes(program: Program, limit: int) -> Codes:
    """Input codes of the first bundled images of the program's data set."""
    items = gather_items(Selection(limit=limit), program)
    return to_codes([item.load() for item in items], program.input)


def of_the_zoo(network: str, target: str, checkpoint: Path | None, pixels: Codes) -> Subject:
    """A ResNet of learnable ReverB on CIFAR images (N, 3, 32, 32), trained or with random weights."""
    source = read_checkpoint(checkpoint) if checkpoint else untrained(network, "reverb-learnable", pixels, None)
    compiled = compile_network(source, preset(target), CompileOptions(static_input=True))
    return Subject(compiled.program, codes_of(compiled.program, pixels), checkpoint is not None)


def golden_speed(model: GoldenModel, codes: Codes) -> float:
    """Images per second of the golden model over one full batch."""
    batch = np.resize(codes, (model.batch, *codes.shape[1:]))
    model.run(batch[:1])
    start = time.perf_counter()
    model.run(batch)
    return len(batch) / (time.perf_counter() - start)


def rtl_counters(
    core: RtlCore, program: Program, codes: Codes, expected: NDArray[np.int64]
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
) -> dict[str, LayerFigures]:
    """Counters by name."""
    figures = {}
    for info, row, density in zip(program.layers, counters, densities, strict=True):
        value = {counter: float(row[counter]) for counter in Counter}
        figures[info.name] = LayerFigures(
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
    return figures


def measure(subject: Subject, build: BuildReport | None) -> Figures:
    """Everything about one program."""
    program, codes = subject.program, subject.codes
    config = config_of(program)
    golden = GoldenModel(program, config)
    layers, logits = golden.run_layers(codes)
    densities = [
        float(np.mean(layer > 0)) if info.spiking else None for info, layer in zip(program.layers, layers, strict=True)
    ]
    with RtlCore(config, progress=lambda line: click.echo(f"{config.name}: {line}", err=True)) as core:
        core.load(program)
        cycles, counters = rtl_counters(core, program, codes, logits)
    predicted = CycleModel(program, config).cycles(codes)
    mean = float(np.mean(cycles))
    events = float(counters[:, Counter.EVENTS].sum())
    additions = sum(layer.additions for layer in count_operations(program, config, codes).layers)
    spiking = [layer for layer, info in zip(layers, program.layers, strict=True) if info.spiking]
    return Figures(
        config=config.name,
        timesteps=program.timesteps,
        trained=subject.trained,
        images=len(codes),
        cycles=mean,
        images_per_second=build.clock_mhz * 1e6 / mean if build else None,
        link_images_per_second=build.baud / BYTE_BITS / codes[0].size if build and build.baud else None,
        additions=additions,
        additions_per_cycle=additions / mean,
        busy=events / (mean * config.ports),
        density=sum(int((layer > 0).sum()) for layer in spiking) / sum(layer.size for layer in spiking),
        model_error=max(abs(p - c) / c for p, c in zip(predicted, cycles, strict=True)),
        golden_images_per_second=golden_speed(golden, codes),
        by_layer=layer_figures(program, config, counters, densities),
    )


def build_figures(report: BuildReport) -> dict[str, Any]:
    """What of a build the figures rest on."""
    names = ("board", "lut4", "ff", "bram", "dsp", "fmax_mhz", "clock_mhz", "additions_per_cycle", "seed", "tools")
    return {name: getattr(report, name) for name in names}


def told(name: str, figures: Figures) -> str:
    """One network, for people."""
    lines = [
        f"{name} on {figures.config}, T = {figures.timesteps}, mean of {figures.images} images"
        f"{'' if figures.trained else ', random weights'}:",
        f"  {figures.cycles:,.0f} cycles (cycle model within {100 * figures.model_error:.2f} %), density "
        f"{figures.density:.3f}, {figures.additions / 1e6:.2f} M additions, {figures.additions_per_cycle:.0f} a cycle, "
        f"ports busy {100 * figures.busy:.1f} %",
        f"  golden model {figures.golden_images_per_second:,.0f} images/s",
    ]
    if figures.images_per_second is not None:
        link = figures.link_images_per_second
        tail = "" if link is None else f", {link:,.0f} at most over the UART (benchmarks/link.py)"
        lines.append(f"  {figures.images_per_second:,.0f} images/s computed{tail}")
    lines.append("  layer       density    cycles    events     beats  busy %  table  drain  steal   emit")
    for layer, found in figures.by_layer.items():
        density = "     -" if found.density is None else f"{found.density:6.3f}"
        lines.append(
            f"  {layer:11} {density} {found.cycles:9,.0f} {found.events:9,.0f} {found.beats:9,.0f} "
            f"{100 * found.busy:7.1f} {found.stall_table:6,.0f} {found.stall_drain:6,.0f} {found.stall_steal:6,.0f} "
            f"{found.stall_emit:6,.0f}"
        )
    return "\n".join(lines)


def table(networks: dict[str, Figures]) -> str:
    """Markdown."""
    lines = [
        "| network | configuration | T | weights | density | cycles | additions a cycle | ports busy | images/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in networks.items():
        rate = "" if row.images_per_second is None else f"{row.images_per_second:,.0f}"
        lines.append(
            f"| `{name}` | `{row.config}` | {row.timesteps} | {'trained' if row.trained else 'random'} | "
            f"{row.density:.3f} | {row.cycles:,.0f} | {row.additions_per_cycle:,.0f} | {100 * row.busy:.0f} % "
            f"| {rate} |"
        )
    return "\n".join(lines) + "\n"


def draw(networks: dict[str, Figures], picture: Path) -> None:
    """Where the cycles of every network go, as one bar of layers each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.5 * len(networks)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, found in enumerate(networks.values()):
        left = 0.0
        for index, (layer, figures) in enumerate(found.by_layer.items()):
            width = 100 * figures.cycles / sum(each.cycles for each in found.by_layer.values())
            axes.barh(row, width, left=left, color=f"C{index % 10}", edgecolor="white", linewidth=0.5)
            if width > 6:
                axes.text(left + width / 2, row, layer, ha="center", va="center", fontsize=7, color="white")
            left += width
    axes.set_yticks(
        range(len(networks)), [f"{name}\n{found.cycles:,.0f}" for name, found in networks.items()], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of an image's cycles [%]")
    figure.savefig(picture, dpi=120)


def builds_by_config(folders: tuple[Path, ...]) -> dict[str, BuildReport]:
    """Reports of builds, by the configuration's digest. Raises InputError where two are of one configuration."""
    found: dict[str, BuildReport] = {}
    for folder in folders:
        report = read_report(folder)
        if report.config_digest in found:
            raise InputError(f"{folder}: a second build of {report.config}; give one")
        found[report.config_digest] = report
    return found


def trained_ones(values: tuple[str, ...]) -> dict[str, Path]:
    """NETWORK=CHECKPOINT of the command line."""
    found = {}
    for value in values:
        network, _, path = value.partition("=")
        if network not in PAPERS or not path:
            raise InputError(f"--trained {value}: expected NETWORK=CHECKPOINT, a network of {', '.join(PAPERS)}")
        found[network] = Path(path)
    return found


def subjects(
    models: tuple[str, ...], images: int, trained: dict[str, Path], data_dir: Path | None
) -> Iterator[tuple[str, Subject]]:
    """What is measured, by name: the models given, else all that are bundled and the ResNets."""
    for name in models or tuple(bundled.bundled_models()):
        path = Path(name)
        program = rvb.load(path) if path.suffix == ".rvb" else bundled.load_model(name)
        yield program.name, Subject(program, bundled_codes(program, images), True)
    if not models:
        source = Source(data_dir, max(images, 16), {})  # 16 of them calibrate random weights
        for network, target in PAPERS.items():
            found = of_the_zoo(network, target, trained.get(network), source.shown(network).pixels)
            yield network, dataclasses.replace(found, codes=found.codes[:images])


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--images", default=3, show_default=True, type=click.IntRange(1), help="Images per network.")
@click.option(
    "--build", "folders", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a build; may be given again for another configuration.",
)  # fmt: skip
@click.option("--trained", multiple=True, metavar="NETWORK=CHECKPOINT", help="Weights of a ResNet.")
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where CIFAR-10 lies.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
def main(
    models: tuple[str, ...], images: int, folders: tuple[Path, ...], trained: tuple[str, ...], data_dir: Path | None,
    out: Path,
) -> None:  # fmt: skip
    """Entry point."""
    builds, given = builds_by_config(folders), trained_ones(trained)
    built = [build_figures(report) for report in builds.values()]
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Figures] = {}
    for name, subject in subjects(models, images, given, data_dir):
        found[name] = measure(subject, builds.get(f"{subject.program.config_digest:016x}"))
        click.echo(told(name, found[name]))
        content = {
            "networks": {name: dataclasses.asdict(figures) for name, figures in found.items()},
            "build": built[0] if built else None,
            "builds": {report.config: figures for report, figures in zip(builds.values(), built, strict=True)},
        }
        write_whole(out / "benchmark.json", (json.dumps(content, indent=1) + "\n").encode())
        write_whole(out / "table.md", table(found).encode())
    draw(found, out / "layers.png")


if __name__ == "__main__":
    cli.run(main, "run.py")
