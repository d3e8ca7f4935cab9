"""Synaptic operations and energy of compiled models, per layer and image, counted by the golden model.

    python benchmarks/operations.py                                  # every bundled model
    python benchmarks/operations.py cnv.rvb --images 100 -o out/operations.json

A synaptic operation is one addition that an event causes in one neuron. The energy is an estimate as papers on spiking
networks make it, not a measurement of this accelerator: 77 fJ per synaptic operation, taken from neuromorphic chips,
and 12.5 pJ per FLOP of the first layer, whose input is no spikes; one FLOP is one product with its addition. Memory
traffic, the clock and leakage are in neither figure. `dense` is what the same layer adds with no zero among its inputs.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.sim.golden import GoldenModel

JOULES_PER_OPERATION = 77e-15
JOULES_PER_FLOP = 12.5e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """One layer, mean per image.

    Attributes
    ----------
    name : str
    dense : int
        Additions if every input were an event.
    additions : float
        Synaptic operations; for the first layer, its FLOPs.
    """

    name: str
    dense: int
    additions: float

    @property
    def density(self) -> float:
        """Share of the dense additions that events cause, 0..1."""
        return self.additions / self.dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operations:
    """One model, mean per image. `energy` is in joules: the first layer's FLOPs and all others' synaptic operations."""

    model: str
    timesteps: int
    images: int
    layers: tuple[LayerOperations, ...]

    @property
    def additions(self) -> float:
        """Synaptic operations of all layers but the first."""
        return sum(layer.additions for layer in self.layers[1:])

    @property
    def first_energy(self) -> float:
        """Joules of the first layer."""
        return self.layers[0].additions * JOULES_PER_FLOP

    @property
    def energy(self) -> float:
        """Joules of one image."""
        return self.first_energy + self.additions * JOULES_PER_OPERATION

    def as_dict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return dataclasses.asdict(self) | {
            "additions": self.additions,
            "first_layer_joules": self.first_energy,
            "joules": self.energy,
            "densities": {layer.name: layer.density for layer in self.layers[1:]},
        }


def count_operations(program: Program, images: int) -> Operations:
    """Count on the first bundled images of the program's data set. Raises InputError where there are none."""
    items = gather_items(Selection(limit=images), program)
    codes = to_codes([item.load() for item in items], program.input)
    golden = GoldenModel(program, config_of(program))
    events = dict.fromkeys((descriptor for info in program.layers for descriptor, _, _ in info.strips), 0.0)
    steps = dict.fromkeys(events, 1)
    for start in range(0, len(codes), golden.batch):
        for found in golden.statistics(codes[start : start + golden.batch]):
            events[found.index] += float(found.gathered.sum())
            steps[found.index] = found.gathered.shape[1]
    layers = []
    for index, info in enumerate(program.layers):
        dense = info.additions * steps[info.strips[0][0]]
        gathered = sum(events[descriptor] for descriptor, _, _ in info.strips)
        additions = gathered / len(codes) * info.shape[0] if index else float(dense)
        layers.append(LayerOperations(name=info.name, dense=dense, additions=additions))
    return Operations(model=program.name, timesteps=program.timesteps, images=len(codes), layers=tuple(layers))


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
    results = [count_operations(program, images) for program in programs]
    for result in results:
        click.echo(table(result))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([result.as_dict() for result in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main, "operations.py")
