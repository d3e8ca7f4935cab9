"""Row mode or gather mode: which of them computes a map in fewer cycles (``docs/decisions/0011-row-mode.md``)."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.backend.geometry import Axis, Walk
from reverb_fpga.compiler.backend.tiling import planes_of
from reverb_fpga.compiler.intnet import IntLayer, IntMap, IntNetwork
from reverb_fpga.compiler.row_mode import MAX_COLUMNS, MAX_POOL
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import ROW_CELLS, ROW_TAPS

__all__ = ["Mode", "mode_of"]

_DENSITY = 0.2  # spikes of a source record, where nothing is known of them


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a map is tiled.

    Parameters
    ----------
    row : bool
    slots : int
        Of a pass.
    columns : int
        Columns of a pooling window that are captured one by one: the slot program runs over the passes of each.
    """

    row: bool
    slots: int
    columns: int = 1


def mode_of(
    network: IntNetwork, layer: IntLayer, leg: IntMap, walk: Walk, config: Config, force: bool | None = None
) -> Mode:
    """The cheaper mode of a map by a rough count of cycles; row mode wherever it is possible, or nowhere, by force."""
    gather = Mode(False, config.slots)
    if config.taps == 1 or force is False:
        return gather
    groups = -(-layer.channels // config.neuron_lanes)
    steps = network.steps_of(leg.source)
    work = _Work(groups * len(planes_of(leg)), groups, leg.weight.shape[1], steps)
    row = Mode(True, config.row_slots, walk.x.n_pool)
    fits = steps * work.passes(row) < ROW_CELLS and (row.columns == 1 or groups <= config.z_depth)
    if not fits or not _walks_rows(walk.x):
        return gather
    cheaper = _cycles(walk, row, work, config) < _cycles(walk, gather, work, config)
    return row if force or cheaper else gather


@dataclasses.dataclass(frozen=True)
class _Work:
    """Planes of all groups of neuron lanes, and the groups; channels and steps of the source."""

    tiles: int
    groups: int
    channels: int
    steps: int

    def passes(self, mode: Mode) -> int:
        """Of a table."""
        return -(-self.tiles // mode.slots)


def _walks_rows(x: Axis) -> bool:
    """Neighbouring columns feed neighbouring columns."""
    neighbours = x.only is None and x.step == x.n_pool and x.tap == 1 and (x.n_pool == 1 or x.pool == 1)
    return neighbours and x.n_tap == ROW_TAPS and x.n_pool <= MAX_POOL and x.out <= MAX_COLUMNS


def _cycles(walk: Walk, mode: Mode, work: _Work, config: Config) -> float:
    """Cycles of an output row and step: of walker, dispatcher or neuron unit, whichever takes longest."""
    beats = max(1.0, work.channels * _DENSITY / config.ports)  # of a source record
    passes = work.passes(mode)
    records = walk.y.n_pool * walk.y.n_tap * (1 if mode.row else walk.x.n_pool * walk.x.n_tap)
    tables = walk.x.out * mode.columns + (ROW_TAPS - 1 if mode.row else 0)
    drain = walk.x.out * (mode.columns * passes * -(-work.tiles // passes) + work.groups)
    return max(tables * records, tables * passes * records * beats, drain)
