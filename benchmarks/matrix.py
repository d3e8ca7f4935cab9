"""Every network in every system: does it compile, does it fit, is the gateware equal to the golden model, and how long.

    python benchmarks/matrix.py --out out/matrix                                     # all of it, resumable
    python benchmarks/matrix.py --out out/matrix --network resnet20 --system reverb --data-dir data
    python benchmarks/matrix.py --out out/matrix --trained resnet20-classic:reverb-learnable=runs/r20/best.safetensors

Writes OUT/matrix.json and a table. Networks are untrained unless --trained says otherwise: random weights, normalised
by the currents of the images. Images are CIFAR-10's test images (--data-dir), else structured ones that this command
draws; networks of 224x224 pixels see them enlarged, networks of event frames see them moved about (synthetic events).
`fits` and `short_of` are about the board (--board); cycles and logits are those of --target, in simulation.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from reverb_fpga.compiler.pipeline import Compilation, CompileOptions, compile_network
from reverb_fpga.host import cli
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.errors import InputError, ReverbError
from reverb_fpga.models.checkpoint import Checkpoint, read_checkpoint
from reverb_fpga.models.data import load_split
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.files import write_whole
from reverb_fpga.models.network import Network
from reverb_fpga.models.zoo import DatasetSpec, Options, build
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
    unrounded_golden_top1_agreement: float | None


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


def agreement(checkpoint: Checkpoint, golden: NDArray[np.int64], pixels: Images, rounded: bool) -> float:
    """Share of images for which the float network names the golden model's class.

    ``rounded``: as it is trained and tested, real-valued spikes rounded to codes of 8 bits; else nothing is rounded.
    """
    net = Network(checkpoint.spec)
    state = {name: torch.from_numpy(tensor) for name, tensor in checkpoint.tensors.items()}
    net.load_state_dict(net.state_dict() | state)
    net.eval()
    net.set_quantised(rounded)
    with torch.no_grad():
        parts = [net(torch.from_numpy(pixels[at : at + 10])).argmax(dim=1) for at in range(0, len(pixels), 10)]
    return float((torch.cat(parts).numpy() == golden.argmax(axis=1)).mean())


def measure(checkpoint: Checkpoint, pixels: Images, config: Config, board: Config, core: RtlCore | None) -> Row:
    """Compile, run, compare. ``core`` None: without the gateware."""
    spec = checkpoint.spec
    options = CompileOptions(static_input=pixels.ndim == 4)
    short = shortage(checkpoint, board, options)
    row = Row(spec.arch, spec.system, spec.timesteps, config.name, short is None, short, None, 0, None, None, None)
    try:
        compiled = compile_network(checkpoint, config, options)
    except InputError as error:
        told = str(error) if short is None else f"{short}; {error}"
        return dataclasses.replace(row, short_of=told)
    codes = codes_of(compiled, pixels)
    model = GoldenModel(compiled.program, config)
    golden = np.concatenate([model.run(codes[at : at + 10]) for at in range(0, len(codes), 10)])
    row = dataclasses.replace(
        row,
        float_golden_top1_agreement=agreement(checkpoint, golden, pixels, rounded=True),
        unrounded_golden_top1_agreement=agreement(checkpoint, golden, pixels, rounded=False),
    )
    if core is None:
        return row
    found = Verifier(compiled.program, config, core).run(codes[:1])
    if found.difference is not None:
        click.echo(f"{spec.arch} {spec.system}: {found.difference}", err=True)
    core.infer(codes[0])
    return dataclasses.replace(row, golden_equals_rtl=found.difference is None, images=1, cycles=core.cycles)


def table(rows: list[Row]) -> str:
    """Markdown."""
    heading = ("network", "system", "T", "fits the board", "golden = RTL", "cycles", "agrees with float")
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for row in rows:
        equal = {None: "not run", True: "identical", False: "DIFFERS"}[row.golden_equals_rtl]
        cycles = "" if row.cycles is None else f"{row.cycles:,}"
        agrees = "" if row.float_golden_top1_agreement is None else f"{100 * row.float_golden_top1_agreement:.0f} %"
        fits = "yes" if row.fits else "no"
        lines.append(f"| `{row.network}` | {row.system} | {row.timesteps} | {fits} | {equal} | {cycles} | {agrees} |")
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
    (out / "rows").mkdir(parents=True, exist_ok=True)
    config = preset(target)
    wanted = [
        (network, system)
        for network, of_network in NETWORKS.items()
        for system in of_network
        if (not networks or network in networks) and (not systems or system in systems)
    ]
    shown = pictures(data_dir, images)
    core: RtlCore | None = None
    try:
        for number, (network, system) in enumerate(wanted, start=1):
            path = out / "rows" / f"{network}-{system}.json"
            click.echo(f"[{number}/{len(wanted)}] {network} {system}{': done' if path.exists() else ''}", err=True)
            if path.exists():
                continue
            if core is None and not no_rtl:
                core = RtlCore(config, progress=lambda line: click.echo(line, err=True))
            pixels = inputs_of(network, shown[: min(images, 20)] if _SIDES.get(network) == 224 else shown)
            source = given.get((network, system))
            checkpoint = untrained(network, system, pixels) if source is None else read_checkpoint(source)
            try:
                row = measure(checkpoint, pixels, config, preset(board), core)
            except ReverbError as error:
                raise type(error)(f"{network} {system}: {error}") from None
            write_whole(path, json.dumps(dataclasses.asdict(row)).encode())
    finally:
        if core is not None:
            core.close()
    rows = [Row(**json.loads(path.read_text())) for path in sorted((out / "rows").glob("*.json"))]
    write_whole(out / "matrix.json", (json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n").encode())
    click.echo(table(rows))


if __name__ == "__main__":
    cli.run(main, "matrix.py")
