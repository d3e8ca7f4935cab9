"""Synaptic operations and energy of compiled models, per layer and image, counted by the golden model.

    python benchmarks/operations.py                                  # every bundled model
    python benchmarks/operations.py cnv.rvb --images 100 -o out/operations.json

What is counted, and what the energy is not: sim/operations.py. `dense` is what the same layer adds with no zero among
its inputs. `reverb-fpga report MODEL` prints the same of one model, with its cycles.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.sim.operations import Operations, count_operations


def on_bundled_images(program: Program, images: int) -> Operations:
    """Counts on the first bundled images of the program's data set. Raises InputError where there are none."""
    items = gather_items(Selection(limit=images), program)
    return count_operations(program, config_of(program), to_codes([item.load() for item in items], program.input))


def table(found: Operations) -> str:
    """One model, for people."""
    lines = [
        f"{found.model}, T = {found.timesteps}, mean of {found.images} images:",
        "  layer         dense adds  additions  density %",
    ]
    for index, layer in enumerate(found.layers):
        share = f"{100 * layer.density:9.1f}" if index else "  (FLOPs)"
        lines.append(f"  {layer.name:11} {layer.dense:12,} {layer.additions:10,.0f}  {share}")
    lines.append(
        f"  {found.additions / 1e6:.2f} M synaptic operations; estimated energy {1e6 * found.energy:.2f} uJ an image, "
        f"{1e6 * found.first_energy:.2f} uJ of it in the first layer"
    )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--images", default=20, show_default=True, help="Bundled images per model.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures as JSON, too.")
def main(models: tuple[Path, ...], images: int, out: Path | None) -> None:
    """Entry point."""
    programs = [rvb.load(path) for path in models or bundled.bundled_models().values()]
    results = [on_bundled_images(program, images) for program in programs]
    for result in results:
        click.echo(table(result))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([result.as_dict() for result in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main, "operations.py")
