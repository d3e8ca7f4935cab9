"""Every network in every system: does it compile, does it fit, is the gateware equal to the golden model, and how long.

    python benchmarks/matrix.py --out out/matrix                                     # all of it, resumable
    python benchmarks/matrix.py --out out/matrix --network resnet20 --system reverb --data-dir data
    python benchmarks/matrix.py --out out/matrix --trained resnet20-classic:reverb-learnable=runs/r20/best.safetensors

Writes OUT/matrix.json and a table. Networks are untrained unless --trained says otherwise: random weights, normalised
by the currents of the images, factors of gates from -2 to 2. Images are CIFAR-10's test images (--data-dir), else
structured ones that this command draws; networks of 224x224 pixels see them enlarged, networks of event frames see them
moved about (synthetic events). `fits` and `short_of` are about the board (--board); cycles and logits are those of
--target, in simulation: of one image, by the gateware, else (`golden_equals_rtl` null) by the cycle model.
`float_golden_top1_agreement` is with the network as it is trained and tested, real-valued spikes rounded to 8 bits;
`unrounded_golden_top1_agreement` with the same network in which no spike is rounded. An untrained network may name few
classes whatever it sees (`classes_named`), and agreement then says little; `centred_top1_agreement` is that of the
logits less their mean over the images. `compared` says what of the image: every tensor, or (of long ones) logits,
events and passes of every descriptor. Short runs come first.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from reverb_fpga.compiler.pipeline import Compilation, CompileOptions, compile_network
from reverb_fpga.host import cli
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Counter
from reverb_fpga.hw.errors import InputError, ReverbError
from reverb_fpga.models.checkpoint import Checkpoint, read_checkpoint
from reverb_fpga.models.data import load_split
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.files import write_whole
from reverb_fpga.models.network import Network
from reverb_fpga.models.zoo import DatasetSpec, Options, build
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore
from reverb_fpga.sim.verify import Verifier

Images = NDArray[np.uint8]

SYSTEMS = {
    "reverb": Options(system="reverb", timesteps=2),
    "reverb-learnable": Options(system="reverb-learnable", timesteps=2),
    "ternary": Options(system="ternary", timesteps=2),
    "snn": Options(system="snn", timesteps=2, v_th=0.5, weight_bits=8),
    "bsnn": Options(system="bsnn", timesteps=2, v_th=0.5),
    "agmm-bsnn": Options(system="agmm-bsnn", timesteps=2, v_th=0.5),
}
NETWORKS = {  # what the papers report, and cnv and resnet20-classic in all systems
    "cnv": tuple(SYSTEMS),
    "resnet20-classic": tuple(SYSTEMS),
    "resnet20": ("reverb", "reverb-learnable", "ternary", "snn", "bsnn", "agmm-bsnn"),
    "resnet19": ("reverb", "reverb-learnable", "bsnn", "agmm-bsnn"),
    "vggsnn": ("reverb", "reverb-learnable"),
    "resnet18": ("reverb", "reverb-learnable", "bsnn", "agmm-bsnn"),
    "resnet34": ("reverb", "reverb-learnable"),
}
_SIDES = {"resnet18": 224, "resnet34": 224, "vggsnn": 48}
_EVENTS = {"vggsnn": 10}  # networks of event frames, and their steps
_CALIBRATION = 16
_GATES = (
    2.0  # factors of untrained gates lie between this and its negative; at 0, where training begins, all are a half
)
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
    compared: str | None = None


def pictures(data_dir: Path | None, number: int) -> Images:
    """uint8 (N, 32, 32, 3)."""
    if data_dir is not None:
        return load_split("cifar10", data_dir, "test").images[:number]
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:32]
    found = []
    for _ in range(number):  # gratings with a bright disc
        angle, period, phase = rng.uniform(0, np.pi), rng.uniform(4, 16), rng.uniform(0, 2 * np.pi, 3)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle))[..., None] * 2 * np.pi / period + phase)
        centre = rng.uniform(8, 24, 2)
        disc = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.uniform(3, 10) ** 2)[..., None]
        found.append(np.clip(128 + 90 * wave * rng.uniform(0.3, 1, 3) + 60 * disc, 0, 255))
    return np.array(found).astype(np.uint8)


def inputs_of(network: str, images: Images) -> Images:
    """Pixels as the network takes them: (N, C, H, W), or (N, T, 2, H, W) of synthetic events."""
    side = _SIDES.get(network, 32)
    shown = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    if side != 32:
        shown = torch.nn.functional.interpolate(shown, size=(side, side), mode="bilinear", align_corners=False)
    if network not in _EVENTS:
        return shown.round().byte().numpy()
    grey, frames = shown.mean(dim=1), []
    for step in range(_EVENTS[network]):  # the picture moves along a circle; a frame holds what became brighter, darker
        moved = [torch.roll(grey, (round(3 * np.sin(at)), round(3 * np.cos(at))), (1, 2)) for at in (step, step + 1)]
        change = moved[1] - moved[0]
        frames.append(torch.stack([change.clamp(min=0), (-change).clamp(min=0)], dim=1).clamp(max=255))
    return torch.stack(frames, dim=1).round().byte().numpy()


def untrained(network: str, system: str, pixels: Images) -> Checkpoint:
    """Random weights; normalisation and code steps as the currents of some images ask for."""
    options = dataclasses.replace(SYSTEMS[system], act_bits=8)
    if network in _EVENTS:
        options = dataclasses.replace(options, timesteps=_EVENTS[network], v_th=0.25)
    channels, height, width = pixels.shape[-3:]
    mean = 0 if network in _EVENTS else 120
    source = InputSpec(channels, height, width, (mean,) * channels, (60.0,) * channels)
    labels = tuple(str(label) for label in range(10))
    net: Network = build(network, DatasetSpec("cifar10", source, labels), options)
    some = torch.from_numpy(pixels[:_CALIBRATION])
    norms = [layer.bn for layer in net.stages() if layer.bn is not None]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the average over all batches
        net.set_quantised(False)
        factors = torch.Generator().manual_seed(9)
        for layer in net.stages():
            if layer.gate is not None:
                layer.gate.uniform_(-_GATES, _GATES, generator=factors)
        net.train()
        for start in range(0, len(some), 4):
            net(some[start : start + 4])
        net.eval()
        net.initialise_scales(some)
    state = net.state_dict()
    return Checkpoint(net.spec, {name: state[name].numpy() for name in net.spec.tensor_shapes()})


def shortage(checkpoint: Checkpoint, board: Config, options: CompileOptions) -> str | None:
    """What the board lacks for it; None if nothing."""
    try:
        compile_network(checkpoint, board, options)
    except InputError as error:
        return str(error)
    return None


def codes_of(compiled: Compilation, pixels: Images) -> Images:
    """Input codes (N, T_in, H, W, C) of pixels (N, [T,] C, H, W)."""
    transform = compiled.program.input
    scale, offset = (np.asarray(values)[:, None, None] for values in (transform.scale, transform.offset))
    codes = np.floor(pixels * scale + offset + 0.5).clip(0, 255).astype(np.uint8)
    codes = codes if codes.ndim == 5 else codes[:, None]
    return np.ascontiguousarray(codes.transpose(0, 1, 3, 4, 2))


def float_logits(checkpoint: Checkpoint, pixels: Images, rounded: bool) -> NDArray[np.float32]:
    """Of the float network: as it is trained and tested (real-valued spikes rounded to codes), or nothing rounded."""
    net = Network(checkpoint.spec)
    state = {name: torch.from_numpy(tensor) for name, tensor in checkpoint.tensors.items()}
    net.load_state_dict(net.state_dict() | state)
    net.eval()
    net.set_quantised(rounded)
    with torch.no_grad():
        return np.concatenate([net(torch.from_numpy(pixels[at : at + 10])).numpy() for at in range(0, len(pixels), 10)])


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of images of which both logits name the same class."""
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


def centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Less what all images have in common, which in an untrained network decides alone."""
    return logits - logits.mean(axis=0, keepdims=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A row before the gateware has run, with what it needs for that; ``compiled`` is None if the target is short."""

    row: Row
    compiled: Compilation | None
    codes: Images
    logits: NDArray[np.int64]


def prepare(checkpoint: Checkpoint, pixels: Images, config: Config, board: Config) -> Prepared:
    """Compile, run the golden model, compare with the float network, predict the cycles."""
    spec = checkpoint.spec
    options = CompileOptions(static_input=pixels.ndim == 4)
    short = shortage(checkpoint, board, options)
    row = Row(spec.arch, spec.system, spec.timesteps, config.name, short is None, short, None, 0, None, None)
    try:
        ready = one_image(row, checkpoint, pixels, config)
    except InputError as error:
        told = str(error) if short is None else f"{short}; {error}"
        return Prepared(dataclasses.replace(row, short_of=told), None, pixels[:0], np.zeros((0, 0), dtype=np.int64))
    assert ready.compiled is not None
    codes = codes_of(ready.compiled, pixels)
    model = CycleModel(ready.compiled.program, config)
    golden = np.concatenate([model.golden.run(codes[at : at + 10]) for at in range(0, len(codes), 10)])
    found = float_logits(checkpoint, pixels, rounded=True)
    row = dataclasses.replace(
        row,
        cycles=model.cycles(codes[:1])[0],
        float_golden_top1_agreement=agreement(golden, found),
        centred_top1_agreement=agreement(centred(golden), centred(found)),
        unrounded_golden_top1_agreement=agreement(golden, float_logits(checkpoint, pixels, rounded=False)),
        classes_named=len(np.unique(golden.argmax(axis=1))),
    )
    return dataclasses.replace(ready, row=row)


def one_image(row: Row, checkpoint: Checkpoint, pixels: Images, config: Config) -> Prepared:
    """What the gateware needs of a row. Raises InputError if the configuration is short of something."""
    compiled = compile_network(checkpoint, config, CompileOptions(static_input=pixels.ndim == 4))
    codes = codes_of(compiled, pixels[:1])
    return Prepared(row, compiled, codes, GoldenModel(compiled.program, config).run(codes))


def simulate(prepared: Prepared, config: Config, core: RtlCore) -> Row:
    """One image on the gateware, compared with the golden model."""
    row, compiled, codes = prepared.row, prepared.compiled, prepared.codes
    if compiled is None:
        return row
    core.load(compiled.program)
    equal = bool((core.infer(codes[0]) == prepared.logits[0]).all())
    cycles = core.cycles
    for strip in CycleModel(compiled.program, config).strips(codes)[0]:
        found = core.counters(strip.index)
        equal = equal and (found[Counter.EVENTS], found[Counter.PASSES]) == (strip.events, strip.passes)
    compared = "logits, events and passes"
    if equal and cycles <= _THOROUGH:
        result = Verifier(compiled.program, config, core).run(codes)
        equal, compared = result.difference is None, "every tensor"
        if result.difference is not None:
            click.echo(f"{row.network} {row.system}: {result.difference}", err=True)
    return dataclasses.replace(row, golden_equals_rtl=equal, images=1, cycles=cycles, compared=compared)


def table(rows: list[Row]) -> str:
    """Markdown."""
    heading = (
        "network", "system", "T", "weights", "fits the board", "golden = RTL", "cycles", "agrees with float",
        "unrounded", "centred", "classes",
    )  # fmt: skip
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for row in rows:
        equal = {None: "not run", True: f"identical ({row.compared})", False: "DIFFERS"}[row.golden_equals_rtl]
        cycles = "" if row.cycles is None else f"{row.cycles:,}{'' if row.golden_equals_rtl else ' (cycle model)'}"
        shares = (
            row.float_golden_top1_agreement, row.unrounded_golden_top1_agreement, row.centred_top1_agreement
        )  # fmt: skip
        agrees = ["" if share is None else f"{100 * share:.0f} %" for share in shares]
        cells = (
            f"`{row.network}`", row.system, str(row.timesteps), "trained" if row.trained else "random",
            "yes" if row.fits else "no", equal, cycles, *agrees,
            str(row.classes_named or ""),
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
@click.option("--images", default=100, show_default=True, type=click.IntRange(1), help="For agreement (20 of 224x224).")
@click.option("--trained", multiple=True, metavar="NETWORK:SYSTEM=CHECKPOINT")
@click.option("--no-rtl", is_flag=True, help="Leave the gateware out.")
def main(
    out: Path, networks: tuple[str, ...], systems: tuple[str, ...], target: str, board: str, data_dir: Path | None,
    images: int, trained: tuple[str, ...], no_rtl: bool,
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
    shown = pictures(data_dir, images)

    def network_of(network: str, system: str) -> tuple[Checkpoint, Images]:
        pixels = inputs_of(network, shown[: min(images, 20)] if _SIDES.get(network) == 224 else shown)
        source = given.get((network, system))
        return untrained(network, system, pixels) if source is None else read_checkpoint(source), pixels

    def prepared(network: str, system: str) -> Row:
        try:
            row = prepare(*network_of(network, system), config, limits).row
        except ReverbError as error:
            raise type(error)(f"{network} {system}: {error}") from None
        return dataclasses.replace(row, trained=(network, system) in given)

    waiting = []
    for number, (network, system) in enumerate(wanted, start=1):
        path = rows / f"{network}-{system}.json"
        click.echo(f"[{number}/{len(wanted)}] {network} {system}{': done' if path.exists() else ''}", err=True)
        if not path.exists():
            _write(path, prepared(network, system))
        row = _read(path)
        if row.golden_equals_rtl is None and row.float_golden_top1_agreement is not None:
            waiting.append((row.cycles or 0, network, system, path))
    _write_table(out)
    if waiting and not no_rtl:
        with RtlCore(config, progress=lambda line: click.echo(line, err=True)) as core:
            for number, (cycles, network, system, path) in enumerate(sorted(waiting), start=1):
                told = f"[{number}/{len(waiting)}] {network} {system}: {cycles:,} cycles in simulation"
                click.echo(told, err=True)
                _write(path, simulate(one_image(_read(path), *network_of(network, system), config), config, core))
                _write_table(out)
    click.echo(table(_table(out)))


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
