"""Which record lies where in the activation and count memories while a program runs: every read can be proven.

A record is a count word and some activation words that belong together. It is known by the tensor, the row and the
place in the row, so what a strip reads is proven whatever schedule and allocation it comes from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["INPUT", "ActivationMemory", "Place", "SourceRows", "source_rows", "tags_of"]

INPUT = -1
"""Number of the input tensor; the others are those of the layers that produce them."""
_NOTHING = -1
_RING_BITS = 16  # of a record number in a ring
_ROW, _TENSOR = 1 << 20, 1 << 40  # of a tag: place in the row, row, tensor

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Place:
    """A ring: record r has ``slots`` words from ``act_base + r*slots`` in every bank, its count at ``cnt_base + r``."""

    act_base: int
    cnt_base: int
    slots: int


@dataclasses.dataclass(frozen=True, eq=False)
class SourceRows:
    """Rows of its source that a strip reads, and where each begins in the ring."""

    rows: Ints
    offsets: Ints


def source_rows(f: Mapping[str, int]) -> SourceRows:
    """What the fields of a LAYER descriptor make the walker read, without rows outside the image.

    ``rows`` times the window must have been bounded.
    """
    out, pool, tap = np.ix_(np.arange(f["rows"]), np.arange(f["n_pool_y"]), np.arange(f["n_tap_y"]))
    y = f["iy0"] + out * f["y_step"] + pool * f["y_pool"] + tap * f["y_tap"]
    offset = f["src_row0"] + out * f["src_row_step"] + pool * f["src_row_pool"] + tap * f["src_row_tap"]
    inside = (y >= 0) & (y < f["in_height"])
    y, offset = np.broadcast_arrays(y, offset)
    pairs = np.unique(y[inside] << _RING_BITS | offset[inside] % f["src_ring"])
    return SourceRows(pairs >> _RING_BITS, pairs & (1 << _RING_BITS) - 1)


class ActivationMemory:
    """State of both memories.

    Parameters
    ----------
    config : Config
    constant : Place
        The constant record, which comes with the program: image after image reads it, so nothing may ever be stored
        over it.
    constant_records : int
        0 if there is none.
    """

    def __init__(self, config: Config, constant_words: int, constant_records: int) -> None:
        self._constant = constant_words, constant_records
        self._tag: Ints = np.full(config.count_words, _NOTHING, dtype=np.int64)
        self._act: Ints = np.full(config.count_words, _NOTHING, dtype=np.int64)
        self._largest: Ints = np.zeros(config.count_words, dtype=np.int64)
        self._owner: Ints = np.full(config.act_words, _NOTHING, dtype=np.int64)

    def write(self, place: Place, records: Ints, tags: Ints, largest: int, where: str) -> None:
        """Records are stored, with codes up to ``largest``.

        Raises
        ------
        InputError
            If they do not lie in the memories, or over the constant record.
        """
        counts, words = self._addresses(place, records, where)
        if counts.min() < self._constant[1] or words.min(initial=len(self._owner)) < self._constant[0]:
            raise InputError(f"{where}: is stored over the constant record")
        self._tag[counts], self._act[counts], self._largest[counts] = (
            tags,
            place.act_base + records * place.slots,
            largest,
        )
        self._owner[words] = counts[:, None]

    def read(self, place: Place, records: Ints, tags: Ints) -> int | None:
        """Largest code of records; None unless they are those of the tags, with all of their words.

        Their addresses must be inside the memories.
        """
        counts = place.cnt_base + records
        first = place.act_base + records * place.slots
        if not np.array_equal(self._tag[counts], tags) or not np.array_equal(self._act[counts], first):
            return None
        owners = self._owner[first[:, None] + np.arange(place.slots)]
        return int(self._largest[counts].max(initial=0)) if bool(np.all(owners == counts[:, None])) else None

    def _addresses(self, place: Place, records: Ints, where: str) -> tuple[Ints, Ints]:
        """(records,) count addresses and (records, slots) word addresses."""
        last = int(records.max())
        if place.act_base + (last + 1) * place.slots > len(self._owner) or place.cnt_base + last >= len(self._tag):
            raise InputError(f"{where}: lies outside the activation memory")
        words = place.act_base + records[:, None] * place.slots + np.arange(place.slots)
        return place.cnt_base + records, words

    def tensor_at(self, count: int) -> int | None:
        """The tensor whose record's count lies at an address; None if nothing was ever stored there."""
        if not 0 <= count < len(self._tag) or self._tag[count] == _NOTHING:
            return None
        return int(self._tag[count]) // _TENSOR - 1

    def check_inside(self, place: Place, records: int, where: str) -> None:
        """Raise InputError unless a ring of so many records lies in the memories."""
        self._addresses(place, np.array([records - 1]), where)


def tags_of(tensor: int, rows: Ints, length: int) -> Ints:
    """Tags of ``length`` records of each of some rows: (rows * length,)."""
    first = (tensor + 1) * _TENSOR + rows * _ROW
    return (first[:, None] + np.arange(length)).ravel()
