"""Strips: in which order the layers' rows are computed, and how many rows of each tensor are kept.

The layers, in their order, are cut into segments. A tensor that is read beyond the cut after it is kept whole; a tensor
whose readers all lie in its own segment is a ring of its newest rows, freed by its slowest reader, and the strips of a
segment's layers interleave. Among all cuts that fit the memories, the one with the fewest descriptors is taken.

Tensors have numbers: 0 is the input, ``i + 1`` is what layer ``i`` fires.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from reverb_fpga.compiler.backend.geometry import Axis, Tensor
from reverb_fpga.compiler.backend.limits import require_fit, too_large
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["Hints", "Memory", "Node", "Schedule", "Segment", "Strip", "plan"]

_MAX_FUSED = 12  # layers of one segment; more have not paid in any network tried


@dataclasses.dataclass(frozen=True)
class Hints:
    """Force more strips than are needed, for tests.

    Parameters
    ----------
    max_strip_rows : int or None
        No descriptor computes more output rows than this.
    ring_rows : int or None
        Every tensor between two layers keeps this many rows (or what its readers need, or all it has).
    """

    max_strip_rows: int | None = None
    ring_rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Node:
    """A layer as the schedule sees it.

    Parameters
    ----------
    sources : tuple of int
        Numbers of the tensors that its legs read; one descriptor per leg and strip.
    axes : tuple of Axis
        Which of their rows.
    max_rows : int
        Rows of one strip at most.
    whole : int or None
        A tensor of which it needs all rows before its first strip, which it reads once more then.
    once : int
        Descriptors before the first strip.
    """

    sources: tuple[int, ...]
    axes: tuple[Axis, ...]
    max_rows: int
    whole: int | None = None
    once: int = 0


@dataclasses.dataclass(frozen=True)
class Strip:
    """Rows ``first .. first + rows - 1`` of the output of a layer: one descriptor per map."""

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
    """Layers ``first .. last-1``.

    Parameters
    ----------
    rings : dict of int
        Rows kept of the tensors that are made and used up inside, by number. All others are whole.
    """

    first: int
    last: int
    rings: dict[int, int]
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

    def __init__(self, nodes: Sequence[Node], tensors: Sequence[Tensor], free: Memory, hints: Hints) -> None:
        self.nodes = nodes
        self.tensors = tensors
        self.free = free
        self.hints = hints
        self.readers: list[list[tuple[int, Axis]]] = [[] for _ in tensors]
        for index, node in enumerate(nodes):
            for source, axis in zip(node.sources, node.axes, strict=True):
                self.readers[source].append((index, axis))
        # the result is wanted by whoever looks at it: it lives beyond the last layer
        self.last_reader = [max((index for index, _ in found), default=-1) for found in self.readers]
        self.last_reader[-1] = len(nodes)
        self._least: dict[tuple[int, int], dict[int, int]] = {}

    def live(self, cut: int) -> set[int]:
        """Tensors made before layer ``cut`` and read by it or later."""
        return {number for number in range(cut + 1) if self.last_reader[number] >= cut}

    def wholes(self, first: int, last: int) -> set[int]:
        """Tensors that are whole while a segment runs."""
        return self.live(first) | self.live(last)

    def inside(self, first: int, last: int) -> list[int]:
        """Tensors that a segment makes and uses up."""
        kept = self.live(last)
        return [number for number in range(first + 1, last + 1) if number not in kept]

    def simulate(self, first: int, last: int, rings: dict[int, int], deepest: bool) -> tuple[Strip, ...] | None:
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

    def _runnable(self, first: int, produced: Sequence[int], rings: dict[int, int], index: int) -> int:
        """Rows that layer ``first + index`` can compute now."""
        layer, done = first + index, produced[index]
        node, own = self.nodes[layer], layer + 1
        if own == len(self.nodes) and list(produced[:-1]) != self._heights(first, layer):
            return 0  # the logits stay in the membrane memory, so nothing may run after the output layer
        limit = min(self.tensors[own].height, done + node.max_rows)
        if self.hints.max_strip_rows is not None:
            limit = min(limit, done + self.hints.max_strip_rows)
        if own in rings:
            limit = min(limit, self._oldest(own, first, produced, done) + rings[own])
        for source, axis in zip(node.sources, node.axes, strict=True):
            if source > first:
                available = produced[source - 1 - first]
                if source == node.whole and available < self.tensors[source].height:
                    return 0
                while limit > done and axis.high(limit - 1) >= available:
                    limit -= 1
        return max(limit - done, 0)

    def _oldest(self, number: int, first: int, produced: Sequence[int], done: int) -> int:
        """First row of a tensor that one of its readers still needs: the slowest frees it."""
        needed = done
        for reader, axis in self.readers[number]:
            read = produced[reader - first]
            if read < axis.out:
                needed = min(needed, axis.low(read))
        return needed

    def least(self, first: int, last: int) -> dict[int, int]:
        """Smallest rings with which a segment runs: the largest window, more where readers are at different rows."""
        key = (first, last)
        if key not in self._least:
            rings = {
                number: max((axis.window for _, axis in self.readers[number]), default=1)
                for number in self.inside(first, last)
            }
            rings |= {
                number: self.tensors[number].height
                for number in rings
                if any(self.nodes[index].whole == number for index, _ in self.readers[number])
            }
            shared = [number for number in rings if len(self.readers[number]) > 1]
            while shared and self.simulate(first, last, rings, deepest=True) is None:
                growing = [number for number in shared if rings[number] < self.tensors[number].height]
                if not growing:
                    break
                for number in growing:
                    rings[number] += 1
            self._least[key] = rings
        return self._least[key]

    def memory(self, first: int, last: int, rings: dict[int, int]) -> Memory:
        """What a segment needs."""
        total = Memory(0, 0)
        for number in self.wholes(first, last):
            total += size(self.tensors[number], self.tensors[number].height)
        for number, rows in rings.items():
            total += size(self.tensors[number], rows)
        return total

    def smallest(self, first: int, last: int) -> Memory:
        """Memory of a segment with the smallest rings."""
        return self.memory(first, last, self.least(first, last))

    def segment(self, first: int, last: int) -> Segment | None:
        """The segment with the fewest strips that fits, or None."""
        if not self.memory(first, last, {}).within(self.free) or not self.smallest(first, last).within(self.free):
            return None
        rings = self._rings(first, last)
        options = [self.simulate(first, last, rings, deepest) for deepest in (True, False)]
        found = [strips for strips in options if strips is not None]
        if not found:
            return None
        return Segment(first, last, rings, min(found, key=len))

    def descriptors(self, segment: Segment) -> int:
        """Descriptors of a segment."""
        once = sum(self.nodes[layer].once for layer in range(segment.first, segment.last))
        return once + sum(len(self.nodes[strip.layer].sources) for strip in segment.strips)

    def _rings(self, first: int, last: int) -> dict[int, int]:
        """Rows of the tensors inside a segment: as many as fit, in even proportion."""
        least = self.least(first, last)
        heights = {number: self.tensors[number].height for number in least}
        if self.hints.ring_rows is not None:
            wanted = {n: min(heights[n], max(w, self.hints.ring_rows)) for n, w in least.items()}
            return wanted if self.memory(first, last, wanted).within(self.free) else least
        rings = least
        steps = 64
        for share in range(steps + 1):
            tried = {n: w + (heights[n] - w) * share // steps for n, w in least.items()}
            if not self.memory(first, last, tried).within(self.free):
                break
            rings = tried
        for number, height in heights.items():
            while rings[number] < height:
                tried = {**rings, number: rings[number] + 1}
                if not self.memory(first, last, tried).within(self.free):
                    break
                rings = tried
        return rings


def plan(nodes: Sequence[Node], tensors: Sequence[Tensor], free: Memory, config: Config, hints: Hints) -> Schedule:
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
    planner = _Planner(nodes, tensors, free, hints)
    count = len(nodes)
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
            before = best(first)
            segment = planner.segment(first, last) if before is not None else None
            if segment is None or before is None:
                continue
            total = before[0] + planner.descriptors(segment)
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
