"""Everything that the page shows, gathered once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.report import Use, memory_uses
from reverb_fpga.hw.boards.report import BuildReport
from reverb_fpga.hw.config import Config
from reverb_fpga.sim.golden import GoldenModel

from ..estimate import Estimate
from ..images import Pixels, encoded
from ..latency import Latency, latency
from ..model_report import ModelReport, measure
from .graph import LayerFacts, layer_facts
from .memory import MemoryUse, memory_over_schedule
from .precision import LayerPrecision, layer_precision
from .runs import RunCurve, read_runs
from .timeline import Timeline, timeline

if TYPE_CHECKING:
    from .floating import FloatComparison

__all__ = ["PageFacts", "Sources", "gather_facts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What beside the model goes into a page, where it is at hand.

    Parameters
    ----------
    build : BuildReport or None
    estimate : Estimate or None
        Of the board, where there is no build.
    checkpoint : Path or None
    run : Path or None
        Folder of a training run, or its log.
    clock_mhz : float or None
        At which rates are computed.
    baud : int or None
        Rate of the link's line; None where it is not known, or no UART.
    """

    build: BuildReport | None = None
    estimate: Estimate | None = None
    checkpoint: Path | None = None
    run: Path | None = None
    clock_mhz: float | None = None
    baud: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PageFacts:
    """Figures of one model; what there is no source for is None."""

    program: Program
    config: Config
    report: ModelReport
    names: tuple[str, ...]
    layers: tuple[LayerFacts, ...]
    uses: tuple[Use, ...]
    memory: MemoryUse
    precision: tuple[LayerPrecision, ...]
    timeline: Timeline | None
    floating: FloatComparison | None
    runs: tuple[RunCurve, ...]
    sources: Sources

    @property
    def latency(self) -> Latency | None:
        """Of one image; None where clock, rate of the line or cycles are not known."""
        clock, baud, cycles = self.sources.clock_mhz, self.sources.baud, self.report.cycles
        return latency(self.program, cycles, clock, baud) if clock and baud and cycles else None


def gather_facts(
    program: Program, config: Config, pixels: list[Pixels], names: list[str], sources: Sources
) -> PageFacts:
    """Run the models over images.

    Parameters
    ----------
    pixels : list of uint8 arrays (H, W, C)
        Of the model's size; of event data (T, H, W, 2).
    names : list of str
        Of these images.

    Raises
    ------
    InputError
        A checkpoint or run that is none, or another model's.
    EnvironmentMissing
        A checkpoint, but no torch.
    """
    golden = GoldenModel(program, config)
    codes = encoded(pixels, program)
    outputs = golden.run_layers(codes)
    return PageFacts(
        program=program,
        config=config,
        report=measure(program, config, codes),
        names=tuple(names),
        layers=layer_facts(program, golden.schedule),
        uses=memory_uses(program, config),
        memory=memory_over_schedule(program, golden.schedule, config),
        precision=layer_precision(program, golden, outputs[0], config),
        timeline=timeline(program, config, codes[:1]),
        floating=_floating(program, config, np.stack(pixels), outputs, sources),
        runs=read_runs(sources.run) if sources.run else (),
        sources=sources,
    )


def _floating(
    program: Program,
    config: Config,
    pixels: NDArray[np.uint8],
    outputs: tuple[list[NDArray[np.uint8]], NDArray[np.int64]],
    sources: Sources,
) -> FloatComparison | None:
    if sources.checkpoint is None:
        return None
    from .floating import compare_with_float

    return compare_with_float(sources.checkpoint, program, config, pixels, outputs)
