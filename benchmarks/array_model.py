"""Cycle model of candidate arrays, free of the choice that the gateware made.

A dispatcher without bubbles makes the beats of a pass a function of the event counts per bank, so counting is exact;
the gather walker and the neuron unit are two more servers in a pipeline and are simulated pass by pass.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

BLOCK_RAM_BITS = 18 * 1024


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
    """

    clusters: int
    banks: int
    ports_per_bank: int
    lanes: int
    neuron_lanes: int
    split: str = "channels"
    mapping: str = "modulo"

    @property
    def additions(self) -> int:
        """Additions a cycle."""
        return self.clusters * self.banks * self.ports_per_bank * self.lanes

    @property
    def tile(self) -> int:
        """Output channels per pass."""
        return self.lanes * (self.clusters if self.split == "channels" else 1)

    @property
    def label(self) -> str:
        """Short name for tables: clusters x banks x ports x lanes, split, mapping."""
        return f"{self.clusters}x{self.banks}x{self.ports_per_bank}x{self.lanes} {self.split} {self.mapping}"


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
    """

    name: str
    events: NDArray[np.int64]
    sources: int
    out_channels: int
    planes: int
    taps: int
    repeats: int

    @property
    def synaptic_events(self) -> int:
        """Events times output channels times planes: additions that must happen."""
        return int(self.events.sum()) * self.out_channels * self.planes


@dataclasses.dataclass(frozen=True)
class LayerCycles:
    """Cycles of one layer and where they went."""

    name: str
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


def beats_per_gather(work: LayerWork, shape: Shape) -> NDArray[np.int64]:
    """Beats of one pass of every gather: the fullest bank decides, two ports share its queue."""
    banks = bank_of(work.events.shape[1], shape)
    per_bank = np.stack([work.events[:, banks == b].sum(axis=1) for b in range(shape.banks)])
    return np.maximum(1, (-(-per_bank // shape.ports_per_bank)).max(axis=0))


def layer_cycles(work: LayerWork, shape: Shape) -> LayerCycles:
    """Pipeline of walker, dispatcher and neuron unit over all gathers and passes of one layer."""
    beats = beats_per_gather(work, shape)
    columns = work.out_channels * work.planes
    passes = -(-columns // shape.tile)
    slots = max(1, shape.tile // shape.neuron_lanes)
    final_slots = min(slots, -(-work.out_channels // shape.neuron_lanes)) if passes == 1 else slots
    final_share = 1 / work.planes if passes > 1 else 1
    drain = max(slots, round(2 * final_slots * work.repeats * final_share))
    walked = dispatched = released = 0
    walker_wait = drain_wait = 0
    previous_start = 0
    for gather in beats:
        # Two tables: the walker may fill the next one once the dispatcher has started on the last one filled.
        walked = max(walked, previous_start) + work.sources
        start = max(dispatched, walked)
        walker_wait += start - dispatched
        previous_start = start
        dispatched = start
        for _ in range(passes):
            end = max(dispatched + int(gather), released)
            drain_wait += end - dispatched - int(gather)
            dispatched = end
            released = end + drain
    cycles = dispatched + drain + 40
    total_beats = int(beats.sum()) * passes
    if shape.split == "positions":
        cycles = -(-cycles // shape.clusters)
        walker_wait //= shape.clusters
        drain_wait //= shape.clusters
    return LayerCycles(work.name, cycles, total_beats, walker_wait, drain_wait)


def weight_blocks(works: list[LayerWork], shape: Shape) -> int:
    """Block RAMs for all weights on chip (1024 x 18 true dual port), copies for position-parallel clusters included."""
    rows = 0
    for work in works:
        passes = -(-work.out_channels * work.planes // shape.tile)
        rows += passes * work.taps * -(-work.events.shape[1] // shape.banks)
    blocks = shape.banks * -(-rows // 1024) * -(-shape.tile // 18)
    return blocks * (shape.clusters if shape.split == "positions" else 1)
