"""Strips: in which order the layers' rows are computed, and how many rows of each tensor are kept.

The chain of layers is cut into segments. Tensors at the cuts are kept whole, tensors inside a segment are rings of
their newest rows, and the strips of a segment's layers interleave. Among all cuts that fit the memories, the one with
the fewest descriptors is taken.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from reverb_fpga.compiler.backend.geometry import Tensor, Walk
from reverb_fpga.compiler.backend.limits import require_fit, too_large
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["Hints", "Memory", "Schedule", "Segment", "Strip", "plan"]

_MAX_FUSED = 12  # layers of one segment; more have not paid in any network tried


@dataclasses.dataclass(frozen=True)
class Hints:
    """Force more strips than are needed, for tests.

    Parameters
    ----------
    max_strip_rows : int or None
        No descriptor computes more output rows than this.
    ring_rows : int or None
        Every tensor between two layers keeps this many rows (or what its reader needs, or all it has).
    """

    max_strip_rows: int | None = None
    ring_rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Strip:
    """Rows ``first .. first + rows - 1`` of the output of a layer: one descriptor."""

    layer: int
    first: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """Words and records per bank."""

    words: int
    records: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.words + other.words, self.records + other.records)

    def within(self, other: Memory) -> bool:
        return self.words <= other.words and self.records <= other.records


@dataclasses.dataclass(frozen=True)
class Segment:
    """Layers ``first .. last-1``; ``rings[i]`` rows are kept of tensor ``first + 1 + i`` (the last one is whole)."""

    first: int
    last: int
    rings: tuple[int, ...]
    strips: tuple[Strip, ...]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """All segments in order."""

    segments: tuple[Segment, ...]

    @property
    def strips(self) -> tuple[Strip, ...]:
        """All strips in order."""
        return tuple(strip for segment in self.segments for strip in segment.strips)


def size(tensor: Tensor, rows: int) -> Memory:
    """Memory of ``rows`` rows."""
    return Memory(rows * tensor.row_words, rows * tensor.row_records)


class _Planner:
    """Segments of one network."""

    def __init__(self, walks: Sequence[Walk], tensors: Sequence[Tensor], free: Memory, hints: Hints) -> None:
        self.walks = walks
        self.tensors = tensors
        self.free = free
        self.hints = hints

    def simulate(self, first: int, last: int, rings: Sequence[int], deepest: bool) -> tuple[Strip, ...] | None:
        """Strips of a segment, always of the deepest (or shallowest) layer that can run; None if it gets stuck."""
        heights = self._heights(first, last)
        produced = [0] * len(heights)
        strips: list[Strip] = []
        order = range(len(heights))[:: -1 if deepest else 1]
        # rows that no reader needs are computed all the same: whoever looks at a tensor finds all of it
        while produced != heights:
            for index in order:
                rows = self._runnable(first, produced, rings, index)
                if rows:
                    strips.append(Strip(first + index, produced[index], rows))
                    produced[index] += rows
                    break
            else:
                return None
        return tuple(strips)

    def _heights(self, first: int, last: int) -> list[int]:
        """Output rows of layers ``first .. last-1``."""
        return [self.tensors[i + 1].height for i in range(first, last)]

    def _runnable(self, first: int, produced: Sequence[int], rings: Sequence[int], index: int) -> int:
        """Rows that layer ``first + index`` can compute now."""
        axis = self.walks[first + index].y
        done = produced[index]
        if first + index == len(self.walks) - 1 and list(produced[:-1]) != self._heights(first, first + index):
            return 0  # the logits stay in the membrane memory, so nothing may run after the output layer
        limit = self.tensors[first + 1 + index].height
        if self.hints.max_strip_rows is not None:
            limit = min(limit, done + self.hints.max_strip_rows)
        if index + 1 < len(produced):
            reader, read = self.walks[first + index + 1].y, produced[index + 1]
            oldest = min(reader.low(read), done) if read < reader.out else done
            limit = min(limit, oldest + rings[index])
        if index:
            available = produced[index - 1]
            while limit > done and axis.high(limit - 1) >= available:
                limit -= 1
        return max(limit - done, 0)

    def smallest(self, first: int, last: int) -> Memory:
        """Memory of a segment with the smallest rings: its whole source and result, and the rings between."""
        total = size(self.tensors[first], self.tensors[first].height)
        for index in range(first, last - 1):
            total += size(self.tensors[index + 1], self.walks[index + 1].y.window)
        return total + size(self.tensors[last], self.tensors[last].height)

    def segment(self, first: int, last: int) -> Segment | None:
        """The segment with the fewest strips that fits, or None."""
        if not self.smallest(first, last).within(self.free):
            return None
        rings = self._rings(first, last)
        options = [self.simulate(first, last, rings, deepest) for deepest in (True, False)]
        found = [strips for strips in options if strips is not None]
        if not found:
            return None
        return Segment(first, last, tuple(rings), min(found, key=len))

    def _rings(self, first: int, last: int) -> list[int]:
        """Ring rows of the tensors inside a segment and of its result: as large as fits, in even proportion."""
        heights = [self.tensors[i].height for i in range(first + 1, last + 1)]
        least = [self.walks[i].y.window for i in range(first + 1, last)] + heights[-1:]
        if self.hints.ring_rows is not None:
            wanted = [min(h, max(w, self.hints.ring_rows)) for h, w in zip(heights, least, strict=True)]
            return wanted if self._fits(first, wanted) else least
        rings = least
        steps = 64
        for share in range(steps + 1):
            tried = [w + (h - w) * share // steps for h, w in zip(heights, least, strict=True)]
            if not self._fits(first, tried):
                break
            rings = tried
        for index, height in enumerate(heights):
            while rings[index] < height:
                tried = [*rings[:index], rings[index] + 1, *rings[index + 1 :]]
                if not self._fits(first, tried):
                    break
                rings = tried
        return rings

    def _fits(self, first: int, rings: Sequence[int]) -> bool:
        total = size(self.tensors[first], self.tensors[first].height)
        for index, rows in enumerate(rings):
            total += size(self.tensors[first + 1 + index], rows)
        return total.within(self.free)


def plan(walks: Sequence[Walk], tensors: Sequence[Tensor], free: Memory, config: Config, hints: Hints) -> Schedule:
    """The schedule with the fewest descriptors.

    Parameters
    ----------
    free : Memory
        What the constant records leave of the activation and count memories.

    Raises
    ------
    InputError
        If no schedule fits; names the layer, the memory, what it needs and what there is.
    """
    planner = _Planner(walks, tensors, free, hints)
    count = len(walks)
    if hints.ring_rows is not None:
        whole = planner.segment(0, count)
        if whole is not None:
            return Schedule((whole,))

    @functools.cache
    def best(last: int) -> tuple[int, tuple[Segment, ...]] | None:
        if last == 0:
            return 0, ()
        found = None
        for first in range(last - 1, max(-1, last - 1 - _MAX_FUSED), -1):
            segment = planner.segment(first, last)
            before = best(first) if segment is not None else None
            if segment is None or before is None:
                continue
            total = before[0] + len(segment.strips)
            if found is None or total < found[0]:
                found = (total, (*before[1], segment))
        return found

    for last in range(1, count + 1):  # bottom up: no deep recursion
        best(last)
    result = best(count)
    if result is None:
        raise _explanation(planner, count, free, config)
    require_fit(config, f"the schedule of {count} layers", "descriptors", result[0] + 2, config.descriptors)
    return Schedule(result[1])


def _explanation(planner: _Planner, count: int, free: Memory, config: Config) -> InputError:
    """What does not fit: the bottleneck of the best cut, for each memory alone, then for both."""
    cuts = [(first, last) for last in range(1, count + 1) for first in range(max(0, last - _MAX_FUSED), last)]
    for resource, field in (("activation words per bank", "words"), ("count words", "records")):
        peaks: list[tuple[int, str]] = [(0, "")]
        for last in range(1, count + 1):
            options = [
                max(peaks[cut[0]], (getattr(planner.smallest(*cut), field), _span(planner.tensors, *cut)))
                for cut in cuts
                if cut[1] == last
            ]
            peaks.append(min(options))
        needed, where = peaks[count]
        if needed > getattr(free, field):
            return too_large(config, where, resource, needed, getattr(free, field))
    over = {cut: planner.smallest(*cut) for cut in cuts if not planner.smallest(*cut).within(free)}
    cut = min(over, key=lambda key: over[key].words + over[key].records)
    return InputError(
        f"network too large for {config.name}: {_span(planner.tensors, *cut)} needs {over[cut].words} activation words "
        f"per bank together with {over[cut].records} count words, there are {free.words} and {free.records}"
    )


def _span(tensors: Sequence[Tensor], first: int, last: int) -> str:
    names = [tensor.name for tensor in tensors[first + 1 : last + 1]]
    return f"layer {names[0]}" if len(names) == 1 else f"the group of layers {names[0]} to {names[-1]}"
