"""Rows of a table by index, copied in whole blocks: several times as fast as row by row."""

from __future__ import annotations

import copy
import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .workspace import Calls

__all__ = ["Block", "Rows", "Table", "Windows", "blocks"]

_WORTH = 6
"""Rows that a block must have on average to be worth a call."""


class Table:
    """An array (N, T, rows, ...) of which many blocks of rows are viewed: what they share is looked up once."""

    def __init__(self, array: NDArray[Any]) -> None:
        owner = array if array.base is None else array.base
        assert isinstance(owner, np.ndarray)  # whose memory no view may leave
        self._owner, self._dtype = owner, array.dtype
        self._start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        self._outer, self._inner = array.shape[:2], array.shape[3:]
        self._outer_strides, self._row, self._inner_strides = array.strides[:2], array.strides[2], array.strides[3:]

    def view(self, first: int, shape: tuple[int, int], steps: tuple[int, int]) -> NDArray[Any]:
        """Rows ``first + i * steps[0] + j * steps[1]``: (N, T, *shape, ...)."""
        row = self._row
        strides = (*self._outer_strides, steps[0] * row, steps[1] * row, *self._inner_strides)
        return np.ndarray(
            (*self._outer, *shape, *self._inner), self._dtype, self._owner, self._start + first * row, strides
        )

    def joined(self, rows: int) -> Table:
        """The contiguous table in which every row has the ``rows - 1`` after it appended, as long as there are any."""
        table = copy.copy(self)
        (width,) = self._inner
        table._inner = (rows * width,)
        return table


@dataclasses.dataclass(frozen=True)
class Block:
    """``count`` stretches of ``length`` numbers: ``first + i * row_step + j * step``, from ``place`` on."""

    place: int
    count: int
    length: int
    first: int
    row_step: int
    step: int

    def places(self, table: Table) -> NDArray[Any]:
        """Of a table (N, T, places, ...): (N, T, count, length, ...)."""
        return table.view(self.place, (self.count, self.length), (self.length, 1))

    def rows(self, table: Table, offset: int = 0) -> NDArray[Any]:
        """Of a table (N, T, rows, ...): (N, T, count, length, ...); ``offset`` is added to every number."""
        return table.view(self.first + offset, (self.count, self.length), (self.row_step, self.step))


def blocks(numbers: NDArray[np.int64]) -> list[Block]:
    """Where numbers rise by the same step, and where such stretches follow each other with the same step, upwards."""
    found: list[Block] = []
    for block in _stretches(numbers):
        last = found[-1] if found else None
        if last is None or (last.length, last.step) != (block.length, block.step):
            found.append(block)
            continue
        row_step = block.first - last.first - (last.count - 1) * last.row_step
        if row_step >= 0 and (last.count == 1 or row_step == last.row_step):
            found[-1] = dataclasses.replace(last, count=last.count + 1, row_step=row_step)
        else:
            found.append(block)
    return found


def _stretches(numbers: NDArray[np.int64]) -> list[Block]:
    found, start, count = [], 0, len(numbers)
    steps = np.diff(numbers)
    while start < count:
        step = int(steps[start]) if start + 1 < count else 0
        length = 1
        if step > 0:
            others = np.flatnonzero(steps[start:] != step)
            length = (int(others[0]) if others.size else count - 1 - start) + 1
        found.append(Block(start, 1, length, int(numbers[start]), 0, step if length > 1 else 0))
        start += length
    return found


class Rows:
    """Rows ``indices`` of a table (N, T, rows, C).

    Parameters
    ----------
    indices : int array (K,)
    """

    def __init__(self, indices: NDArray[np.int64]) -> None:
        self._indices = indices
        self._blocks = blocks(indices)
        self._worth = len(self._blocks) * _WORTH <= len(indices) or len(self._blocks) <= 2

    def copy(self, calls: Calls, table: NDArray[Any], out: NDArray[Any], offset: int = 0) -> None:
        """Into (N, T, K, C); ``offset`` is added to every index."""
        if not self._worth:
            calls.add(_copy_rows, table, self._indices + offset, out)
            return
        source, target = Table(table), Table(out)
        for block in self._blocks:
            calls.add(np.copyto, block.places(target), block.rows(source, offset), "unsafe")

    def add(self, calls: Calls, table: NDArray[Any], out: NDArray[Any]) -> None:
        """To (N, T, K, C)."""
        if not self._worth:
            calls.add(_add_rows, table, self._indices, out)
            return
        source, target = Table(table), Table(out)
        for block in self._blocks:
            part = block.places(target)
            calls.add(np.add, part, block.rows(source), part)


def _copy_rows(table: NDArray[Any], indices: NDArray[np.int64], out: NDArray[Any]) -> None:
    out[...] = np.take(table, indices, axis=2)


def _add_rows(table: NDArray[Any], indices: NDArray[np.int64], out: NDArray[Any]) -> None:
    out += np.take(table, indices, axis=2)


class Windows:
    """Rows ``indices`` of a table (N, T, rows, C), side by side: (N, T, positions, taps, C).

    Taps that read consecutive rows at every position are copied at once.

    Parameters
    ----------
    indices : int array (positions, taps)
    """

    def __init__(self, indices: NDArray[np.int64]) -> None:
        self._indices = indices
        joined = (np.diff(indices, axis=1) == 1).all(axis=0)
        starts = [0, *(np.flatnonzero(~joined) + 1).tolist(), indices.shape[1]]
        self._groups = [(first, last - first, blocks(indices[:, first])) for first, last in pairwise(starts)]
        self._worth = sum(len(parts) for _, _, parts in self._groups) * _WORTH <= indices.size

    def copy(self, calls: Calls, table: NDArray[Any], out: NDArray[Any]) -> None:
        """Both are contiguous."""
        if not self._worth:
            calls.add(_take_rows, table, self._indices, out)
            return
        n, steps, _, channels = table.shape
        source = Table(table)
        joint = out.reshape(n, steps, len(self._indices), -1)
        for first, taps, parts in self._groups:
            target, joined = Table(joint[..., first * channels : (first + taps) * channels]), source.joined(taps)
            for block in parts:
                calls.add(np.copyto, block.places(target), block.rows(joined))


def _take_rows(table: NDArray[Any], indices: NDArray[np.int64], out: NDArray[Any]) -> None:
    np.take(table, indices, axis=2, out=out, mode="clip")  # the other modes copy twice
