"""``reverb-fpga spikes``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.models.files import check_output, write_whole
from reverb_fpga.sim.golden import GoldenModel

from .. import bundled
from ..backends import config_of
from ..completing import complete_models
from ..console import make_table, output
from ..feature_maps import draw_spikes
from ..images import encoded
from ..inputs import ItemReader, Selection, gather_items

__all__ = ["command"]

_SUFFIXES = (".png", ".npz")
_EXAMPLES = """\b
Examples:
  reverb-fpga spikes cifar10-cnv -o spikes.png               the first bundled image
  reverb-fpga spikes model.rvb photo.jpg -o spikes.png
  reverb-fpga spikes model.rvb photo.jpg -o layers.npz       codes and logits, for NumPy
  reverb-fpga spikes cifar10-cnv --json
"""


@click.command(name="spikes", epilog=_EXAMPLES)
@click.argument("model", required=False, metavar="[FILE.rvb|NAME]", shell_complete=complete_models)
@click.argument("image", required=False, type=click.Path(path_type=Path), metavar="[IMAGE]")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), metavar="FILE.png|.npz", help="To write.")
@click.option("--invert", is_flag=True, help="Take the negative of the image, as classify does.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(model: str | None, image: Path | None, target: Path | None, invert: bool, as_json: bool) -> None:
    """What every layer fires on one image: feature maps, spike rasters and logits, by the golden model.

    A map's pixel is an activation code; black is silence. Layers with one position are rasters, a row per time step.
    At most 64 maps and 8 steps are drawn; an .npz file holds all, an array (T, H, W, C) per layer, its channels in the
    order of the network that was trained.
    """
    if target is not None:
        if target.suffix.lower() not in _SUFFIXES:
            raise InputError(f"{target}: a picture is written as .png, all codes as .npz")
        check_output(target)
    program = bundled.load_model(model)
    (item,) = gather_items(Selection(paths=(image,) if image else (), limit=1), program)
    _, (pixels,) = ItemReader(program, strict=True).read_all([item])
    codes = encoded([pixels], program, invert=invert)
    found, logits = GoldenModel(program, config_of(program)).run_layers(codes)
    layers = [info.of_network(values[0]) for info, values in zip(program.layers, found, strict=True)]
    if target is not None:
        title = f"{item.name} as {program.labels[int(logits[0].argmax())]} by {program.name}"
        if target.suffix.lower() == ".npz":
            write_whole(target, _archive(layers, logits[0]))
        else:
            write_whole(target, draw_spikes(program, pixels, layers, logits[0], title))
    rows = [
        {"layer": info.name, "shape": info.shape, "timesteps": info.timesteps, **_figures(values)}
        for info, values in zip(program.layers, layers, strict=True)
        if info.spiking
    ]
    label = program.labels[int(logits[0].argmax())]
    if as_json:
        click.echo(json.dumps({"model": program.name, "image": item.name, "label": label, "layers": rows}))
        return
    _print(rows)
    output().say(printable(f"{item.name}: {label}"))
    if target is not None:
        output().say(printable(f"written: {target}"))


def _archive(layers: list[Any], logits: Any) -> bytes:
    """``layer0``, ``layer1``, ... and ``logits``; names of layers are not those of files."""
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, logits=logits, **{f"layer{n}": at for n, at in enumerate(layers)})
    return out.getvalue()


def _figures(codes: Any) -> dict[str, Any]:
    events = int(np.count_nonzero(codes))
    mean = float(codes.sum() / events) if events else None
    return {"events": events, "density": events / codes.size, "largest": int(codes.max()), "mean": mean}


def _print(rows: list[dict[str, Any]]) -> None:
    table = make_table("layer", "output", right=("T", "events", "density %", "mean code", "largest"))
    for row in rows:
        mean = "" if row["mean"] is None else f"{row['mean']:.1f}"
        table.add_row(
            printable(row["layer"]), "x".join(map(str, row["shape"])), str(row["timesteps"]), f"{row['events']:,}",
            f"{100 * row['density']:.1f}", mean, str(row["largest"]),
        )  # fmt: skip
    output().table(table)
