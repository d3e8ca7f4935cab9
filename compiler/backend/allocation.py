"""Where tensors lie in activation and count memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from reverb_fpga.compiler.backend.geometry import Tensor
from reverb_fpga.compiler.backend.strips import Memory, Schedule, size

__all__ = ["Ring", "allocate"]


@dataclasses.dataclass(frozen=True)
class Ring:
    """A tensor's place: its newest ``rows`` rows, from ``base`` (words, records) on; row 0 begins at row ``start``."""

    tensor: Tensor
    rows: int
    base: Memory
    start: int = 0

    @property
    def records(self) -> int:
        """Records of the whole ring."""
        return self.rows * self.tensor.row_records

    def row_offset(self, row: int) -> int:
        """Record offset of a row (any integer) in the ring."""
        return (row + self.start) % self.rows * self.tensor.row_records

    def step_offset(self, rows: int) -> int:
        """How far the record offset moves with so many rows."""
        return rows % self.rows * self.tensor.row_records


@dataclasses.dataclass(frozen=True)
class _Item:
    """What is kept during the segments ``begin .. end``: rows of a tensor, whole or as a ring.

    ``number`` is its tensor's, or that of the first of those that take each other's place.
    """

    number: int
    rows: int
    begin: int
    end: int
    whole: bool


def allocate(
    schedule: Schedule, tensors: Sequence[Tensor], readers: Sequence[int], reserved: Memory, capacity: Memory
) -> tuple[Ring, ...] | None:
    """A ring per tensor, the input first; None if no way was found to place them without overlap.

    ``readers``: the last layer that reads each tensor. Two ways are tried, for each of the two memories alone: tensors
    that are whole alternate between both ends and rings fill the gaps (for a chain, what the schedule found to fit then
    always fits); the largest first, as low as it goes.
    """
    items = _items(schedule, tensors, readers)
    bases = []
    for field in ("words", "records"):
        sizes = [getattr(size(tensors[item.number], item.rows), field) for item in items]
        room = (getattr(reserved, field), getattr(capacity, field))
        places = _from_both_ends(items, sizes, room) or _largest_first(items, sizes, room)
        if places is None:
            return None
        bases.append(places)
    rings = {
        item.number: (item.rows, Memory(words, records)) for item, words, records in zip(items, *bases, strict=True)
    }
    heirs = _heirs(schedule, tensors)
    return tuple(Ring(tensor, *rings[first], start) for tensor, (first, start) in zip(tensors, heirs, strict=True))


def _heirs(schedule: Schedule, tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Of every tensor: the first whose ring it shares (or itself), and the row where it begins there."""
    heirs = [(number, 0) for number in range(len(tensors))]
    for segment in schedule.segments:
        for made, used in sorted(segment.pairs.items()):
            first, start = heirs[used]
            height = tensors[used].height
            heirs[made] = first, (start + height) % (height + schedule.spare_rows)
    return heirs


def _items(schedule: Schedule, tensors: Sequence[Tensor], readers: Sequence[int]) -> list[_Item]:
    """In the order in which the segments begin, what is whole before what is a ring."""
    of_layer = [index for index, segment in enumerate(schedule.segments) for _ in range(segment.first, segment.last)]
    rings = {
        number: (rows, index)
        for index, segment in enumerate(schedule.segments)
        for number, rows in segment.rings.items()
    }
    items: dict[int, _Item] = {}
    for number, (first, _) in enumerate(_heirs(schedule, tensors)):
        begin = of_layer[max(number - 1, 0)]
        end = max(begin, of_layer[min(readers[number], len(of_layer) - 1)])
        if number in rings:
            items[number] = _Item(number, rings[number][0], begin, begin, whole=False)
        elif first == number:
            items[number] = _Item(number, tensors[number].height, begin, end, whole=True)
        else:
            rows = tensors[first].height + schedule.spare_rows
            items[first] = dataclasses.replace(items[first], rows=rows, end=max(items[first].end, end))
    return sorted(items.values(), key=lambda item: (item.begin, not item.whole, item.number))


def _gaps(
    item: _Item, placed: Sequence[tuple[_Item, int, int]], room: tuple[int, int], needed: int
) -> list[tuple[int, int]]:
    """Free intervals that are large enough, lowest first, beside what lives at the same time."""
    if not needed:  # records of the output layer have no words: the end of the memory may be no address
        return [(room[0], room[0])]
    taken = sorted((at, at + n) for other, at, n in placed if other.begin <= item.end and item.begin <= other.end and n)
    found, cursor = [], room[0]
    for low, high in [*taken, (room[1], room[1])]:
        if low - cursor >= needed:
            found.append((cursor, low))
        cursor = max(cursor, high)
    return found


def _from_both_ends(items: Sequence[_Item], sizes: Sequence[int], room: tuple[int, int]) -> list[int] | None:
    placed: list[tuple[_Item, int, int]] = []
    low = True
    for item, needed in zip(items, sizes, strict=True):
        gaps = _gaps(item, placed, room, needed)
        if not gaps:
            return None
        at = gaps[0][0] if low or not item.whole else gaps[-1][1] - needed
        low = not low if item.whole else low
        placed.append((item, at, needed))
    return [at for _, at, _ in placed]


def _largest_first(items: Sequence[_Item], sizes: Sequence[int], room: tuple[int, int]) -> list[int] | None:
    order = sorted(range(len(items)), key=lambda index: -sizes[index])
    placed: list[tuple[_Item, int, int]] = []
    places = [0] * len(items)
    for index in order:
        gaps = _gaps(items[index], placed, room, sizes[index])
        if not gaps:
            return None
        places[index] = min(gaps, key=lambda gap: gap[1] - gap[0])[0]
        placed.append((items[index], places[index], sizes[index]))
    return places
