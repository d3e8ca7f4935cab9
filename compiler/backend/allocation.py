"""Where rings lie in activation and count memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from reverb_fpga.compiler.backend.geometry import Tensor
from reverb_fpga.compiler.backend.schedule import Memory, Schedule, size

__all__ = ["Ring", "allocate"]


@dataclasses.dataclass(frozen=True)
class Ring:
    """A tensor's place: its newest ``rows`` rows from ``base`` (words, records) on."""

    tensor: Tensor
    rows: int
    base: Memory

    @property
    def records(self) -> int:
        """Records of the whole ring."""
        return self.rows * self.tensor.row_records

    def row_offset(self, row: int) -> int:
        """Record offset of a row (any integer) in the ring."""
        return row % self.rows * self.tensor.row_records


def allocate(schedule: Schedule, tensors: Sequence[Tensor], reserved: Memory, capacity: Memory) -> tuple[Ring, ...]:
    """A ring per tensor, the input first.

    The whole tensors between segments alternate between the low and the high end of the memories and the rings of a
    segment lie between its source and its result, so nothing is ever fragmented: what the schedule found to fit, fits.
    """
    low = reserved
    rings = [Ring(tensors[0], tensors[0].height, low)]
    source_is_low = True
    for segment in schedule.segments:
        source, result = rings[-1], tensors[segment.last]
        whole = size(result, result.height)
        if source_is_low:
            base = Memory(capacity.words - whole.words, capacity.records - whole.records)
            cursor = low + size(source.tensor, source.rows)
        else:
            base, cursor = low, low + whole
        for index, tensor in enumerate(tensors[segment.first + 1 : segment.last]):
            rows = segment.rings[index]
            rings.append(Ring(tensor, rows, cursor))
            cursor += size(tensor, rows)
        rings.append(Ring(result, result.height, base))
        source_is_low = not source_is_low
    return tuple(rings)
