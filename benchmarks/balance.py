"""What placing channels over the banks gives: compiled models, compiled again for the same target; cycles as a table.

python benchmarks/balance.py cifar10-cnv fashion-mnist --data-dir data
python benchmarks/balance.py cifar10-cnv fashion-mnist --data-dir data --save out     writes out/cifar10-cnv.rvb, ...

Training images decide where channels lie; cycles (cycle model) are those of test images. Logits are compared on more.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import numpy as np
from intnets import network_of, placing_codes

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.passes.reorder import in_first_order
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled, cli
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.balancing import balanced
from reverb_fpga.host.images import encoded
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.data import load_split
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One model.

    Parameters
    ----------
    file, again, placed : float
        Cycles of an image, mean: of the file, compiled again, and with its channels placed.
    layers : tuple of str
        That have another order.
    """

    name: str
    config: str
    file: float
    again: float
    placed: float
    layers: tuple[str, ...]


def rebuilt(program: Program, data_dir: Path) -> tuple[Program, Program, tuple[str, ...]]:
    """The program compiled again, as it was trained and with its channels placed, and the layers of which they were."""
    config = config_of(program)
    network = in_first_order(network_of(program, config))
    plain = lower(network, config, program.meta)
    found = balanced(plain, network, config, placing_codes(program, data_dir), measure=False)
    assert found is not None, "fewer than two images"
    return plain, found.program, found.balance.layers


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True)
@click.option("--data-dir", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", default=20, show_default=True, help="Test images to average over.")
@click.option("--same", default=500, show_default=True, help="Test images on which all logits have to be the same.")
@click.option("--save", type=click.Path(path_type=Path, file_okay=False), help="Write the programs there.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write JSON there.")
def main(models: tuple[str, ...], data_dir: Path, images: int, same: int, save: Path | None, out: Path | None) -> None:
    """Entry point."""
    outcomes = []
    click.echo(f"{'model':18}{'configuration':15}{'file':>10}{'again':>10}{'placed':>10}{'saved':>8}  as they were")
    for model in models:
        program, path = bundled.load_model(model), bundled.find_model(model)
        config = config_of(program)
        plain, placed, layers = rebuilt(program, data_dir)
        pixels = load_split(program.dataset, data_dir, "test").images
        codes = encoded(list(pixels[: max(images, same)]), program)
        logits = [GoldenModel(which, config).run(codes[:same]) for which in (program, plain, placed)]
        if not all(np.array_equal(logits[0], others) for others in logits[1:]):
            raise InputError(f"{model}: with its channels placed, its logits are others")
        cycles = [
            float(np.mean(CycleModel(which, config).cycles(codes[:images]))) for which in (program, plain, placed)
        ]
        outcomes.append(Outcome(path.stem, config.name, cycles[0], cycles[1], cycles[2], layers))
        kept = [info.name for info in program.layers[:-1] if info.name not in layers]
        click.echo(
            f"{path.stem:18}{config.name:15}" + "".join(f"{number:10,.0f}" for number in cycles)
            + f"{100 * (1 - cycles[2] / cycles[1]):6.1f} %  {' '.join(kept)}"
        )  # fmt: skip
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            rvb.save(placed, save / f"{path.stem}.rvb")
    if out is not None:
        out.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))


if __name__ == "__main__":
    cli.run(main, "balance.py")
