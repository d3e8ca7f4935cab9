"""What row mode gives: compiled chains, compiled again for a configuration that has it; cycles by layer, as a table.

python benchmarks/row_mode.py cifar10-cnv cifar10-cnv-t2 fashion-mnist
python benchmarks/row_mode.py fashion-mnist cifar10-cnv --target row-96 --rtl
python benchmarks/row_mode.py cifar10-cnv --save out     writes out/cifar10-cnv-row.rvb
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.geometry import Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.program import Program, ProgramMeta
from reverb_fpga.host import bundled
from reverb_fpga.host.backends import config_of
from reverb_fpga.host.images import to_codes
from reverb_fpga.host.inputs import Selection, gather_items
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Csr
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel, image_cycles
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.golden.schedule import Strip
from reverb_fpga.sim.rtl_core import RtlCore

Codes = NDArray[np.uint8]

MIDDLE = dataclasses.replace(
    preset("tiny-row"), name="row-96", lanes_per_cluster=16, neuron_lanes=8, act_words=32768, count_words=8192,
    weight_rows=8192, param_groups=256, layer_groups=64, slot_entries=1024,
)  # fmt: skip
"""96 lanes in two banks, for every bundled chain: CNV has to share weight rows. A core that compiles in minutes."""


def network_of(program: Program, config: Config) -> IntNetwork:
    """The network of a compiled chain, from its weight planes, walks and parameters. InputError if it is no chain."""
    strips = {strip.index: strip for strip in GoldenModel(program, config).schedule.strips}
    source, channels = INPUT, program.input.channels
    pad = np.zeros(channels, dtype=np.uint8)
    layers: list[IntLayer] = []
    for info in program.layers:
        if len(info.maps) > 1:
            raise InputError(f"layer {info.name} has a shortcut: only chains can be compiled again")
        strip = strips[info.strips[0][0]]
        if strip.pad is not None:
            pad = strip.pad[:channels]
        layers.append(_layer(info.name, source, channels, info.shape[0], strip))
        source, channels = info.name, info.shape[0]
    transform = program.input
    steps = program.descriptor(0)[1]["in_records"] // (transform.height * transform.width)
    first = IntInput(transform.channels, transform.height, transform.width, pad)
    return IntNetwork(first, tuple(layers), program.timesteps, static_input=steps == 1)


def _layer(name: str, source: str, c_in: int, c_out: int, strip: Strip) -> IntLayer:
    f = strip.fields
    matrix = strip.weights.matrix.reshape(f["n_tap_y"], f["n_tap_x"], -1, strip.weights.matrix.shape[1])
    weight = matrix[:, :, :c_in, :c_out].transpose(3, 2, 0, 1)
    planes = [(entry.shift, entry.negate) for entry in strip.weights.entries if entry.group == 0]
    kind = WeightKind.BINARY if strip.weights.entries[0].subtract_s else WeightKind.MULTIBIT
    if kind is WeightKind.MULTIBIT and planes[-1] == (0, True):
        kind = WeightKind.TERNARY
    bits = len(planes) if kind is WeightKind.MULTIBIT else 1
    leg = IntMap(
        source, np.ascontiguousarray(weight), kind, bits, _geometry(f), strip.gain[:c_out], f["r_shift"],
        strip.bias[:c_out],
    )  # fmt: skip
    return IntLayer(
        name=name, maps=(leg,), threshold=strip.threshold[:c_out], tau_q=f["tau_q"], code_max=f["code_max"],
        spiking=bool(f["spiking"]), timesteps=f["timesteps"],
    )  # fmt: skip


def _geometry(f: dict[str, int]) -> Geometry:
    before, after, stride, padding = [], [], [], []
    for axis in "yx":
        number, tap, origin = f[f"n_pool_{axis}"], f[f"{axis}_tap"], f[f"i{axis}0"]
        pooled_input = number > 1 and tap > 1
        before.append(number if pooled_input else 1)
        after.append(1 if pooled_input else number)
        stride.append(f[f"{axis}_step"] // number)
        padding.append(-origin // (tap if pooled_input else 1))
    pools = [Pool((sides[0], sides[1]), (sides[0], sides[1])) for sides in (before, after)]
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (1, 1), *pools)


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


def again(program: Program, config: Config, target: Config, codes: Codes, row_mode: bool | None) -> Program:
    """The program for another configuration, after a check that its logits are the same."""
    network = network_of(program, config)
    meta = ProgramMeta(**{field.name: getattr(program, field.name) for field in dataclasses.fields(ProgramMeta)})
    moved = lower(network, target, meta, Hints(row_mode=row_mode))
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
@click.option("--save", type=click.Path(path_type=Path, file_okay=False), help="Write the programs there.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write JSON there.")
def main(models: tuple[str, ...], target: str, neuron_lanes: int | None, images: int, **options: Any) -> None:
    """Entry point."""
    rtl, save, out = (options[name] for name in ("rtl", "save", "out"))
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
            save.mkdir(parents=True, exist_ok=True)
            rvb.save(dataclasses.replace(moved, name=f"{name}-row"), save / f"{name}-row.rvb")
    if core is not None:
        core.close()
    if out is not None:
        out.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))


if __name__ == "__main__":
    main()
