"""Where weight rows lie: one map after the other, or, where that is too long, passes of several maps in shared rows.

A pass of gather mode reads whole rows, and its slot program takes what it wants of them. So lanes that a pass leaves
empty can hold those of another map: no event is read twice and nothing is added that is not drained. Passes of a map
are ``stride`` rows apart; how many slots each of them uses is free.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Place", "Request", "pack_passes"]

_TRIES = 64  # arrangements that are looked at, for each map that could have the strip


@dataclasses.dataclass(frozen=True)
class Request:
    """What a map needs.

    Parameters
    ----------
    rows : int
        Of a pass.
    tiles : int
        Slots of all passes together.
    slots : int
        Of a pass.
    shares : bool
        Whether its rows may hold passes of other maps: in gather mode.
    """

    rows: int
    tiles: int
    slots: int
    shares: bool

    @property
    def passes(self) -> int:
        """The fewest possible."""
        return -(-self.tiles // self.slots)

    @property
    def rest(self) -> int:
        """Slots of the last pass, if it is not full; else 0."""
        return self.tiles % self.slots


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the passes of a map lie.

    Parameters
    ----------
    base, stride : int
        Row of the first pass, and from one to the next.
    slots : tuple of tuples of int
        Those that each pass uses.
    """

    base: int
    stride: int
    slots: tuple[tuple[int, ...], ...]


def pack_passes(requests: Sequence[Request], capacity: int, strip: int = 0) -> tuple[list[Place], int]:
    """A place for each map, and the rows that all of them take, without those of the strip.

    Rows are shared only where ``capacity`` is too small for maps one after the other. If it is too small for any
    arrangement that was found, that is the shortest.

    Parameters
    ----------
    requests : sequence of Request
    capacity : int
        Rows of all slots.
    strip : int
        Slots, the first ones, of as many rows again that follow.
    """
    places, length = _one_by_one(requests)
    best = places, length
    if length <= capacity:
        return best
    sharing = [index for index, request in enumerate(requests) if request.shares]
    sharing.sort(key=lambda index: (-requests[index].rows, -requests[index].tiles))
    owners = sorted(sharing, key=lambda index: requests[index].tiles) if strip else [-1]
    for owner in owners:  # the smallest map first: in the strip a pass has few slots
        for arrangement in itertools.islice(_arrangements(requests, sharing), _TRIES):
            found = _share(requests, arrangement, _Limits(best[1], capacity, strip, owner))
            if found is not None and found[1] < best[1]:
                best = found
                if best[1] <= capacity:
                    return best
    return best


def _one_by_one(requests: Sequence[Request]) -> tuple[list[Place], int]:
    places, length = [], 0
    for request in requests:
        width = -(-request.tiles // request.passes)  # the fewest that are to be drained
        full = [tuple(range(width))] * (request.tiles // width)
        rest = [tuple(range(request.tiles % width))] if request.tiles % width else []
        places.append(Place(length, request.rows, (*full, *rest)))
        length += request.rows * request.passes
    return places, length


@dataclasses.dataclass(frozen=True)
class _Arrangement:
    """The map whose last pass is the widest hole, and rows left between its passes and that one; then the other maps
    that share, in the order in which they are placed, each with the most slots that it takes of rows in use."""

    host: int
    gap: int
    widths: tuple[tuple[int, int], ...]


def _arrangements(requests: Sequence[Request], sharing: Sequence[int]) -> Iterator[_Arrangement]:
    hosts = [index for index in sharing if requests[index].rest]
    for host in hosts:
        others = [index for index in sharing if index != host]
        gaps = sorted({0, *(requests[index].rows for index in others if requests[index].passes > 1)}, reverse=True)
        widths = [_widths(requests[index]) for index in others]
        for gap in gaps:  # the product of both would hold every choice of widths at once: 4 to the number of maps
            for chosen in itertools.product(*widths):
                yield _Arrangement(host, gap, tuple(zip(others, chosen, strict=True)))


def _widths(request: Request) -> tuple[int, ...]:
    """Slots that it may take of shared rows: those of its last pass first."""
    few = dict.fromkeys((request.rest or request.slots, 1, 2, request.slots))
    return tuple(width for width in few if width <= request.slots)


@dataclasses.dataclass(frozen=True)
class _Limits:
    """Rows that are too many; rows of all slots; slots of as many more, and the map that is to have those."""

    length: int
    capacity: int
    strip: int
    owner: int


class _Rows:
    """Which slots of which rows are in use, those of the strip last. ``top``: rows in use, without the strip."""

    def __init__(self, limits: _Limits, slots: int) -> None:
        self.strip = 2 * limits.length  # its first row: wherever it is, no pass reaches into it from below
        self._used = np.zeros((self.strip + limits.capacity, slots), dtype=bool)
        self._used[self.strip :, limits.strip :] = True
        self._used[self.strip - 1] = True
        self.top = 0

    @property
    def end(self) -> int:
        """Row behind the last of the strip."""
        return len(self._used)

    def free(self, rows: int) -> NDArray[np.bool_]:
        """Slots that are free in ``rows`` rows from each base on, (bases, slots)."""
        total = np.concatenate([np.zeros((1, self._used.shape[1]), dtype=np.int64), self._used.cumsum(axis=0)])
        return total[rows:] == total[:-rows]

    def take(self, base: int, rows: int, slots: Sequence[int]) -> None:
        self._used[base : base + rows, list(slots)] = True
        if base < self.strip:
            self.top = max(self.top, base + rows)


def _share(requests: Sequence[Request], how: _Arrangement, limits: _Limits) -> tuple[list[Place], int] | None:
    """Places in shared rows; None if they take too many."""
    places: dict[int, Place] = {}
    host = requests[how.host]
    rows = _Rows(limits, host.slots)
    stride = host.rows + (how.gap if host.passes == 2 else 0)
    full = [tuple(range(host.slots))] * (host.passes - 1)
    places[how.host] = Place(0, stride, (*full, tuple(range(host.rest))))
    for number, slots in enumerate(places[how.host].slots):
        rows.take(number * stride, host.rows, slots)
    for index, width in how.widths:
        place = _best(rows, requests[index], width, index == limits.owner)
        if place is None:
            return None
        for number, slots in enumerate(place.slots):
            rows.take(place.base + number * place.stride, requests[index].rows, slots)
        places[index] = place
        if rows.top >= limits.length:
            return None
    length = rows.top
    for index, request in enumerate(requests):
        if index not in places:
            (place,), taken = _one_by_one([request])
            places[index] = dataclasses.replace(place, base=length)
            length += taken
    for index, place in places.items():
        if place.base >= rows.strip:
            places[index] = dataclasses.replace(place, base=place.base - rows.strip + limits.capacity)
    return [places[index] for index in range(len(requests))], length


def _best(rows: _Rows, request: Request, width: int, in_strip: bool) -> Place | None:
    """The place that makes the memory longer by the least, then has the fewest passes, then shares the least.

    None if the strip is too short.
    """

    def cost(place: Place) -> tuple[int, int, int, int]:
        end = place.base + (len(place.slots) - 1) * place.stride + request.rows
        shared = sum(len(slots) < request.slots for slots in place.slots)
        top = rows.top if place.base >= rows.strip else max(end, rows.top)
        return top, len(place.slots), shared, place.base

    bases = np.arange(rows.strip, rows.end - request.rows + 1) if in_strip else np.arange(rows.top + 1)
    places = [*_in_a_row(rows, request, width, bases), *_apart(rows, request)]
    return min(places, key=cost, default=None)


def _in_a_row(rows: _Rows, request: Request, width: int, bases: NDArray[np.int64]) -> Iterator[Place]:
    """Passes one after the other: full ones where rows are empty, or of so many slots within rows that others use.

    Of those from the given bases on, the one that ends first, with the fewest passes.
    """
    length, free = request.rows, rows.free(request.rows)
    takes = np.where(free.all(axis=1), request.slots, np.minimum(free.sum(axis=1), width))
    takes[max(0, rows.top - length + 1) : rows.top] = 0  # a shared pass lies within what is used
    left = np.full(len(bases), request.tiles)
    number = np.zeros(len(bases), dtype=np.int64)
    alive = np.ones(len(bases), dtype=bool)
    while (alive & (left > 0)).any():
        at = bases + number * length
        taken = np.where(at < len(takes), takes[np.minimum(at, len(takes) - 1)], 0)
        alive &= (left <= 0) | (taken > 0)
        going = alive & (left > 0)
        left[going] -= taken[going]
        number[going] += 1
    ends = np.maximum(bases + number * length, rows.top)
    for end in np.unique(ends[alive])[:1]:
        fitting = np.flatnonzero(alive & (ends == end))
        yield _from(int(bases[fitting[np.argmin(number[fitting])]]), free, takes, request)


def _from(base: int, free: NDArray[np.bool_], takes: NDArray[np.int64], request: Request) -> Place:
    passes: list[tuple[int, ...]] = []
    left = request.tiles
    while left:
        at = base + len(passes) * request.rows
        slots = np.flatnonzero(free[at])[: min(left, int(takes[at]))]
        passes.append(tuple(int(slot) for slot in slots))
        left -= len(slots)
    return Place(base, request.rows, tuple(passes))


def _apart(rows: _Rows, request: Request) -> Iterator[Place]:
    """Two passes anywhere: a full one, and the rest in rows that others use."""
    if request.passes != 2 or not request.rest:
        return
    free = rows.free(request.rows)
    whole = free.all(axis=1)
    full = int(np.flatnonzero(whole)[0])
    for base in np.flatnonzero((free.sum(axis=1) >= request.rest) & ~whole):
        slots = tuple(int(slot) for slot in np.flatnonzero(free[base])[: request.rest])
        if base + request.rows <= rows.top and abs(int(base) - full) >= request.rows:
            both = sorted([(full, tuple(range(request.slots))), (int(base), slots)])
            yield Place(both[0][0], both[1][0] - both[0][0], (both[0][1], both[1][1]))
            return
