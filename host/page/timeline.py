"""One image through the core, cycle by cycle as the cycle model has it, in bins that a picture can show."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config

__all__ = ["Timeline", "timeline"]

BINS = 800


@dataclasses.dataclass(frozen=True)
class LayerSpan:
    """A descriptor of a layer: cycles from ``start`` to before ``end``."""

    layer: int
    name: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """How busy each unit is.

    Parameters
    ----------
    cycles : int
        Of the image.
    units : tuple of str
    busy : float32 array (units, bins)
        Share of each bin's cycles in which a unit works, 0..1.
    total : tuple of float
        Share of all cycles, by unit.
    spans : tuple of LayerSpan
        When a layer's descriptors run; a layer may have several, interleaved with others.
    starts : tuple of int
        First cycle of each descriptor.
    """

    cycles: int
    units: tuple[str, ...]
    busy: NDArray[np.float32]
    total: tuple[float, ...]
    spans: tuple[LayerSpan, ...]
    starts: tuple[int, ...]


def timeline(program: Program, config: Config, codes: NDArray[np.uint8], bins: int = BINS) -> Timeline | None:
    """Of one image, codes (1, T_in, H, W, C); None without the packages that describe gateware."""
    try:
        from reverb_fpga.sim.cycles import UNITS, CycleModel
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        return None
    model = CycleModel(program, config)
    strips = model.spans(codes)
    cycles = model.cycles(codes)[0]
    edges = np.linspace(0, cycles, bins + 1)
    work = [_union(np.concatenate([strip.spans[unit] for strip in strips])) for unit in UNITS]
    busy = np.stack([_shares(spans, edges) for spans in work])
    layers = {strip.index: strip.fields["layer"] for strip in model.golden.schedule.strips}
    return Timeline(
        cycles=cycles,
        units=UNITS,
        busy=busy.astype(np.float32),
        total=tuple(float((spans[:, 1] - spans[:, 0]).sum() / cycles) for spans in work),
        spans=tuple(
            LayerSpan(layers[at.index], program.layers[layers[at.index]].name, at.start, at.start + at.cycles)
            for at in strips
        ),
        starts=tuple(at.start for at in strips),
    )


def _union(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same time in spans that do not overlap: a unit that begins anew before it has ended is busy once."""
    order = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(order[:, 1])
    begins = np.concatenate([[True], order[1:, 0] > ends[:-1]]) if len(order) else np.zeros(0, dtype=bool)
    lasts = np.concatenate([begins[1:], [True]]) if len(order) else begins
    return np.stack([order[begins, 0], ends[lasts]], axis=1)


def _shares(spans: NDArray[np.int64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each bin that spans, which do not overlap, cover."""
    order = spans[np.argsort(spans[:, 0])]
    covered = np.concatenate([[0], np.cumsum(order[:, 1] - order[:, 0])])
    place = np.searchsorted(order[:, 0], edges, side="right")
    last = order[np.maximum(place - 1, 0)]
    over = np.where(place > 0, np.maximum(last[:, 1] - edges, 0), 0)  # of the span that an edge cuts
    until = covered[place] - over
    return np.clip(np.diff(until) / np.diff(edges), 0, 1)
