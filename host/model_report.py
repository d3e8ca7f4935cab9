"""What a compiled model costs per image: density, synaptic operations, cycles, estimated energy, images per second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.boards.report import BuildReport, read_report
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.operations import count_operations

__all__ = ["LayerCost", "ModelReport", "build_for", "measure"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer, mean per image.

    Attributes
    ----------
    name : str
    shape : (C, H, W) of its output
    density : float or None
        Share of its dense additions that events cause, 0..1; None for the first layer, whose input is the image.
    dense : int
        Additions if no input were zero.
    additions : float
        Synaptic operations; the dense additions for the first layer.
    cycles, busy : float or None
        Clock cycles, and the share of the array's ports that work in them; None where the cycle model is missing.
    """

    name: str
    shape: tuple[int, int, int]
    density: float | None
    dense: int
    additions: float
    cycles: float | None
    busy: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelReport:
    """One model on its configuration, mean over `images` images; energies in joules, of which the second is a part.

    `cycles` is None where the cycle model is missing.
    """

    model: str
    target: str
    timesteps: int
    images: int
    accuracy: float | None
    layers: tuple[LayerCost, ...]
    additions: float
    joules: float
    first_layer_joules: float
    cycles: float | None

    def images_per_second(self, clock_mhz: float) -> float | None:
        """What the array computes at a clock, whatever the link brings in."""
        return None if self.cycles is None else 1e6 * clock_mhz / self.cycles


def measure(program: Program, config: Config, codes: NDArray[np.uint8]) -> ModelReport:
    """Count over input codes (N, H, W, C) or (N, T_in, H, W, C)."""
    operations = count_operations(program, config, codes)
    timing = _timing(program, config, codes)
    layers = []
    for index, (info, found) in enumerate(zip(program.layers, operations.layers, strict=True)):
        cycles, events = timing[1][index] if timing else (None, None)
        layers.append(
            LayerCost(
                name=info.name,
                shape=info.shape,
                density=found.density if index else None,
                dense=found.dense,
                additions=found.additions,
                cycles=cycles,
                busy=None if cycles is None or events is None else events / (cycles * config.ports),
            )
        )
    return ModelReport(
        model=program.name,
        target=config.name,
        timesteps=program.timesteps,
        images=len(codes),
        accuracy=program.accuracy,
        layers=tuple(layers),
        additions=operations.additions,
        joules=operations.energy,
        first_layer_joules=operations.first_energy,
        cycles=timing[0] if timing else None,
    )


def build_for(program: Program, directory: Path) -> BuildReport:
    """Figures of a build that runs the program. Raises InputError for another configuration's, or none."""
    report = read_report(directory)
    if report.config_digest != f"{program.config_digest:016x}":
        raise InputError(
            f"{directory}: a build of {report.config}, not of {program.config_name}, the target of {program.name}"
        )
    return report


def _timing(
    program: Program, config: Config, codes: NDArray[np.uint8]
) -> tuple[float, list[tuple[float, float]]] | None:
    """Cycles of an image, and (cycles, events) of every layer; None without the packages that describe gateware."""
    try:
        from reverb_fpga.sim.cycles import CycleModel, image_cycles
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        return None
    model = CycleModel(program, config)
    images = model.strips(codes)
    owner = {
        strip: index
        for index, info in enumerate(program.layers)
        for fires, _, _ in info.strips
        for strip in info.descriptors(fires)
    }
    sums = [[0.0, 0.0] for _ in program.layers]
    for strips in images:
        for strip in strips:
            sums[owner[strip.index]][0] += strip.cycles / len(images)
            sums[owner[strip.index]][1] += strip.events / len(images)
    loads = len(model.golden.schedule.loads)
    whole = float(np.mean([image_cycles(strips, loads) for strips in images]))
    return whole, [(cycles, events) for cycles, events in sums]
