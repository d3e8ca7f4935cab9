"""What a schedule is made of.

Tensors have numbers: 0 is the input, ``i + 1`` is what layer ``i`` fires.
"""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.backend.geometry import Axis, Tensor

__all__ = ["LOAD", "Hints", "Means", "Memory", "Node", "Schedule", "Segment", "Strip", "size"]

LOAD = -1
"""The layer, so to say, that fires the input: its strips are rows taken from the host."""


@dataclasses.dataclass(frozen=True)
class Hints:
    """Force more strips than are needed, for tests.

    Parameters
    ----------
    max_strip_rows : int or None
        No descriptor computes more output rows than this.
    ring_rows : int or None
        Every tensor between two layers keeps this many rows (or what its readers need, or all it has).
    input_rows : int or None
        The image is a ring of this many rows (or what its readers need, or all it has).
    spare_rows : int or None
        A tensor that is whole takes the place of one that it replaces, with this many rows to spare.
    row_mode : bool or None
        Row mode wherever it is possible, or nowhere.
    """

    max_strip_rows: int | None = None
    ring_rows: int | None = None
    input_rows: int | None = None
    spare_rows: int | None = None
    row_mode: bool | None = None


@dataclasses.dataclass(frozen=True)
class Means:
    """What a schedule may do to save memory.

    Parameters
    ----------
    ring_input : bool
        Keep the newest rows of the image only, taken from the host as they are needed.
    spare_rows : int
        Store a whole tensor where another of the same shape is being used up, row by row, in a ring that has so many
        rows more than one of them. 0: nowhere.
    """

    ring_input: bool = False
    spare_rows: int = 0


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
    """Rows ``first .. first + rows - 1`` of the output of a layer: one descriptor per map. LOAD: rows of the image."""

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
    strips : tuple of Strip
    pairs : dict of int
        Whole tensors that it makes, by number, and those in whose place each is stored while they are used up.
    """

    first: int
    last: int
    rings: dict[int, int]
    strips: tuple[Strip, ...]
    pairs: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """All segments in order.

    Parameters
    ----------
    segments : tuple of Segment
    spare_rows : int
        Rows beyond its own of a ring that tensors share one after the other.
    """

    segments: tuple[Segment, ...]
    spare_rows: int = 0

    @property
    def strips(self) -> tuple[Strip, ...]:
        """All strips in order."""
        return tuple(strip for segment in self.segments for strip in segment.strips)


def size(tensor: Tensor, rows: int) -> Memory:
    """Memory of ``rows`` rows."""
    return Memory(rows * tensor.row_words, rows * tensor.row_records)
