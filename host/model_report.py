"""What a compiled model costs per image: density, synaptic operations, cycles, estimated energy, images per second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.ebr import block_rams
from reverb_fpga.compiler.program import LayerInfo, Program
from reverb_fpga.hw.boards.report import BuildReport, read_report
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.operations import LayerOperations, count_operations

from .leg_report import held_rows, kind_of, source_of

__all__ = ["LayerCost", "MapCost", "ModelReport", "build_for", "measure"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapCost:
    """One leg of a layer, mean per image: a summand of its current, or what makes its gate.

    Attributes
    ----------
    kind : str
        What it is: convolution, identity shortcut, sums of the gate, ...
    source : str
        The tensor that it reads.
    dense, additions, cycles : as those of the layer
    weight_rows : int
        Per bank; legs that share rows count them once.
    """

    kind: str
    source: str
    dense: int
    additions: float
    cycles: float | None
    weight_rows: int


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
    maps : tuple of MapCost
        In the order in which they run.
    weight_blocks : float
        Its weights' share of the overlay's block RAM for weights, in blocks (estimate, as `block_rams`).
    """

    name: str
    shape: tuple[int, int, int]
    density: float | None
    dense: int
    additions: float
    cycles: float | None
    busy: float | None
    maps: tuple[MapCost, ...] = ()
    weight_blocks: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelReport:
    """One model on its configuration, mean over `images` images; energies in joules, of which the second is a part.

    `cycles` is None where the cycle model is missing. `block_rams`: blocks of the overlay by use, on paper.
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
    block_rams: dict[str, int] = dataclasses.field(default_factory=dict)

    def images_per_second(self, clock_mhz: float) -> float | None:
        """What the array computes at a clock, whatever the link brings in."""
        return None if self.cycles is None else 1e6 * clock_mhz / self.cycles


def measure(program: Program, config: Config, codes: NDArray[np.uint8]) -> ModelReport:
    """Count over input codes (N, H, W, C) or (N, T_in, H, W, C)."""
    operations = count_operations(program, config, codes)
    timing = _timing(program, config, codes)
    blocks = block_rams(config)
    layers = []
    for index, (info, found) in enumerate(zip(program.layers, operations.layers, strict=True)):
        legs = timing[1][index] if timing else None
        cycles, events = (sum(leg[at] for leg in legs) for at in range(2)) if legs else (None, None)
        maps = _maps(program, info, found, legs)
        layers.append(
            LayerCost(
                name=info.name,
                shape=info.shape,
                density=found.density if index else None,
                dense=found.dense,
                additions=found.additions,
                cycles=cycles,
                busy=None if cycles is None or events is None else events / (cycles * config.ports),
                maps=maps,
                weight_blocks=blocks["weights"] * sum(leg.weight_rows for leg in maps) / config.weight_rows,
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
        block_rams=blocks,
    )


def _maps(
    program: Program, info: LayerInfo, found: LayerOperations, legs: list[tuple[float, float]] | None
) -> tuple[MapCost, ...]:
    rows = held_rows(program, info)
    return tuple(
        MapCost(
            kind=kind_of(program, info, position),
            source=source_of(program, info, position),
            dense=counted.dense,
            additions=counted.additions,
            cycles=legs[position][0] if legs else None,
            weight_rows=rows[position],
        )
        for position, counted in enumerate(found.maps)
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
) -> tuple[float, list[list[tuple[float, float]]]] | None:
    """Cycles of an image, and (cycles, events) of every leg of every layer; None without the packages that describe
    gateware."""
    try:
        from reverb_fpga.sim.cycles import CycleModel, image_cycles
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        return None
    model = CycleModel(program, config)
    images = model.strips(codes)
    owner = {
        strip: (index, position)
        for index, info in enumerate(program.layers)
        for position in range(len(info.maps))
        for strip in info.descriptors_of(position)
    }
    sums = [np.zeros((len(info.maps), 2)) for info in program.layers]
    for strips in images:
        for strip in strips:
            index, position = owner[strip.index]
            sums[index][position] += np.array([strip.cycles, strip.events]) / len(images)
    loads = len(model.golden.schedule.loads)
    whole = float(np.mean([image_cycles(strips, loads) for strips in images]))
    return whole, [[(float(cycles), float(events)) for cycles, events in layer] for layer in sums]
