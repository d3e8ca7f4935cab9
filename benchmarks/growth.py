"""How cycles grow: with density, channels and image size of a network, with banks and lanes of the overlay.

    python benchmarks/growth.py --out out/growth

CNV with random weights, one thing changed at a time from full width, 32x32 pixels, density 0.2, and the ULX3S-85F's
array with memories large enough for all of it. Cycles are those of the cycle model, which equals the RTL.
Writes OUT/growth.json, of which points that are there are not measured again, OUT/growth.md and OUT/growth.png.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import torch
from matrix import Source, codes_of
from matrix_networks import calibrate, checkpoint_of

from reverb_fpga.compiler.pipeline import CompileOptions, compile_network
from reverb_fpga.host import cli
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.models.activity import set_initial_density
from reverb_fpga.models.checkpoint import Checkpoint
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.files import write_whole
from reverb_fpga.models.zoo import DatasetSpec, Options, build
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.operations import count_operations

ROOMY = dataclasses.replace(
    preset("ulx3s-85f"), name="roomy", act_words=65536, count_words=65536, weight_rows=65535, param_groups=4096,
    layer_groups=64, slot_entries=4096, descriptors=2048,
)  # fmt: skip
_CALIBRATION = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A network and an overlay."""

    density: float = 0.2
    width: float = 1.0
    side: int = 32
    banks: int = 4
    lanes: int = 64

    @property
    def config(self) -> Config:
        """The overlay: clusters of 16 lanes."""
        return dataclasses.replace(
            ROOMY,
            banks=self.banks,
            clusters=self.lanes // 16,
            # what a bank's index of a channel and the host bus have bits for
            weight_rows=min(ROOMY.weight_rows, ((1 << 20) - 1) // (self.banks * -(-self.lanes // 32))),
            layer_groups=min(ROOMY.layer_groups, 256 * self.banks // ROOMY.neuron_lanes),
        )


VARIED: dict[str, tuple[Any, ...]] = {
    "density": (0.05, 0.1, 0.2, 0.4, 0.8),
    "width": (0.25, 0.5, 1.0, 2.0),
    "side": (32, 36, 40, 48, 56),
    "banks": (2, 4, 8, 16),
    "lanes": (16, 32, 64, 128, 256),
}
_TITLES = {
    "density": "density asked for",
    "width": "channels, times CNV's",
    "side": "image side [pixels]",
    "banks": "banks (two ports each)",
    "lanes": "lanes",
}


def network_of(point: Point, pixels: torch.Tensor) -> Checkpoint:
    """CNV with random weights, its normalisation that of the currents of ``pixels`` (N, 3, H, W)."""
    source = InputSpec(3, point.side, point.side, (120,) * 3, (60.0,) * 3)
    labels = tuple(str(label) for label in range(10))
    net = build("cnv", DatasetSpec("cifar10", source, labels), Options(width=point.width, act_bits=8))
    set_initial_density(net, point.density)
    calibrate(net, pixels)
    return checkpoint_of(net)


def measure(point: Point, data_dir: Path | None) -> dict[str, Any]:
    """Cycles of one image."""
    shown = torch.from_numpy(Source(data_dir, _CALIBRATION, {}).shown("cnv").pixels).float()
    size = (point.side, point.side)
    pixels = torch.nn.functional.interpolate(shown, size=size, mode="bilinear", align_corners=False).round().byte()
    program = compile_network(network_of(point, pixels), point.config, CompileOptions(static_input=True)).program
    codes = codes_of(program, pixels[:1].numpy())
    counted = count_operations(program, point.config, codes)
    cycles = CycleModel(program, point.config).cycles(codes)[0]
    additions = sum(layer.additions for layer in counted.layers)
    later = counted.layers[1:]
    return {
        **dataclasses.asdict(point),
        "cycles": cycles,
        "additions": additions,
        "additions_per_cycle": additions / cycles,
        "measured_density": sum(layer.additions for layer in later) / sum(layer.dense for layer in later),
    }


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row per point."""
    lines = ["| varied | value | density | M additions | cycles | additions a cycle |", "|---|---|---|---|---|---|"]
    for name, points in found.items():
        for point in points:
            lines.append(
                f"| {_TITLES[name]} | {point[name]} | {point['measured_density']:.3f} | "
                f"{point['additions'] / 1e6:.2f} | {point['cycles']:,} | {point['additions_per_cycle']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def draw(found: dict[str, list[dict[str, Any]]], picture: Path) -> None:
    """A panel for everything that was varied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), sharey=True)
    for axes, (name, points) in zip(panels, found.items(), strict=True):
        axes.plot([point[name] for point in points], [point["cycles"] / 1e3 for point in points], marker="o", ms=4)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([point[name] for point in points], [f"{point[name]:g}" for point in points], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel(_TITLES[name], fontsize=9)
        axes.grid(alpha=0.3)
    ticks = (20, 50, 100, 200, 500)
    panels[0].set_yticks(ticks, [str(tick) for tick in ticks])
    panels[0].set_ylabel("thousand cycles an image")
    figure.savefig(picture, dpi=120)


@click.command(help=__doc__)
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where CIFAR-10 lies.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/growth"), show_default=True)
def main(data_dir: Path | None, out: Path) -> None:
    """Entry point."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "growth.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    found: dict[str, list[dict[str, Any]]] = {}
    total, done = sum(map(len, VARIED.values())), 0
    for name, values in VARIED.items():
        found[name] = []
        for value in values:
            done += 1
            before = next((point for point in known.get(name, []) if point[name] == value), None)
            click.echo(f"[{done}/{total}] {name} {value}{'' if before is None else ': done'}", err=True)
            found[name].append(before or measure(Point(**{name: value}), data_dir))
            write_whole(file, (json.dumps(known | found, indent=1) + "\n").encode())
    write_whole(out / "growth.md", table(found).encode())
    draw(found, out / "growth.png")
    click.echo(table(found), nl=False)


if __name__ == "__main__":
    cli.run(main, "growth.py")
