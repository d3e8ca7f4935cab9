"""``reverb-fpga report``: the figures of a build, or of a compiled model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.boards.own import find_board
from reverb_fpga.hw.boards.report import BuildReport, read_report
from reverb_fpga.hw.boards.table import Board, LinkKind, uart_divisor
from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.models.files import check_output, write_whole

from .. import bundled
from ..backends import config_of
from ..completing import complete_models
from ..console import make_table, output
from ..estimate import Estimate, clock_words, estimate
from ..images import encoded
from ..inputs import ItemReader, Selection, gather_items
from ..latency import Latency, latency
from ..model_report import LayerCost, MapCost, ModelReport, build_for, measure
from ..page.facts import Sources, gather_facts
from ..page.machine import machine_facts
from ..page.write import check_library, page

__all__ = ["command", "print_report"]

_USED = (("LUT4", "lut4"), ("flip-flops", "ff"), ("block RAM", "bram"), ("multipliers", "dsp"))
_EXAMPLES = """\b
Examples:
  reverb-fpga report cifar10-cnv                       per layer: density, additions, cycles
  reverb-fpga report cifar10-cnv -o report.html        a page with charts, for a browser
  reverb-fpga report model.rvb photos/ --images 50 --build out/85f
  reverb-fpga report model.rvb --checkpoint runs/net/best.safetensors --run runs/net -o report.html
  reverb-fpga report cifar10-cnv --board ulx3s-85f --clock 60    estimates, before anything is built
  reverb-fpga report out/85f                   device use and clock of a build
  reverb-fpga report cifar10-cnv --json
"""


@click.command(name="report", epilog=_EXAMPLES)
@click.argument("subject", required=False, metavar="[BUILD-DIR|FILE.rvb|NAME]", shell_complete=complete_models)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGES|DIRS]...")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), metavar="PAGE.html", help="Write a page.")
@click.option("--images", "count", type=click.IntRange(1), help="At most so many.  [default: 10]")
@click.option("--dataset", help="Images of a data set's test split.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with its files.  [default: data]")
@click.option("--build", type=click.Path(path_type=Path), help="Folder of a build: images/s at its clock.")
@click.option("--clock", type=click.FloatRange(1, 1000), metavar="MHZ", help="Images/s at this clock.")
@click.option("--board", metavar="NAME|FILE", help="Estimate what its overlay takes of this board, without a build.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="That the model was compiled from: golden against float (-o, --json).",
)
@click.option(
    "--run", type=click.Path(path_type=Path), help="Folder of its training: accuracy against density (-o, --json)."
)
@click.option("--strict", is_flag=True, help="Stop at the first image that cannot be read.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(subject: str | None, paths: tuple[Path, ...], as_json: bool, **options: Any) -> int:
    """Print the figures of a build, or of a compiled model; or write a page of them.

    A build: device use, clock, block RAM by use, longest path. A model (the bundled one unless told): density,
    synaptic operations and cycles of every layer, by the golden model and the cycle model, over the bundled images or
    those given. Nothing is simulated: `reverb-fpga verify` compares both models with the gateware.

    The page is one file that fetches nothing: the network, costs, a timeline of the first image, memory, precision,
    and what --checkpoint, --run and --build add.
    """
    if subject is not None and subject not in bundled.bundled_models() and Path(subject).is_dir():
        if paths or any(options.values()):
            raise InputError(f"{subject} is the folder of a build; images, --build and other options go with a model")
        figures = read_report(Path(subject))
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(figures)))
        else:
            print_report(figures)
        return 0
    return _report_model(subject, paths, as_json, options)


def _report_model(subject: str | None, paths: tuple[Path, ...], as_json: bool, options: dict[str, Any]) -> int:
    target = options["target"]
    if target is None and not as_json and (options["checkpoint"] or options["run"]):
        raise InputError("--checkpoint and --run go into a page, or --json: give -o PAGE.html")
    if target is not None:
        check_output(target)  # before the work, as the library
        check_library()
    program = bundled.load_model(subject)
    build = build_for(program, options["build"]) if options["build"] else None
    board = find_board(options["board"]) if options["board"] is not None else None  # once: a file of a board is run
    guess = None if board is None else _estimate(program, board, options)
    clock = options["clock"] or (build.clock_mhz if build else guess.clock_mhz if guess else None)
    over_usb = board is not None and board.links[0] is LinkKind.USB
    baud = None if over_usb else _baud(build, clock)
    selection = Selection(
        paths=paths, limit=options["count"] or 10, dataset=options["dataset"], data_dir=options["data_dir"]
    )
    items = gather_items(selection, program)
    reader = ItemReader(program, strict=options["strict"])
    read, pixels = reader.read_all(items)
    if target is not None or as_json:
        sources = Sources(
            build=build, checkpoint=options["checkpoint"], run=options["run"] or _known_run(subject),
            clock_mhz=clock, baud=baud, estimate=guess,
        )  # fmt: skip
        facts = gather_facts(program, config_of(program), pixels, [item.name for item in read], sources)
        report = facts.report
        if target is not None:
            write_whole(target, page(facts).encode())
    else:
        report = measure(program, config_of(program), encoded(pixels, program))
    if as_json:
        click.echo(json.dumps(machine_facts(facts)))
    else:
        _print_model(report, clock)
        if clock and baud and report.cycles:
            _print_latency(latency(program, report.cycles, clock, baud))
        if guess is not None:
            _print_estimate(guess)
        if target is not None:
            output().say(printable(f"written: {target}"))
    return reader.complain(len(items))


def _print_latency(found: Latency) -> None:
    output().say(
        f"latency of one image: {found.total_us:,.0f} us: {found.input_us:,.0f} for its {found.input_bytes:,} bytes at "
        f"{found.baud:,} baud, {found.core_us:,.0f} in the core, {found.output_us:,.0f} for the logits; frames left out"
    )


def _estimate(program: Program, target: Board, options: dict[str, Any]) -> Estimate:
    if options["build"] is not None:
        raise InputError("--build has what was built, --board estimates it; give one of them")
    config = config_of(program)
    if target.config != config.name:
        raise InputError(
            f"{program.name} is compiled for {config.name}, {target.name} takes {target.config}: compile it with "
            f"--target {target.config}"
        )
    return estimate(target, config, options["clock"])


def _print_estimate(guess: Estimate) -> None:
    console = output()
    table = make_table(f"estimate for {guess.board}", right=("used", "error", "of", "share"))
    for entry in guess.resources:
        error = f"+-{entry.error:g} %" if entry.error else "exact"
        table.add_row(entry.name, f"{entry.used:,}", error, f"{entry.available:,}", f"{100 * entry.share:.0f} %")
    console.table(table)
    console.say(f"{'fits' if guess.fits else 'does not fit'}; {clock_words(guess)}; what errors are of: docs/boards.md")


def _known_run(subject: str | None) -> Path | None:
    """The log of training that lies beside a model."""
    log = bundled.find_model(subject).with_suffix(".metrics.jsonl")
    return log if log.is_file() else None


def _baud(build: BuildReport | None, clock: float | None) -> int | None:
    """Of a build's UART, or the one that a build at this clock would have."""
    if build is not None:
        return build.baud or None
    try:
        return uart_divisor(clock, None)[1] if clock else None
    except InputError:
        return None


def _print_model(report: ModelReport, clock_mhz: float | None) -> None:
    console = output()
    accuracy = "" if report.accuracy is None else f", trained to {report.accuracy:g} %"
    console.say(
        f"{report.model} on {report.target}, T = {report.timesteps}{accuracy}; mean of {report.images} image(s)"
    )
    headings = ("density\n%", "additions", "if dense", "cycles", "busy\n%", "block\nRAMs")
    table = make_table("layer", "output", right=headings, gap=1)
    for layer in report.layers:
        table.add_row(*_cells(layer))
        for leg in layer.maps if len(layer.maps) > 1 else ():
            table.add_row(*_leg_cells(leg))
    console.table(table)
    if any(len(layer.maps) > 1 for layer in report.layers):
        console.say("indented: the summands of a layer's current, and what makes its gate, in the order of their work")
    console.say(
        f"{report.additions / 1e6:.2f} M synaptic operations; {1e6 * report.joules:.2f} uJ as papers estimate "
        f"energy ({1e6 * report.first_layer_joules:.2f} uJ of it in the first layer), which is no measurement"
    )
    uses = ", ".join(f"{use} {blocks}" for use, blocks in report.block_rams.items())
    if uses:
        console.say(f"block RAM of the overlay (estimate): {uses}: {sum(report.block_rams.values())}")
    if report.cycles is None:
        console.say("cycles: the cycle model needs amaranth: pip install 'reverb-fpga[hw]'")
        return
    rate = f", {report.images_per_second(clock_mhz):,.0f} images/s computed at {clock_mhz:g} MHz" if clock_mhz else ""
    console.say(f"{report.cycles:,.0f} cycles an image by the cycle model{rate}; busy: share of the array's ports")


def _cells(layer: LayerCost) -> tuple[str, ...]:
    return (
        layer.name,
        "x".join(map(str, layer.shape)),
        "(image)" if layer.density is None else f"{100 * layer.density:.1f}",
        f"{layer.additions:,.0f}",
        f"{layer.dense:,}",
        "" if layer.cycles is None else f"{layer.cycles:,.0f}",
        "" if layer.busy is None else f"{100 * layer.busy:.0f}",
        f"{layer.weight_blocks:.1f}",
    )


def _leg_cells(leg: MapCost) -> tuple[str, ...]:
    return (
        f"  {leg.kind}",
        "" if leg.kind == "neurons" else f"of {leg.source}",
        "",
        f"{leg.additions:,.0f}",
        f"{leg.dense:,}",
        "" if leg.cycles is None else f"{leg.cycles:,.0f}",
        "",
        "",
    )


def print_report(report: BuildReport) -> None:
    """The report as tables on standard output."""
    console = output()
    console.say(
        f"{report.board}, configuration {report.config} ({report.config_digest}): "
        f"{report.additions_per_cycle} additions a cycle"
    )
    console.say(
        f"clock {report.clock_mhz:g} MHz, timing met up to {report.fmax_mhz:g} MHz (seed {report.seed}), "
        f"{f'UART {report.baud} baud' if report.baud else 'USB full speed'}, built in {report.seconds:.0f} s"
    )
    console.table(_use_table(report))
    console.table(_bram_table(report))
    if report.critical_path:
        console.say(f"longest path: {report.critical_path[0]} ... {report.critical_path[-1]}")
    console.say("tools: " + ", ".join(f"{name} {version}" for name, version in report.tools.items()))


def _use_table(report: BuildReport) -> Table:
    table = make_table("resource", right=("used", "of", "share"))
    for label, field in _USED:
        used, total = getattr(report, field), report.available[field]
        table.add_row(label, f"{used:,}", f"{total:,}", f"{100 * used / total:.1f} %" if total else "")
    return table


def _bram_table(report: BuildReport) -> Table:
    table = make_table("block RAM by use", right=("blocks",))
    for use, count in report.bram_by_use.items():
        table.add_row(use, str(count))
    table.add_row("sum", str(sum(report.bram_by_use.values())), style="bold")
    return table
