"""Imports go one way between the rooms, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = {"reverb_fpga.hw", "reverb_fpga.hw.config", "reverb_fpga.hw.contract", "reverb_fpga.hw.errors"}
MAY_IMPORT = {
    "api": {"host"},
    "models": {"models"},
    "compiler": {"compiler", "models"},
    "hw": {"hw"},
    "sim": {"sim", "compiler", "hw"},
    "host": {"host", "sim", "compiler", "models", "hw"},
}


def _imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it, by their full names."""
    package = ("reverb_fpga", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = set()
    for path in files:
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] != "reverb_fpga" or len(parts) < 2 or parts[1] in MAY_IMPORT[room]:
                continue
            if ".".join(parts[:3]) not in SHARED:
                wrong.add(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


RELATIVE = {"hw": True, "sim": True, "host": True, "compiler": False, "models": False}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_its_own_modules_in_one_way(room: str) -> None:
    wrong = []
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            own = node.level > 0 or f"{node.module}.".startswith(f"reverb_fpga.{room}.")
            if own and (node.level > 0) != RELATIVE[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong
