"""What row mode gives: compiled programs, compiled again for a configuration that has it; cycles by layer, as a table.

python benchmarks/row_mode.py cifar10-cnv cifar10-cnv-t2 fashion-mnist
python benchmarks/row_mode.py fashion-mnist cifar10-cnv --target row-96 --rtl
python benchmarks/row_mode.py cifar10-cnv --save out --data-dir data     writes out/cifar10-cnv-row.rvb
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from intnets import network_of, placing_codes
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.passes.reorder import in_first_order
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import bundled
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.balancing import balanced
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Csr
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel, image_cycles
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore

Codes = NDArray[np.uint8]

MIDDLE = dataclasses.replace(
    preset("tiny-row"), name="row-96", lanes_per_cluster=16, neuron_lanes=8, act_words=32768, count_words=8192,
    weight_rows=8192, param_groups=256, layer_groups=64, slot_entries=1024,
)  # fmt: skip
"""96 lanes in two banks, for every bundled chain: CNV has to share weight rows. A core that compiles in minutes."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One program on one configuration; means over the images.

    Parameters
    ----------
    cycles : float
        Of an image, by the cycle model.
    rtl : float or None
        The same, counted by the gateware.
    beats : dict
        By layer.
    rows : dict
        Whether a layer is in row mode.
    weight_rows : int
        In each bank.
    """

    name: str
    config: str
    cycles: float
    rtl: float | None
    beats: dict[str, float]
    rows: dict[str, bool]
    weight_rows: int


def measure(program: Program, config: Config, codes: Codes, core: RtlCore | None) -> Outcome:
    """Cycles of a program on some images."""
    model = CycleModel(program, config)
    images = model.strips(codes)
    layer_of = {index: program.descriptor(index)[1]["layer"] for index in (strip.index for strip in images[0])}
    beats = dict.fromkeys((info.name for info in program.layers), 0.0)
    rows = dict.fromkeys(beats, False)
    for strips in images:
        for strip in strips:
            name = program.layers[layer_of[strip.index]].name
            beats[name] += strip.beats / len(images)
            rows[name] |= program.descriptor(strip.index)[1]["row_passes"] > 0
    rtl = None
    if core is not None:
        core.load(program)
        found = []
        for data, logits in zip(model.golden.input_bytes(codes), model.golden.run(codes), strict=True):
            if list(core.infer(data)) != logits.tolist():
                raise InputError(f"{program.name}: the gateware of {config.name} computes other logits")
            found.append(core.csr(Csr.CYCLES))
        rtl = float(np.mean(found))
    used = len(program.weight) // (config.banks * config.weight_words)
    cycles = float(np.mean([image_cycles(strips) for strips in images]))
    return Outcome(program.name, config.name, cycles, rtl, beats, rows, used)


def again(
    program: Program, config: Config, target: Config, codes: Codes, row_mode: bool | None, placing: Codes | None = None
) -> Program:
    """The program for another configuration, after a check that its logits are the same.

    Parameters
    ----------
    placing : uint8 array (N, T_in, H, W, C) or None
        Input codes by which its channels are placed over the banks; None: they stay as they were trained.
    """
    network, hints = in_first_order(network_of(program, config)), Hints(row_mode=row_mode)
    moved = lower(network, target, program.meta, hints)
    if placing is not None:
        found = balanced(moved, network, target, placing, hints=hints, measure=False)
        assert found is not None, "fewer than two images"
        moved = found.program
    if not np.array_equal(GoldenModel(moved, target).run(codes), GoldenModel(program, config).run(codes)):
        raise InputError(f"{program.name}: compiled again, its logits are others")
    return moved


def with_lanes(config: Config, neuron_lanes: int | None) -> Config:
    """The configuration with another number of neuron lanes, and as many channels as before."""
    if neuron_lanes is None:
        return config
    groups = (config.layer_groups * config.neuron_lanes, config.param_groups * config.neuron_lanes)
    layer_groups, param_groups = (channels // neuron_lanes for channels in groups)
    return dataclasses.replace(
        config, neuron_lanes=neuron_lanes, layer_groups=layer_groups, param_groups=param_groups,
        name=f"{config.name}-{neuron_lanes}",
    )  # fmt: skip


def line(outcome: Outcome) -> str:
    rtl = f"{outcome.rtl:9,.0f}" if outcome.rtl is not None else "        -"
    layers = " ".join(
        f"{name}{'*' if outcome.rows[name] else ''}:{beats:,.0f}" for name, beats in outcome.beats.items()
    )
    return (
        f"{outcome.name:16}{outcome.config:16}{outcome.cycles:10,.0f}{rtl} {sum(outcome.beats.values()):9,.0f} "
        f"{outcome.weight_rows:6}  {layers}"
    )


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--target", default="ulx3s-85f-row", show_default=True, help="Configuration with row mode; row-96: for --rtl."
)
@click.option("--neuron-lanes", type=int, help="Instead of those of the target; two take turns on one datapath.")
@click.option("--images", default=2, show_default=True, help="Bundled images to average over.")
@click.option("--rtl", is_flag=True, help="Run the target's gateware as well.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the programs there, their channels placed over the banks.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Place channels by training images of this folder instead of bundled test images.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write JSON there.")
def main(models: tuple[str, ...], target: str, neuron_lanes: int | None, images: int, **options: Any) -> None:
    """Entry point."""
    rtl, save, data_dir, out = (options[name] for name in ("rtl", "save", "data_dir", "out"))
    config = with_lanes(MIDDLE if target == MIDDLE.name else preset(target), neuron_lanes)
    core = RtlCore(config, progress=click.echo) if rtl else None
    outcomes = []
    click.echo(
        f"{'model':16}{'configuration':16}{'cycles':>10}{'RTL':>9} {'beats':>9} {'rows':>6}  beats by layer, * row mode"
    )
    for name in models:
        program = bundled.load_model(name)
        own = config_of(program)
        items = gather_items(Selection(limit=images), program)
        codes = to_codes([item.load() for item in items], program.input)
        outcomes.append(measure(program, own, codes, None))
        click.echo(line(outcomes[-1]))
        for row_mode in (False, None):
            moved = again(program, own, config, codes, row_mode)
            outcomes.append(measure(moved, config, codes, core))
            click.echo(line(outcomes[-1]))
        if save is not None:
            moved = again(program, own, config, codes, None, placing_codes(program, data_dir))
            outcomes.append(measure(moved, config, codes, core))
            click.echo(line(outcomes[-1]) + "  (channels placed)")
            save.mkdir(parents=True, exist_ok=True)
            of_rows = f"{name.removesuffix('-classic')}-row"  # a name has 16 characters at most
            rvb.save(dataclasses.replace(moved, name=of_rows), save / f"{of_rows}.rvb")
    if core is not None:
        core.close()
    if out is not None:
        out.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))


if __name__ == "__main__":
    main()
