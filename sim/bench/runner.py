"""Runs a bench: the side of pytest."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from reverb_fpga.hw import processes

from .model import TOP, Options, build_model

__all__ = ["BenchFailed", "Outcome", "run_bench"]

PARAMETERS = "parameters.json"
FIGURES = "figures.json"
_LOG_LINES = 60


class BenchFailed(AssertionError):
    """A test of a bench failed, or the simulation crashed; the message is the end of its log."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of :func:`run_bench`.

    Parameters
    ----------
    tests : int
        Tests that ran; all passed.
    build_seconds, run_seconds : float
    figures : dict
        What the bench recorded.
    """

    tests: int
    build_seconds: float
    run_seconds: float
    figures: dict[str, Any]


def run_bench(
    component: wiring.Component,
    name: str,
    module: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    options: Options | None = None,
    seed: int = 1,
) -> Outcome:
    """Compile ``component`` (or take it from the cache) and run every ``@cocotb.test`` of ``module`` on it.

    Parameters
    ----------
    component : wiring.Component
    name : str
        Readable part of the cache entry.
    module : Path
        Python file with the tests; it may import what lies beside it.
    parameters : mapping, optional
        Handed to the bench (``Bench.parameters``); JSON.
    options : Options, optional
    seed : int
        Of ``Bench.rng``.

    Raises
    ------
    BenchFailed
        If a test fails, or if there was none.
    EnvironmentMissing, BuildError
        If the model cannot be built.
    """
    options = options or Options()
    begin = time.monotonic()
    model = build_model(component, name, options)
    built = time.monotonic()
    with processes.scratch("reverb-fpga-bench-") as directory:
        (directory / PARAMETERS).write_text(json.dumps({"seed": seed, **(parameters or {})}))
        tests = _simulate(model.directory, directory, module, options)
        figures = directory / FIGURES
        recorded = json.loads(figures.read_text()) if figures.exists() else {}
    return Outcome(tests, built - begin, time.monotonic() - built, recorded)


def _simulate(model: Path, directory: Path, module: Path, options: Options) -> int:
    """Run the tests with ``directory`` as working directory; how many there were."""
    from cocotb_tools.check_results import get_results

    from .cocotb_runner import PortsRunner

    log, results = directory / "log.txt", directory / "results.xml"
    simulator = PortsRunner(modules=module.parent.resolve())
    try:
        simulator.test(
            test_module=module.stem,
            hdl_toplevel=TOP,
            hdl_toplevel_lang="verilog",
            build_dir=model,
            test_dir=directory,
            results_xml=str(results),
            waves=options.waves,
            log_file=log,
        )
        tests, failed = get_results(results)
    except (RuntimeError, SystemExit):
        tests, failed = 0, 1
    if failed or not tests:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        raise BenchFailed("\n".join([f"bench {module.stem} failed:", *lines[-_LOG_LINES:]]))
    return int(tests)
