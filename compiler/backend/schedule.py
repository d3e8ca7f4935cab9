"""Strips: in which order the layers' rows are computed, and how many rows of each tensor are kept.

The layers, in their order, are cut into segments. A tensor that is read beyond the cut after it is kept whole; a tensor
whose readers all lie in its own segment is a ring of its newest rows, freed by its slowest reader, and the strips of a
segment's layers interleave. Among all cuts that fit the memories, the one with the fewest descriptors is taken.

Where nothing fits, the image becomes a ring as well, and then whole tensors take each other's place row by row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from reverb_fpga.compiler.backend.geometry import Tensor
from reverb_fpga.compiler.backend.limits import too_large
from reverb_fpga.compiler.backend.segments import Planner
from reverb_fpga.compiler.backend.strips import Hints, Means, Memory, Node, Schedule, Segment
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["plan"]

_MAX_FUSED = 12  # layers of one segment; more have not paid in any network tried
_SPARE_ROWS = (4, 6, 8, 12, 16, 24)  # tried in turn; the fewest descriptors win


def plan(nodes: Sequence[Node], tensors: Sequence[Tensor], free: Memory, config: Config, hints: Hints) -> Schedule:
    """The schedule with the fewest descriptors, by the plainest means with which there is one.

    Parameters
    ----------
    free : Memory
        What the constant records leave of the activation and count memories.

    Raises
    ------
    InputError
        If no schedule fits; names the layer, the memory, what it needs and what there is.
    """
    fewest: int | None = None
    planner = None
    for means in _means(hints):
        found: list[tuple[int, Schedule]] = []
        for one in means:
            planner = Planner(nodes, tensors, free, hints, one)
            result = _best(planner, len(nodes))
            if result is not None:
                found.append((result[0], Schedule(result[1], one.spare_rows)))
        if found:
            count, schedule = min(found, key=lambda pair: pair[0])
            fewest = count if fewest is None else min(count, fewest)
            if count + 2 <= config.descriptors:
                return schedule
    assert planner is not None
    if fewest is None:
        raise _explanation(planner, len(nodes), free, config)
    raise too_large(config, f"the schedule of {len(nodes)} layers", "descriptors", fewest + 2, config.descriptors)


def _means(hints: Hints) -> Iterator[tuple[Means, ...]]:
    """The plainest first; those of one group are equally good."""
    if hints.input_rows is not None or hints.spare_rows is not None:
        yield (Means(hints.input_rows is not None, hints.spare_rows or 0),)
        return
    yield (Means(),)
    yield (Means(ring_input=True),)
    yield tuple(Means(True, rows) for rows in _SPARE_ROWS)


def _best(planner: Planner, count: int) -> tuple[int, tuple[Segment, ...]] | None:
    """Descriptors and segments of the best cut; None if none fits."""
    if planner.hints.ring_rows is not None:
        whole = planner.segment(0, count)
        if whole is not None:
            return planner.descriptors(whole), (whole,)

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
    return best(count)


def _explanation(planner: Planner, count: int, free: Memory, config: Config) -> InputError:
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
