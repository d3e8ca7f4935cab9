"""Segments of a schedule: which tensors are kept whole and how many rows of the others, and the order of the strips."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from reverb_fpga.compiler.backend.geometry import Axis, Tensor
from reverb_fpga.compiler.backend.strips import LOAD, Hints, Means, Memory, Node, Segment, Strip, size

__all__ = ["Planner"]


def _shape(tensor: Tensor) -> tuple[int, int, int]:
    """What two tensors must have in common to lie in one ring."""
    return tensor.height, tensor.row_records, tensor.row_words


class Planner:
    """Segments of one network.

    Parameters
    ----------
    nodes, tensors : sequences of Node and Tensor
    free : Memory
    hints : Hints
    means : Means
        What it may do to save memory.
    """

    def __init__(
        self, nodes: Sequence[Node], tensors: Sequence[Tensor], free: Memory, hints: Hints, means: Means
    ) -> None:
        self.nodes = nodes
        self.tensors = tensors
        self.free = free
        self.hints = hints
        self.means = means
        self.readers: list[list[tuple[int, Axis]]] = [[] for _ in tensors]
        for index, node in enumerate(nodes):
            for source, axis in zip(node.sources, node.axes, strict=True):
                self.readers[source].append((index, axis))
        # the result is wanted by whoever looks at it: it lives beyond the last layer
        self.last_reader = [max((index for index, _ in found), default=-1) for found in self.readers]
        self.last_reader[-1] = len(nodes)
        self._least: dict[tuple[int, int], dict[int, int]] = {}
        shapes = collections.Counter(map(_shape, tensors[1:]))
        # tensors that may share a ring with another one keep room for its spare rows all their life
        self._shared = [number > 0 and shapes[_shape(tensor)] > 1 for number, tensor in enumerate(tensors)]

    def live(self, cut: int) -> set[int]:
        """Tensors made before layer ``cut`` and read by it or later."""
        return {number for number in range(cut + 1) if self.last_reader[number] >= cut}

    def begin(self, first: int, last: int) -> int:
        """The first layer that a segment interleaves: LOAD, if the image is a ring."""
        return LOAD if self.means.ring_input and first == 0 and 0 not in self.live(last) else first

    def wholes(self, first: int, last: int) -> set[int]:
        """Tensors that are whole while a segment runs."""
        whole = self.live(first) | self.live(last)
        return whole - {0} if self.begin(first, last) == LOAD else whole

    def inside(self, first: int, last: int) -> list[int]:
        """Tensors that a segment makes and uses up."""
        kept = self.live(last)
        return [number for number in range(self.begin(first, last) + 1, last + 1) if number not in kept]

    def pairs(self, first: int, last: int) -> dict[int, int]:
        """Whole tensors that a segment makes, and those that it uses up, whose places they take row by row."""
        if not self.means.spare_rows:
            return {}
        before, after = self.live(first), self.live(last)
        used = [number for number in sorted(before - after) if self._shared[number]]
        pairs = {}
        for made in sorted(after - before):
            found = next(
                (number for number in used if _shape(self.tensors[number]) == _shape(self.tensors[made])), None
            )
            if found is not None and self.tensors[made].stored:
                used.remove(found)
                pairs[made] = found
        return pairs

    def whole_rows(self, number: int) -> int:
        """Rows that a whole tensor takes, with those to spare."""
        return self.tensors[number].height + (self.means.spare_rows if self._shared[number] else 0)

    def simulate(self, first: int, last: int, rings: dict[int, int], deepest: bool) -> tuple[Strip, ...] | None:
        """Strips of a segment, always of the deepest (or shallowest) layer that can run; None if it gets stuck."""
        begin = self.begin(first, last)
        heights = self._heights(begin, last)
        produced = [0] * len(heights)
        pairs = self.pairs(first, last)
        strips: list[Strip] = [Strip(LOAD, 0, self.tensors[0].height)] if begin == 0 else []
        order = range(len(heights))[:: -1 if deepest else 1]
        # rows that no reader needs are computed all the same: whoever looks at a tensor finds all of it
        while produced != heights:
            for index in order:
                rows = self._runnable(begin, produced, (rings, pairs), index)
                if rows:
                    strips.append(Strip(begin + index, produced[index], rows))
                    produced[index] += rows
                    break
            else:
                return None
        return tuple(strips)

    def _heights(self, first: int, last: int) -> list[int]:
        """Output rows of layers ``first .. last-1``."""
        return [self.tensors[i + 1].height for i in range(first, last)]

    def _node(self, layer: int) -> Node:
        return Node((), (), self.tensors[0].height) if layer == LOAD else self.nodes[layer]

    def _runnable(
        self, first: int, produced: Sequence[int], shared: tuple[dict[int, int], dict[int, int]], index: int
    ) -> int:
        """Rows that layer ``first + index`` can compute now; ``shared``: rings and pairs."""
        layer, done = first + index, produced[index]
        node, own = self._node(layer), layer + 1
        rings, pairs = shared
        if own == len(self.nodes) and list(produced[:-1]) != self._heights(first, layer):
            return 0  # the logits stay in the membrane memory, so nothing may run after the output layer
        limit = min(self.tensors[own].height, done + node.max_rows)
        if self.hints.max_strip_rows is not None:
            limit = min(limit, done + self.hints.max_strip_rows)
        if own in rings:
            limit = min(limit, self._oldest(own, first, produced, done) + rings[own])
            if layer == LOAD:  # the encoder knows no ring
                limit = min(limit, done - done % rings[own] + rings[own])
        if own in pairs:
            before = pairs[own]
            limit = min(
                limit, self._oldest(before, first, produced, self.tensors[before].height) + self.means.spare_rows
            )
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
            if reader >= first and produced[reader - first] < axis.out:
                needed = min(needed, axis.low(produced[reader - first]))
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
        for number in self.wholes(first, last) - set(self.pairs(first, last)):
            total += size(self.tensors[number], self.whole_rows(number))
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
        return Segment(first, last, rings, min(found, key=len), self.pairs(first, last))

    def descriptors(self, segment: Segment) -> int:
        """Descriptors of a segment; the first rows of the image take none, for PROGRAM does."""
        once = sum(self.nodes[layer].once for layer in range(segment.first, segment.last))
        legs = sum(len(self.nodes[strip.layer].sources) for strip in segment.strips if strip.layer != LOAD)
        loads = sum(strip.layer == LOAD and strip.first > 0 for strip in segment.strips)
        return once + legs + loads

    def _rings(self, first: int, last: int) -> dict[int, int]:
        """Rows of the tensors inside a segment: as many as fit, in even proportion."""
        least = self.least(first, last)
        heights = {number: self.tensors[number].height for number in least}
        if self.hints.ring_rows is not None:
            wanted = {n: min(heights[n], max(w, self.hints.ring_rows)) for n, w in least.items()}
            return wanted if self.memory(first, last, wanted).within(self.free) else least
        if self.hints.input_rows is not None and 0 in least:
            heights[0] = min(heights[0], max(least[0], self.hints.input_rows))
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
