"""Which array? Candidate shapes on the activations of a trained network; table, JSON and plot.

python benchmarks/explore.py host/assets/models/fmnist.rvb -o out/explore
python benchmarks/explore.py MODEL.rvb --images DIR_OF_PNGS --mhz 60
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import click
import numpy as np
from array_model import LayerCycles, LayerWork, Shape, layer_cycles, weight_blocks
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.sim.golden import GoldenModel


def planes_of(program: Program, config: Config, fields: dict[str, int]) -> tuple[int, int]:
    """Bit planes and output groups of a layer, read off its slot program."""
    first = fields["slot_base"]
    words = program.slot[first : first + fields["n_passes"] * config.slots]
    entries = [contract.unpack(contract.SLOT_FIELDS, [int(word)]) for word in words]
    groups = {entry["group"] for entry in entries if entry["valid"]}
    return sum(entry["valid"] for entry in entries) // max(1, len(groups)), len(groups)


def gathered(fields: dict[str, int], source: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Events (positions * T, C_in) per gather of a layer with source codes (T, H, W, C); outside counts nothing."""
    steps, height, width, channels = source.shape
    _, rows, cols = shape
    y0, x0 = fields["iy0"], fields["ix0"]
    fired = source > 0
    total = np.zeros((rows, cols, steps, channels), dtype=np.int64)
    taps = itertools.product(
        range(fields["n_pool_y"]), range(fields["n_tap_y"]), range(fields["n_pool_x"]), range(fields["n_tap_x"])
    )
    for py, ky, px, kx in taps:
        ys = np.arange(rows) * fields["y_step"] + py * fields["y_pool"] + ky * fields["y_tap"] + y0
        xs = np.arange(cols) * fields["x_step"] + px * fields["x_pool"] + kx * fields["x_tap"] + x0
        inside = ((ys >= 0) & (ys < height))[:, None] & ((xs >= 0) & (xs < width))[None]
        part = fired[:, np.clip(ys, 0, height - 1)][:, :, np.clip(xs, 0, width - 1)]
        total += (part & inside[None, :, :, None]).transpose(1, 2, 0, 3)
    return total.reshape(-1, channels)


def layer_works(program: Program, config: Config, codes: NDArray[np.uint8]) -> list[LayerWork]:
    """The work of every layer for one image: codes (1, H, W, C)."""
    layers, _ = GoldenModel(program, config).run_layers(codes)
    source = codes.reshape(1, *codes.shape[-3:]) if codes.ndim == 4 else codes[0]
    works = []
    for info, output in zip(program.layers, layers, strict=True):
        _, fields = program.descriptor(info.strips[0][0])
        planes, _ = planes_of(program, config, fields)
        taps = fields["n_tap_y"] * fields["n_tap_x"]
        works.append(
            LayerWork(
                name=info.name,
                events=gathered(fields, source, info.shape),
                sources=taps * fields["n_pool_y"] * fields["n_pool_x"],
                out_channels=info.shape[0],
                planes=planes,
                taps=taps,
                repeats=fields["timesteps"] if fields["static_input"] else 1,
            )
        )
        source = output[0]
    return works


def candidates() -> list[Shape]:
    """Shapes of 256 to 2,048 additions a cycle."""
    shapes = []
    for clusters, banks, ports, lanes, split in itertools.product(
        (1, 2, 4, 8), (2, 4, 8, 16), (1, 2), (16, 32, 64, 128), ("channels", "positions")
    ):
        shape = Shape(clusters, banks, ports, lanes, neuron_lanes=16, split=split)
        if clusters == 1 and split == "positions":
            continue
        if split == "channels" and lanes != 16:
            continue  # clusters that share a stream are one wide tile: only the product matters
        if 256 <= shape.additions <= 2048 and shape.tile >= 16:
            shapes.append(shape)
    return shapes + [
        dataclasses.replace(s, mapping="blocked") for s in shapes if s.banks == 4 and s.ports_per_bank == 2
    ]


def evaluate(works: list[LayerWork], shape: Shape, mhz: float) -> dict[str, object]:
    """Cycles, images/s, busy share and block RAM of one shape."""
    layers: list[LayerCycles] = [layer_cycles(work, shape) for work in works]
    cycles = sum(layer.cycles for layer in layers)
    additions = sum(work.synaptic_events for work in works)
    return {
        "shape": shape.label,
        "additions_per_cycle": shape.additions,
        "cycles": cycles,
        "images_per_second": round(mhz * 1e6 / cycles, 1),
        "busy": round(additions / (cycles * shape.additions), 4),
        "weight_blocks": weight_blocks(works, shape),
        "layers": [dataclasses.asdict(layer) for layer in layers],
    }


def plot(rows: list[dict[str, object]], chosen: str, path: Path) -> None:
    """Images/s against block RAM for weights; the shape that was built is marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    size = [float(str(row["additions_per_cycle"])) for row in rows]
    points = axes.scatter(
        [row["weight_blocks"] for row in rows], [row["images_per_second"] for row in rows], c=size, cmap="viridis"
    )
    for row in rows:
        if row["shape"] == chosen:
            axes.annotate(
                f"built: {chosen}",
                (float(str(row["weight_blocks"])), float(str(row["images_per_second"]))),
                xytext=(10, -20), textcoords="offset points", arrowprops={"arrowstyle": "->"},
            )  # fmt: skip
    axes.axvline(208, color="red", linestyle=":", label="all 208 blocks of an 85F")
    axes.set(xlabel="block RAMs for the weights", ylabel="images/s", xscale="log", yscale="log")
    figure.colorbar(points, label="additions per cycle")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Default: the bundled images.")
@click.option("--limit", default=2, show_default=True, help="Images to average over.")
@click.option("--mhz", default=60.0, show_default=True, help="Clock for images/s.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/explore"), show_default=True)
def main(model: Path, images: Path | None, limit: int, mhz: float, out: Path) -> None:
    """Entry point."""
    program = rvb.load(model)
    config = preset(program.config_name)
    items = gather_items(Selection(paths=(images,) if images else (), limit=limit), program)
    codes = to_codes([item.load() for item in items], program.input)
    per_image = [layer_works(program, config, codes[i : i + 1]) for i in range(len(codes))]
    rows = []
    for shape in candidates():
        results = [evaluate(works, shape, mhz) for works in per_image]
        mean = sum(int(str(result["cycles"])) for result in results) / len(results)
        rows.append({**results[0], "cycles": round(mean), "images_per_second": round(mhz * 1e6 / mean, 1)})
    rows.sort(key=lambda row: float(str(row["cycles"])))
    built = Shape(config.clusters, config.banks, config.ports_per_bank, config.lanes_per_cluster, config.neuron_lanes)
    out.mkdir(parents=True, exist_ok=True)
    (out / "explore.json").write_text(json.dumps(rows, indent=1))
    plot(rows, built.label, out / "explore.png")
    click.echo(f"{'shape':34} {'adds':>5} {'cycles':>9} {'images/s':>9} {'busy':>6} {'EBR(w)':>6}")
    for row in rows:
        mark = " <- built" if row["shape"] == built.label else ""
        click.echo(
            f"{row['shape']:34} {row['additions_per_cycle']:5} {row['cycles']:9} {row['images_per_second']:9} "
            f"{row['busy']:6} {row['weight_blocks']:6}{mark}"
        )


if __name__ == "__main__":
    main()
