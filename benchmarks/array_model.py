"""Cycle model of candidate arrays, free of the choice that the gateware made.

A dispatcher without bubbles makes the beats of a pass a function of the event counts per bank, so counting is exact;
the gather walker and the neuron unit are two more servers in a pipeline and are simulated pass by pass.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Shape:
    """A candidate array.

    Parameters
    ----------
    clusters, banks, ports_per_bank, lanes : int
        ``lanes`` per cluster. Additions a cycle: clusters * banks * ports_per_bank * lanes.
    neuron_lanes : int
        Neuron updates per two cycles, of all clusters together.
    split : str
        What clusters do: "channels" (one event stream, wider tile) or "positions" (own stream and own weights each).
    mapping : str
        Channel to bank: "modulo" or "blocked".
    taps : int
        3: row mode as well, where an event adds to three output columns; ``lanes`` are those of one of them.
    """

    clusters: int
    banks: int
    ports_per_bank: int
    lanes: int
    neuron_lanes: int
    split: str = "channels"
    mapping: str = "modulo"
    taps: int = 1

    @property
    def additions(self) -> int:
        """Additions a cycle."""
        return self.clusters * self.banks * self.ports_per_bank * self.lanes * self.taps

    @property
    def row_tile(self) -> int:
        """Output channels per pass of row mode."""
        return self.lanes * (self.clusters if self.split == "channels" else 1)

    @property
    def tile(self) -> int:
        """Output channels per pass."""
        return self.taps * self.row_tile

    @property
    def label(self) -> str:
        """Short name for tables: clusters x banks x ports x lanes (x taps), split, mapping."""
        lanes = f"{self.lanes}x{self.taps}" if self.taps > 1 else f"{self.lanes}"
        return f"{self.clusters}x{self.banks}x{self.ports_per_bank}x{lanes} {self.split} {self.mapping}"


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """A layer's gathers by source column, for row mode.

    Parameters
    ----------
    events : int array (tables, C_in)
        Of a source column and step: rows of the output, windows of columns, steps, columns of a window.
    captured : bool array (tables,)
        It finishes an output column.
    sources : int
        Source records of a table.
    pooled : int
        Columns of a window.
    """

    events: NDArray[np.int64]
    captured: NDArray[np.bool_]
    sources: int
    pooled: int


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWork:
    """What one layer asks of the array, for one image.

    Parameters
    ----------
    events : int array (positions, C_in)
        Non-zero source codes per gather (output position and step, in order) and input channel.
    sources : int
        Source records per gather (taps times pooled positions).
    out_channels, planes, taps : int
    repeats : int
        Neuron updates per gather (T for a static input).
    columns : Columns or None
        If row mode can compute it.
    """

    name: str
    events: NDArray[np.int64]
    sources: int
    out_channels: int
    planes: int
    taps: int
    repeats: int
    columns: Columns | None = None

    @property
    def synaptic_events(self) -> int:
        """Events times output channels times planes: additions that must happen."""
        return int(self.events.sum()) * self.out_channels * self.planes


@dataclasses.dataclass(frozen=True)
class LayerCycles:
    """Cycles of one layer and where they went."""

    name: str
    row_mode: bool
    cycles: int
    beats: int
    walker_wait: int
    drain_wait: int


def bank_of(channels: int, shape: Shape) -> NDArray[np.int64]:
    """Bank of every channel."""
    index = np.arange(channels)
    if shape.mapping == "modulo":
        return index % shape.banks
    return index * shape.banks // max(channels, 1)


def beats_per_gather(events: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    """Beats of one pass of every gather (gathers, C_in): the fullest bank decides, two ports share its queue."""
    banks = bank_of(events.shape[1], shape)
    per_bank = np.stack([events[:, banks == b].sum(axis=1) for b in range(shape.banks)])
    return np.maximum(1, (-(-per_bank // shape.ports_per_bank)).max(axis=0))


def layer_cycles(work: LayerWork, shape: Shape) -> LayerCycles:
    """Cycles of one layer, in the mode that takes fewer."""
    gather = np.ones(len(work.events), dtype=bool)
    found = [_mode_cycles(work, shape, Columns(work.events, gather, work.sources, 1), row_mode=False)]
    if shape.taps > 1 and work.columns is not None:
        found.append(_mode_cycles(work, shape, work.columns, row_mode=True))
    return min(found, key=lambda one: one.cycles)


def passes_of(work: LayerWork, shape: Shape, row_mode: bool) -> int:
    """Passes of every gather."""
    return -(-work.out_channels * work.planes // (shape.row_tile if row_mode else shape.tile))


def row_beats(work: LayerWork, shape: Shape) -> int:
    """Beats of a layer in row mode, which can compute it."""
    assert work.columns is not None
    return int(beats_per_gather(work.columns.events, shape).sum()) * passes_of(work, shape, row_mode=True)


def _mode_cycles(work: LayerWork, shape: Shape, gathers: Columns, row_mode: bool) -> LayerCycles:
    """Pipeline of walker, dispatcher and neuron unit over all gathers and passes of one layer."""
    beats = beats_per_gather(gathers.events, shape)
    passes = passes_of(work, shape, row_mode)
    slots = max(1, (shape.row_tile if row_mode else shape.tile) // shape.neuron_lanes)
    final_slots = min(slots, -(-work.out_channels // shape.neuron_lanes)) if passes == 1 else slots
    final_share = 1 / work.planes / gathers.pooled if passes > 1 else 1 / gathers.pooled
    drain = max(slots, round(2 * final_slots * work.repeats * final_share))
    walked = dispatched = released = 0
    walker_wait = drain_wait = 0
    previous_start = 0
    for gather, captured in zip(beats, gathers.captured, strict=True):
        # Two tables: the walker may fill the next one once the dispatcher has started on the last one filled.
        walked = max(walked, previous_start) + gathers.sources
        start = max(dispatched, walked)
        walker_wait += start - dispatched
        previous_start = start
        dispatched = start
        for _ in range(passes):
            end = max(dispatched + int(gather), released if captured else 0)
            drain_wait += end - dispatched - int(gather)
            dispatched = end
            if captured:
                released = end + drain
    cycles = dispatched + drain + 40
    total_beats = int(beats.sum()) * passes
    if shape.split == "positions":
        cycles = -(-cycles // shape.clusters)
        walker_wait //= shape.clusters
        drain_wait //= shape.clusters
    return LayerCycles(work.name, row_mode, cycles, total_beats, walker_wait, drain_wait)


def weight_blocks(works: list[LayerWork], shape: Shape) -> int:
    """Block RAMs for all weights on chip (1024 x 18 true dual port), copies for position-parallel clusters included."""
    rows = 0
    for work in works:
        row_mode = shape.taps > 1 and layer_cycles(work, shape).row_mode
        taps = work.taps // shape.taps if row_mode else work.taps
        rows += passes_of(work, shape, row_mode) * taps * -(-work.events.shape[1] // shape.banks)
    blocks = shape.banks * -(-rows // 1024) * -(-shape.tile // 18)
    return blocks * (shape.clusters if shape.split == "positions" else 1)
