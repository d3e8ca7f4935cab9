"""Every network in every system: does it compile, does it fit, is the gateware equal to the golden model, and how long.

    python benchmarks/matrix.py --out out/matrix                                     # all of it, resumable
    python benchmarks/matrix.py --out out/matrix --network resnet20 --system reverb --data-dir data
    python benchmarks/matrix.py --out out/matrix --trained resnet20-classic:reverb-learnable=runs/r20/best.safetensors

Writes OUT/matrix.json and a table. Networks are untrained unless --trained says otherwise: random weights, normalised
by the currents of the images, factors of gates from -2 to 2, alpha from 0.5 to 1.5 and of both signs; the last layer is
fitted to the labels of some training images (ridge regression), so that all classes are named, `top1` of them rightly.
Without --data-dir nothing is fitted. Images are CIFAR-10's test images (--data-dir), else
structured ones that this command draws; networks of 224x224 pixels see them enlarged, networks of event frames see them
moved about (synthetic events). `fits` and `short_of` are about the board (--board); cycles and logits are those of
--target, in simulation: of one image, by the gateware, else (`golden_equals_rtl` null) by the cycle model.
`float_golden_top1_agreement` is with the network as it is trained and tested, in double precision, real-valued spikes
rounded to 8 bits; `unrounded_golden_top1_agreement` with the same network in which no spike is rounded. An untrained
network may name few classes whatever it sees (`classes_named`), and agreement then says little;
`centred_top1_agreement` is that of the logits less their mean over the images. `compared` says what of the
image: every tensor, or (of long ones) logits, events and passes of every descriptor. Short runs come first.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from matrix_networks import SIDES, SYSTEMS, Images, Labelled, for_fitting, inputs_of, pictures, untrained
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.pipeline import CompileOptions, compile_network
from reverb_fpga.compiler.program import Program
from reverb_fpga.host import cli
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Counter
from reverb_fpga.hw.errors import InputError, ReverbError
from reverb_fpga.models.checkpoint import Checkpoint, read_checkpoint
from reverb_fpga.models.data import load_split
from reverb_fpga.models.files import write_whole
from reverb_fpga.models.network import Network
from reverb_fpga.models.quant import quantise_multibit
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore
from reverb_fpga.sim.verify import Verifier

NETWORKS = {  # what the papers report, and cnv and resnet20-classic in all systems
    "cnv": tuple(SYSTEMS),
    "resnet20-classic": tuple(SYSTEMS),
    "resnet20": ("reverb", "reverb-learnable", "ternary", "snn", "bsnn", "agmm-bsnn"),
    "resnet19": ("reverb", "reverb-learnable", "bsnn", "agmm-bsnn"),
    "vggsnn": ("reverb", "reverb-learnable"),
    "resnet18": ("reverb", "reverb-learnable", "bsnn", "agmm-bsnn"),
    "resnet34": ("reverb", "reverb-learnable"),
}
_BATCH = 10
_THOROUGH = 1_500_000  # cycles: reading every tensor of longer images takes longer than computing them


@dataclasses.dataclass(frozen=True)
class Row:
    """One network in one system; ``short_of`` says what the board lacks, None if nothing."""

    network: str
    system: str
    timesteps: int
    target: str
    fits: bool
    short_of: str | None
    golden_equals_rtl: bool | None
    images: int
    cycles: int | None
    float_golden_top1_agreement: float | None
    unrounded_golden_top1_agreement: float | None = None
    centred_top1_agreement: float | None = None
    classes_named: int | None = None
    trained: bool = False
    fitted: bool = False
    top1: float | None = None
    compared: str | None = None
    compared_images: int = 0


def shortage(checkpoint: Checkpoint, board: Config, options: CompileOptions) -> str | None:
    """What the board lacks for it; None if nothing."""
    try:
        compile_network(checkpoint, board, options)
    except InputError as error:
        return str(error)
    return None


def codes_of(program: Program, pixels: Images) -> Images:
    """Input codes (N, T_in, H, W, C) of pixels (N, [T,] C, H, W)."""
    transform = program.input
    scale, offset = (np.asarray(values)[:, None, None] for values in (transform.scale, transform.offset))
    codes = np.floor(pixels * scale + offset + 0.5).clip(0, 255).astype(np.uint8)
    codes = codes if codes.ndim == 5 else codes[:, None]
    return np.ascontiguousarray(codes.transpose(0, 1, 3, 4, 2))


def float_logits(checkpoint: Checkpoint, pixels: Images, rounded: bool) -> NDArray[np.float64]:
    """Of the float network: as it is trained and tested (real-valued spikes rounded to codes), or nothing rounded.

    In double precision: with spikes of 0 and 1 an untrained deep network multiplies even what single precision rounds.
    """
    net = Network(checkpoint.spec)
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in checkpoint.tensors.items()}
    net.load_state_dict(net.state_dict() | state)
    _double(net.eval())
    net.set_quantised(rounded)
    with torch.no_grad():
        parts = [
            net(torch.from_numpy(pixels[at : at + _BATCH]).double()).numpy() for at in range(0, len(pixels), _BATCH)
        ]
        return np.concatenate(parts)


@torch.no_grad()
def _double(net: Network) -> None:
    """In double precision, with the integer weights that it has in single."""
    for layer in net.stages():
        weight, kind = layer.weight, layer.spec.weight.kind
        if weight is None or kind not in ("multibit", "ternary"):
            continue
        wanted = layer.effective_weight()
        if kind == "multibit":
            integers, scale = quantise_multibit(weight, layer.spec.weight.bits)
            wanted = integers.double() * scale.double().reshape(-1, *[1] * (weight.dim() - 1))
        weight.data = wanted.double()
    net.double()


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of images of which both logits name the same class."""
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


def centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Less what all images have in common, which in an untrained network decides alone."""
    return logits - logits.mean(axis=0, keepdims=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A row before the gateware has run, and its program; None if the target is short of something."""

    row: Row
    program: Program | None


def prepare(checkpoint: Checkpoint, shown: Labelled, config: Config, board: Config) -> Prepared:
    """Compile, run the golden model, compare with the float network, predict the cycles."""
    spec, pixels = checkpoint.spec, shown.pixels
    options = CompileOptions(static_input=pixels.ndim == 4)
    short = shortage(checkpoint, board, options)
    row = Row(spec.arch, spec.system, spec.timesteps, config.name, short is None, short, None, 0, None, None)
    try:
        compiled = compile_network(checkpoint, config, options)
    except InputError as error:
        told = str(error) if short is None else f"{short}; {error}"
        return Prepared(dataclasses.replace(row, short_of=told), None)
    codes = codes_of(compiled.program, pixels)
    model = CycleModel(compiled.program, config)
    golden = np.concatenate([model.golden.run(codes[at : at + _BATCH]) for at in range(0, len(codes), _BATCH)])
    found = float_logits(checkpoint, pixels, rounded=True)
    unrounded = float_logits(checkpoint, pixels, rounded=False) if spec.rounds else found
    row = dataclasses.replace(
        row,
        cycles=model.cycles(codes[:1])[0],
        float_golden_top1_agreement=agreement(golden, found),
        centred_top1_agreement=agreement(centred(golden), centred(found)),
        unrounded_golden_top1_agreement=agreement(golden, unrounded),
        classes_named=len(np.unique(golden.argmax(axis=1))),
        compared_images=len(codes),
        top1=float((golden.argmax(axis=1) == shown.labels).mean()) if len(shown.labels) else None,
    )
    return Prepared(row, compiled.program)


def simulate(row: Row, program: Program, pixels: Images, config: Config, core: RtlCore) -> Row:
    """One image (1, [T,] C, H, W) on the gateware, compared with the golden model."""
    codes = codes_of(program, pixels)
    core.load(program)
    golden = GoldenModel(program, config)
    equal = bool((core.infer(golden.input_bytes(codes)[0]) == golden.run(codes)[0]).all())
    cycles = core.cycles
    for strip in CycleModel(program, config).strips(codes)[0]:
        found = core.counters(strip.index)
        equal = equal and (found[Counter.EVENTS], found[Counter.PASSES]) == (strip.events, strip.passes)
    compared = "logits, events and passes"
    if equal and cycles <= _THOROUGH:
        result = Verifier(program, config, core).run(codes)
        equal, compared = result.difference is None, "every tensor"
        if result.difference is not None:
            click.echo(f"{row.network} {row.system}: {result.difference}", err=True)
    return dataclasses.replace(row, golden_equals_rtl=equal, images=1, cycles=cycles, compared=compared)


def table(rows: list[Row]) -> str:
    """Markdown."""
    heading = (
        "network", "system", "T", "weights", "fits the board", "golden = RTL", "cycles", "images",
        "agrees with float", "unrounded", "centred", "classes", "right",
    )  # fmt: skip
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for row in rows:
        equal = {None: "not run", True: f"identical ({row.compared})", False: "DIFFERS"}[row.golden_equals_rtl]
        cycles = "" if row.cycles is None else f"{row.cycles:,}{'' if row.golden_equals_rtl else ' (cycle model)'}"
        shares = (
            row.float_golden_top1_agreement, row.unrounded_golden_top1_agreement, row.centred_top1_agreement
        )  # fmt: skip
        agrees = ["" if share is None else f"{100 * share:.0f} %" for share in shares]
        weights = "trained" if row.trained else "random, last layer fitted" if row.fitted else "random"
        cells = (
            f"`{row.network}`", row.system, str(row.timesteps), weights,
            "yes" if row.fits else "no", equal, cycles, str(row.compared_images), *agrees,
            str(row.classes_named or ""), "" if row.top1 is None else f"{100 * row.top1:.0f} %",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _trained(values: tuple[str, ...]) -> dict[tuple[str, str], Path]:
    found = {}
    for value in values:
        pair, _, path = value.partition("=")
        network, _, system = pair.partition(":")
        if not path or network not in NETWORKS or system not in SYSTEMS:
            raise InputError(f"--trained {value}: expected NETWORK:SYSTEM=CHECKPOINT")
        found[network, system] = Path(path)
    return found


@click.command(help=__doc__)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these.")
@click.option("--system", "systems", multiple=True, type=click.Choice(list(SYSTEMS)), help="Only these.")
@click.option("--target", default="large", show_default=True, help="Configuration that runs.")
@click.option("--board", default="ulx3s-85f", show_default=True, help="Configuration of which the fit is told.")
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where CIFAR-10 lies.")
@click.option("--images", default=100, show_default=True, type=click.IntRange(1), help="For agreement.")
@click.option(
    "--large-images", default=20, show_default=True, type=click.IntRange(1), help="Of 224x224, for agreement."
)
@click.option("--trained", multiple=True, metavar="NETWORK:SYSTEM=CHECKPOINT")
@click.option("--no-rtl", is_flag=True, help="Leave the gateware out.")
def main(
    out: Path, networks: tuple[str, ...], systems: tuple[str, ...], target: str, board: str, data_dir: Path | None,
    images: int, large_images: int, trained: tuple[str, ...], no_rtl: bool,
) -> None:  # fmt: skip
    """Entry point."""
    given = _trained(trained)
    rows = out / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    config, limits = preset(target), preset(board)
    wanted = [
        (network, system)
        for network, of_network in NETWORKS.items()
        for system in of_network
        if (not networks or network in networks) and (not systems or system in systems)
    ]
    source = Source(data_dir, images, min(images, large_images), given)
    waiting = []
    for number, (network, system) in enumerate(wanted, start=1):
        path = rows / f"{network}-{system}.json"
        click.echo(f"[{number}/{len(wanted)}] {network} {system}{': done' if path.exists() else ''}", err=True)
        if not path.exists():
            _write(path, source.row(network, system, config, limits, path.with_suffix(".rvb")))
        row = _read(path)
        if row.golden_equals_rtl is None and row.float_golden_top1_agreement is not None:
            waiting.append((row.cycles or 0, network, system, path))
    _write_table(out)
    if waiting and not no_rtl:
        with RtlCore(config, progress=lambda line: click.echo(line, err=True)) as core:
            for number, (cycles, network, system, path) in enumerate(sorted(waiting), start=1):
                told = f"[{number}/{len(waiting)}] {network} {system}: {cycles:,} cycles in simulation"
                click.echo(told, err=True)
                program = rvb.load(path.with_suffix(".rvb"))
                started = time.monotonic()
                _write(path, simulate(_read(path), program, source.shown(network).pixels[:1], config, core))
                click.echo(f"{time.monotonic() - started:.0f} s", err=True)
                _write_table(out)
    click.echo(table(_table(out)))


@dataclasses.dataclass(frozen=True)
class Source:
    """Where networks and images come from: checkpoints that were given, or random weights."""

    data_dir: Path | None
    images: int
    large_images: int
    given: Mapping[tuple[str, str], Path]

    def shown(self, network: str) -> Labelled:
        """The images that are compared, with the labels that there are."""
        number = self.large_images if SIDES.get(network) == 224 else self.images
        if self.data_dir is None:
            return Labelled(inputs_of(network, pictures(number)), np.zeros(0, dtype=np.int64))
        data = load_split("cifar10", self.data_dir, "test")
        return Labelled(inputs_of(network, data.images[:number]), data.labels[:number])

    def row(self, network: str, system: str, config: Config, board: Config, program: Path) -> Row:
        """A row before the gateware has run; its program is kept."""
        shown, path = self.shown(network), self.given.get((network, system))
        fit = None
        if path is None and self.data_dir is not None:
            fit = for_fitting(network, load_split("cifar10", self.data_dir, "train"))
        try:
            checkpoint = untrained(network, system, shown.pixels, fit) if path is None else read_checkpoint(path)
            done = prepare(checkpoint, shown, config, board)
        except ReverbError as error:
            raise type(error)(f"{network} {system}: {error}") from None
        if done.program is not None:
            rvb.save(done.program, program)
        return dataclasses.replace(done.row, trained=path is not None, fitted=fit is not None)


def _write(path: Path, row: Row) -> None:
    write_whole(path, json.dumps(dataclasses.asdict(row)).encode())


def _read(path: Path) -> Row:
    return Row(**json.loads(path.read_text()))


def _table(out: Path) -> list[Row]:
    """The rows that there are, in the order of the networks."""
    paths = [out / "rows" / f"{network}-{system}.json" for network, found in NETWORKS.items() for system in found]
    return [_read(path) for path in paths if path.exists()]


def _write_table(out: Path) -> None:
    rows = [dataclasses.asdict(row) for row in _table(out)]
    write_whole(out / "matrix.json", (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    cli.run(main, "matrix.py")
