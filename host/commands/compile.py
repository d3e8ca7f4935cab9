"""``reverb-fpga compile``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from reverb_fpga.compiler.manifest import MAX_TEXT
from reverb_fpga.hw.config import PRESETS, Config, preset
from reverb_fpga.hw.errors import EnvironmentMissing, InputError, printable

from ..console import make_table
from ..console import output as standard_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reverb_fpga.compiler.pipeline import Compilation
    from reverb_fpga.compiler.program import Program
    from reverb_fpga.compiler.report import CompileReport
    from reverb_fpga.models.description import NetworkSpec

    from ..agreement import Agreement
    from ..balancing import Balance

__all__ = ["command"]

_CHECKED = 16
_NOT_COMPARED = (
    "note: not compared with the trained network, so how often they decide alike is not known "
    "(--dataset NAME --data-dir DIR give images; it needs torch)"
)
_EXAMPLES = """\b
Examples:
  reverb-fpga compile runs/fmnist/best.safetensors -o fmnist.rvb
  reverb-fpga compile runs/cnv/best.safetensors -o cnv.rvb --target ulx3s-85f --json
  reverb-fpga compile float.safetensors -o net.rvb --dataset cifar10 --data-dir data

--dataset and --data-dir give sample images (of the training split) for networks that were trained without
quantisation (--act-bits float); others need none."""


@click.command(name="compile", epilog=_EXAMPLES)
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="NAME.rvb", help="To write.")
@click.option(
    "--target", type=click.Choice(list(PRESETS)), default="ulx3s-85f", show_default=True, help="Configuration."
)
@click.option("--dataset", default=None, help="Data set with sample images for calibration.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with its files.  [default: data]")
@click.option(
    "--samples", type=click.IntRange(1, 10_000), default=256, show_default=True, help="Images used for calibration."
)
@click.option(
    "--check",
    type=click.IntRange(0, 10_000),
    default=None,
    metavar="N",
    help="Compare the program with the float network on N sample images.  [default: 16, if images are at hand]",
)
@click.option(
    "--no-balance", is_flag=True, help="Leave the order of channels, which sample images decide if there are any."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(
    checkpoint: Path,
    output: Path,
    target: str,
    dataset: str | None,
    data_dir: Path | None,
    samples: int,
    check: int | None,
    no_balance: bool,
    as_json: bool,
) -> None:
    """Compile a trained network (CHECKPOINT, .safetensors) for a board."""
    from reverb_fpga.compiler import rvb
    from reverb_fpga.compiler.pipeline import CompileOptions, compile_network
    from reverb_fpga.models.checkpoint import read_checkpoint
    from reverb_fpga.models.files import check_output

    check_output(output)  # before the work
    network = read_checkpoint(checkpoint)
    images = _samples(dataset, data_dir, samples, network.spec)
    compiled = compile_network(network, preset(target), CompileOptions(name=_name(output), images=images))
    placed: Balance | None = None
    if not no_balance:
        compiled, placed = _balanced(compiled, preset(target), network.spec, images)
    rvb.save(compiled.program, output)
    found = _sample_images(network.spec, images, check)
    agreed = None if found is None else _check(checkpoint, compiled.program, preset(target), found, check)
    if as_json:
        compared = dataclasses.asdict(agreed) if agreed else None
        told = {"check": compared, "balance": dataclasses.asdict(placed) if placed else None}
        click.echo(json.dumps({"output": str(output), **compiled.report.as_dict(), **told}))
    else:
        _print(compiled.report, output)
        if placed is not None:
            standard_output().say(str(placed))
        standard_output().say(str(agreed) if agreed else _NOT_COMPARED)


def _name(output: Path) -> str:
    """The program's name, which is kept in its file."""
    name = output.stem
    if not name.isprintable() or len(name) > MAX_TEXT:
        raise InputError(f"{output}: a program cannot have this name: at most {MAX_TEXT} printable characters")
    return name


def _balanced(
    compiled: Compilation, config: Config, spec: NetworkSpec, images: NDArray[np.uint8] | None
) -> tuple[Compilation, Balance | None]:
    """Channels placed by sample images (N, C, H, W) or (N, T, C, H, W), or by those bundled with the package."""
    import numpy as np

    from ..agreement import bundled_samples
    from ..balancing import IMAGES, balanced_compilation
    from ..images import encoded

    if images is None:
        images = bundled_samples(spec.dataset, (spec.input.height, spec.input.width, spec.input.channels), IMAGES)
    if images is None:
        return compiled, None
    codes = encoded(list(np.moveaxis(images, -3, -1)), compiled.program)
    return balanced_compilation(compiled, config, codes)


def _sample_images(spec: NetworkSpec, images: NDArray[np.uint8] | None, count: int | None) -> NDArray[np.uint8] | None:
    """Of the data set that was given, else those bundled with the package; None if there are none, or none wanted."""
    from ..agreement import bundled_samples

    wanted = _CHECKED if count is None else count
    if not wanted:
        return None
    if images is None:
        images = bundled_samples(spec.dataset, (spec.input.height, spec.input.width, spec.input.channels), wanted)
    if images is None:
        if count:
            raise InputError(f"--check: no images of {spec.dataset} at hand; give --dataset NAME and --data-dir DIR")
        return None
    return images[:: max(1, len(images) // wanted)][:wanted]


def _check(
    checkpoint: Path, program: Program, config: Config, images: NDArray[np.uint8], count: int | None
) -> Agreement | None:
    """None without torch, unless it was asked for."""
    from ..agreement import agreement

    try:
        return agreement(checkpoint, program, config, images)
    except EnvironmentMissing:
        if count:
            raise
        return None


def _samples(dataset: str | None, data_dir: Path | None, count: int, spec: NetworkSpec) -> NDArray[np.uint8] | None:
    """(N, C, H, W), or (N, T, C, H, W) of event data, spread evenly over the training split."""
    if dataset is None:
        if data_dir is not None:
            raise InputError("--data-dir DIR goes with --dataset NAME")
        return None
    import numpy as np

    from reverb_fpga.models.data import DEFAULT_DATA_DIR, load_split

    source = spec.input
    shape = (source.height, source.width, source.channels)
    data = load_split(dataset, data_dir or DEFAULT_DATA_DIR, "train", shape, steps=spec.timesteps)
    if data.images.shape[1:] != (shape if spec.static_input else (spec.timesteps, *shape)):
        raise InputError(
            f"images of {dataset} are {data.images.shape[1:]}, the network takes {shape} (height, width, channels)"
        )
    if data.skipped:
        click.echo(f"note: {len(data.skipped)} pictures cannot be read; the first: {data.skipped[0]}", err=True)
    return np.moveaxis(data.images[:: max(1, len(data) // count)][:count], -1, -3)


def _print(report: CompileReport, output: Path) -> None:
    console = standard_output()
    console.say(printable(f"{report.name} for {report.target}: {output}"))
    console.say(_time(report))
    console.table(_layers(report))
    origins = sorted({layer.code_origin for layer in report.layers if layer.code_origin})
    if origins:
        console.say(f"code steps from {' and '.join(origins)}")
    console.table(_uses(report))
    console.say(_block_rams(report))
    for note in report.notes:
        console.say(f"note: {note}")


def _time(report: CompileReport) -> str:
    if report.timesteps < report.timesteps_trained:
        return f"trained with T = {report.timesteps_trained}; every tensor is the same at every step, so T = 1 is exact"
    changing = [name for name, static, _ in report.invariance if not static]
    if report.timesteps == 1 or not changing:
        return f"T = {report.timesteps}"
    return f"T = {report.timesteps}: from {changing[0]} on, tensors change from step to step"


def _layers(report: CompileReport) -> Table:
    headings = ("fan-in", "z\nbits", "rows", "block\nRAMs", "strips", "additions", "code\nstep")
    table = make_table("layer", "output", "weights", right=headings, gap=1)
    for layer in report.layers:
        own, step = layer.maps[-1], "" if layer.code_step is None else f"{layer.code_step:.4g}"
        table.add_row(
            layer.name, "x".join(str(side) for side in layer.shape), own.weights, f"{own.fan_in:,}",
            str(own.z_bits), f"{own.rows:,}", f"{layer.weight_blocks:.1f}", str(layer.strips),
            f"{layer.additions:,}", step,
        )  # fmt: skip
        for leg in layer.maps[:-1]:
            table.add_row(
                f"+ {leg.source}",
                "",
                leg.weights,
                f"{leg.fan_in:,}",
                str(leg.z_bits),
                f"{leg.rows:,}",
                "",
                "",
                "",
                "",
            )
    return table


def _uses(report: CompileReport) -> Table:
    table = make_table("memory", right=("used", "of", "share"))
    for use in report.uses:
        share = f"{100 * use.used / use.available:.0f} %"
        table.add_row(use.resource, f"{use.used:,}", f"{use.available:,}", share)
    return table


def _block_rams(report: CompileReport) -> str:
    blocks = report.block_rams
    parts = ", ".join(f"{use} {count}" for use, count in blocks.items())
    of = f" of {report.block_rams_available}" if report.block_rams_available is not None else ""
    return f"block RAM of the overlay (estimate): {parts}: {sum(blocks.values())}{of}"
