"""Which array? Candidate shapes on the activations of a trained network; table, JSON and plot.

python benchmarks/explore.py host/assets/models/cifar10-cnv.rvb -o out/explore
python benchmarks/explore.py MODEL.rvb --images DIR_OF_PNGS --mhz 60
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import click
import numpy as np
from array_model import Columns, LayerCycles, LayerWork, Shape, layer_cycles, row_beats, weight_blocks
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.row_mode import MAX_POOL
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import ROW_TAPS
from reverb_fpga.sim.golden import GoldenModel


def planes_of(program: Program, config: Config, fields: dict[str, int]) -> tuple[int, int]:
    """Bit planes and output groups of a layer, read off its slot program."""
    first = fields["slot_base"]
    words = program.slot[first : first + fields["n_passes"] * config.slots]
    entries = [contract.unpack(contract.SLOT_FIELDS, [int(word)]) for word in words]
    groups = {entry["group"] for entry in entries if entry["valid"]}
    return sum(entry["valid"] for entry in entries) // max(1, len(groups)), len(groups)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a layer reads: which codes (T, H, W, C) are not 0, and which (C,) count as that outside the image."""

    fired: NDArray[np.bool_]
    pad: NDArray[np.bool_]

    def at(self, ys: NDArray[np.int64], xs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Events (rows, columns, T, C) of source rows and columns, outside the image or not."""
        _, height, width, _ = self.fired.shape
        inside = ((ys >= 0) & (ys < height))[:, None] & ((xs >= 0) & (xs < width))[None]
        part = self.fired[:, np.clip(ys, 0, height - 1)][:, :, np.clip(xs, 0, width - 1)]
        return np.where(inside[:, :, None, None], part.transpose(1, 2, 0, 3), self.pad)


def gathered(fields: dict[str, int], source: Source, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Events (positions * T, C_in) per gather of a layer."""
    steps, _, _, channels = source.fired.shape
    _, rows, cols = shape
    y0, x0 = fields["iy0"], fields["ix0"]
    total = np.zeros((rows, cols, steps, channels), dtype=np.int64)
    taps = itertools.product(
        range(fields["n_pool_y"]), range(fields["n_tap_y"]), range(fields["n_pool_x"]), range(fields["n_tap_x"])
    )
    for py, ky, px, kx in taps:
        ys = np.arange(rows) * fields["y_step"] + py * fields["y_pool"] + ky * fields["y_tap"] + y0
        xs = np.arange(cols) * fields["x_step"] + px * fields["x_pool"] + kx * fields["x_tap"] + x0
        total += source.at(ys, xs)
    return total.reshape(-1, channels)


def by_column(fields: dict[str, int], source: Source, shape: tuple[int, int, int]) -> Columns | None:
    """The same events by source column; None if row mode cannot compute the layer."""
    pooled = fields["n_pool_x"]
    neighbours = fields["x_tap"] == 1 and fields["x_step"] == pooled and (pooled == 1 or fields["x_pool"] == 1)
    if not neighbours or fields["n_tap_x"] != ROW_TAPS or pooled > MAX_POOL:
        return None
    steps, _, _, channels = source.fired.shape
    _, rows, cols = shape
    number = cols * pooled + ROW_TAPS - 1
    xs = fields["ix0"] + np.arange(number)
    total = np.zeros((rows, number, steps, channels), dtype=np.int64)
    for py, ky in itertools.product(range(fields["n_pool_y"]), range(fields["n_tap_y"])):
        ys = np.arange(rows) * fields["y_step"] + py * fields["y_pool"] + ky * fields["y_tap"] + fields["iy0"]
        total += source.at(ys, xs)
    windows = number // pooled
    events = total.reshape(rows, windows, pooled, steps, channels).transpose(0, 1, 3, 2, 4)
    captured = np.broadcast_to(
        (np.arange(number) >= ROW_TAPS - 1).reshape(windows, 1, pooled), (rows, windows, steps, pooled)
    )
    sources = fields["n_pool_y"] * fields["n_tap_y"]
    return Columns(events.reshape(-1, channels), captured.ravel(), sources, pooled)


def layer_works(program: Program, config: Config, codes: NDArray[np.uint8]) -> list[LayerWork]:
    """The work of every layer for one image: codes (1, H, W, C)."""
    model = GoldenModel(program, config)
    layers, _ = model.run_layers(codes)
    strips = {strip.index: strip for strip in model.schedule.strips}
    source = codes.reshape(1, *codes.shape[-3:]) if codes.ndim == 4 else codes[0]
    works = []
    for info, output in zip(program.layers, layers, strict=True):
        fields, pad = strips[info.strips[0][0]].fields, strips[info.strips[0][0]].pad
        none = np.zeros(source.shape[-1], dtype=bool)
        read = Source(source > 0, none if pad is None else pad[: source.shape[-1]] > 0)
        planes, _ = planes_of(program, config, fields)
        taps = fields["n_tap_y"] * fields["n_tap_x"]
        works.append(
            LayerWork(
                name=info.name,
                events=gathered(fields, read, info.shape),
                sources=taps * fields["n_pool_y"] * fields["n_pool_x"],
                out_channels=info.shape[0],
                planes=planes,
                taps=taps,
                repeats=fields["timesteps"] if fields["static_input"] else 1,
                columns=by_column(fields, read, info.shape),
            )
        )
        source = output[0]
    return works


def candidates() -> list[Shape]:
    """Shapes of 256 to 2,048 additions a cycle, and wider ones with 32 neuron lanes and row mode."""
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
    for banks, lanes, taps in ((4, 64, 3), (4, 128, 1), (8, 64, 1), (8, 128, 1), (8, 64, 3)):
        shapes.append(Shape(1, banks, 2, lanes, neuron_lanes=32, taps=taps))
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
        "row_mode": shape.taps > 1,
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
    in_rows = [row for row in rows if row["row_mode"]]
    axes.scatter(
        [row["weight_blocks"] for row in in_rows], [row["images_per_second"] for row in in_rows], s=90,
        facecolors="none", edgecolors="black", label="with row mode",
    )  # fmt: skip
    axes.axvline(208, color="red", linestyle=":", label="all 208 blocks of an 85F")
    axes.set(xlabel="block RAMs for the weights", ylabel="images/s", xscale="log", yscale="log")
    figure.colorbar(points, label="additions per cycle")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def modes(works: list[LayerWork]) -> str:
    """Beats of every layer of one image: 4 x 2 x 64 gather, 4 x 2 x 192 gather, row mode."""
    lines = [f"{'beats of the first image':24} {'512':>9} {'1536 gather':>12} {'1536 row':>9}"]
    narrow, wide = (Shape(1, 4, 2, lanes, neuron_lanes=32) for lanes in (64, 192))
    rows = Shape(1, 4, 2, 64, neuron_lanes=32, taps=ROW_TAPS)
    totals = [0, 0, 0]
    for work in works:
        gather = [layer_cycles(work, shape).beats for shape in (narrow, wide)]
        row = row_beats(work, rows) if work.columns is not None else None
        best = gather[1] if row is None else min(row, gather[1])
        totals = [total + beats for total, beats in zip(totals, (*gather, best), strict=True)]
        lines.append(f"{work.name:24} {gather[0]:9} {gather[1]:12} {'-' if row is None else row:>9}")
    lines.append(f"{'sum; the better of both':24} {totals[0]:9} {totals[1]:12} {totals[2]:9}")
    return "\n".join(lines) + "\n"


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
    click.echo(modes(per_image[0]))
    click.echo(f"{'shape':34} {'adds':>5} {'cycles':>9} {'images/s':>9} {'busy':>6} {'EBR(w)':>6}")
    for row in rows:
        mark = " <- built" if row["shape"] == built.label else ""
        click.echo(
            f"{row['shape']:34} {row['additions_per_cycle']:5} {row['cycles']:9} {row['images_per_second']:9} "
            f"{row['busy']:6} {row['weight_blocks']:6}{mark}"
        )


if __name__ == "__main__":
    main()
