"""Overlays of several shapes placed and routed on several boards: what `report --board` is held against.

    python benchmarks/routed.py --out runs/routed --tools native colorlight-i5=tiny,banks=1 ecpix5-45f=ulx3s-25f

Every build is a board and a configuration: a preset, with fields changed. It is synthesised, placed and routed as
`build` does it, with the board's usual link, one seed after the other until one routes. Figures go into builds.jsonl in
--out, a line per build, also where timing is missed; what does not route is a line with the reason. A build that is
there is not made again. benchmarks/builds.jsonl holds those of docs/boards.md.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from synthesis import parts, shape

from reverb_fpga.host import cli
from reverb_fpga.host.commands.build import _core
from reverb_fpga.hw import processes
from reverb_fpga.hw.boards import flow, logs, netlist
from reverb_fpga.hw.boards.seeds import fmax_of, here
from reverb_fpga.hw.boards.table import LinkKind, board, link_of, lut_count, uart_divisor
from reverb_fpga.hw.boards.tools import POLL_SECONDS, SOURCES, find_toolchain, run_tool
from reverb_fpga.hw.errors import BuildError


@click.command(help=__doc__)
@click.argument("builds", nargs=-1, required=True, metavar="BOARD=SHAPE...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for builds.jsonl and logs.")
@click.option("--tools", type=click.Choice(SOURCES), default="pip", show_default=True)
@click.option("--seed", default=1, show_default=True, help="The first.")
@click.option("--tries", default=2, show_default=True, help="Seeds, until one routes.")
@click.option("--minutes", default=120.0, show_default=True, help="For one place and route.")
def main(builds: tuple[str, ...], out: Path, tools: str, **limits: Any) -> None:
    out.mkdir(parents=True, exist_ok=True)
    log = out / "builds.jsonl"
    known = {json.loads(line)["build"] for line in log.read_text().splitlines()} if log.is_file() else set()
    for text in builds:
        if text in known:
            continue
        with processes.scratch(".routed-", out) as work:
            line = {"build": text, **route(text, work, out, tools, **limits)}
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        click.echo(json.dumps(line))


def route(text: str, work: Path, out: Path, tools: str, seed: int, tries: int, minutes: float) -> dict[str, Any]:
    """What came of ``BOARD=SHAPE``: figures of the first seed that routes, or why none does."""
    started = time.monotonic()
    plan = synthesise(text, work, tools)
    found: dict[str, Any] = {
        "parts": parts(json.loads((work / "top.json").read_text()), plan.config),
        "clock_mhz": plan.options.clock_mhz,
        "tools": dict(plan.toolchain.versions),
        "synthesis_s": round(time.monotonic() - started),
    }
    for each in range(seed, seed + tries):
        started = time.monotonic()
        try:
            figures = place_and_route(plan, work, each, 60 * minutes)
        except BuildError as error:
            found.setdefault("failed", []).append(f"seed {each}: {error}")
            continue
        finally:
            (out / f"{text}-{each}.log").write_bytes((work / f"seed-{each}" / "nextpnr.log").read_bytes())
        return found | figures | {"seed": each, "route_s": round(time.monotonic() - started)}
    return found


def synthesise(text: str, work: Path, tools: str) -> flow._Plan:
    """The netlist in ``work``, as `build` makes it."""
    name, _, wanted = text.partition("=")
    target, config = board(name), shape(wanted)
    link, clock = link_of(target, None), target.clock_mhz
    divisor, baud = uart_divisor(clock, None) if link is LinkKind.UART else (0, 0)
    design = flow.Design(target, config, _core(target, config, divisor), link)
    toolchain = find_toolchain(tools)
    plan = flow._plan(design, flow.BuildOptions(clock_mhz=clock, divisor=divisor, baud=baud, tools=tools), toolchain)
    for file in ("top.il", "top.ys", "top.lpf"):
        content = plan.files[file]
        (work / file).write_bytes(content.encode() if isinstance(content, str) else content)
    run_tool(toolchain, "yosys", ["-q", "-l", "yosys.log", "top.ys"], "yosys.log", work, lambda _: None)
    netlist.improve(work / "top.json", plan.sites, lut_count(plan.board.device))
    return plan


def place_and_route(plan: flow._Plan, work: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Figures of one seed, whether it meets its timing or not.

    Raises
    ------
    BuildError
        If it does not come to timing.
    """
    folder = work / f"seed-{seed}"
    folder.mkdir()
    for file in ("top.json", "top.lpf"):
        (folder / file).symlink_to(work / file)
    arguments = [*flow._nextpnr_arguments(plan), "--seed", str(seed)]
    until = time.monotonic() + seconds
    with here(plan.toolchain)(arguments, folder, lambda _: None) as run:
        while not run.poll():
            if time.monotonic() > until:
                raise BuildError(f"not routed in {seconds / 60:g} minutes")
            time.sleep(POLL_SECONDS)
        fmax = fmax_of(folder, plan.options.clock_mhz)
        if fmax is None:
            run.check()
            raise BuildError("no timing")
    used = json.loads((folder / "timing.json").read_text())["utilization"]
    figures = {name: used.get(cell, {"used": 0})["used"] for name, cell in flow._UTILISATION.items()}
    log = (folder / "nextpnr.log").read_text(errors="replace").splitlines()
    path = logs.critical_path(log)
    return figures | {"fmax_mhz": round(fmax, 2), "longest_path": [path[0], path[-1]], "hops": len(path)}


if __name__ == "__main__":
    cli.run(main, "routed.py")
