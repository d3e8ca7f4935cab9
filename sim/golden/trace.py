"""What the golden model reports besides logits: memory images and statistics."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import EVENT_VALUE_BITS

from .dataflow import Dataflow
from .schedule import NOTHING, PAD, Strip

__all__ = ["DescriptorStats", "MemoryImage", "count_events", "memory_image"]


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryImage:
    """Activation and count memories exactly as the hardware holds them, as far as they are defined.

    Parameters
    ----------
    counts : uint16 array (N, count_words, banks)
    counts_valid : bool array (count_words,)
        Which count words belong to intact records; the others hold anything.
    events : uint16 array (N, act_words, banks)
    events_valid : bool array (N, act_words, banks)
        Which words are events of intact records; the others hold anything.
    """

    counts: NDArray[np.uint16]
    counts_valid: NDArray[np.bool_]
    events: NDArray[np.uint16]
    events_valid: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class DescriptorStats:
    """Events of one strip, for the cycle model.

    Parameters
    ----------
    index : int
        Of the descriptor.
    gathered : int array (N, T_in, positions, banks)
        Events of a pass; every pass of the position sees the same.
    entries : int array (N, T_in, positions, banks)
        Source records with at least one event.
    stored : int array (N, T, positions, groups, banks)
        Events written, by group of neuron lanes.
    columns : int array (N, T_in, rows, source columns, banks) or None
        Of row mode: events of a pass, by source column from the first that an output row reads.
    """

    index: int
    gathered: NDArray[np.int64]
    entries: NDArray[np.int64]
    stored: NDArray[np.int64]
    columns: NDArray[np.int64] | None = None


def memory_image(memory: NDArray[np.uint8], state: Dataflow) -> MemoryImage:
    """Compress dense codes (N, act_words, banks) as the hardware does."""
    n, act_words, banks = memory.shape
    count_words = len(state.record_act)
    counts = np.zeros((n, count_words, banks), dtype=np.uint16)
    counts_valid = np.zeros(count_words, dtype=bool)
    events = np.zeros((n, act_words, banks), dtype=np.uint16)
    events_valid = np.zeros((n, act_words, banks), dtype=bool)
    for count in state.live():
        start, slots = int(state.record_act[count]), int(state.record_slots[count])
        codes = memory[:, start : start + slots].astype(np.uint16)
        fired = codes > 0
        counts[:, count] = fired.sum(axis=1)
        counts_valid[count] = True
        order = np.argsort(~fired, axis=1, kind="stable")  # events first, in ascending index
        values = np.take_along_axis(codes, order, axis=1)
        events[:, start : start + slots] = values | (order << EVENT_VALUE_BITS).astype(np.uint16)
        events_valid[:, start : start + slots] = np.take_along_axis(fired, order, axis=1)
    return MemoryImage(counts, counts_valid, events, events_valid)


def count_events(strip: Strip, before: NDArray[np.uint8], after: NDArray[np.uint8], config: Config) -> DescriptorStats:
    """Statistics of one strip from the memory before and after it."""
    counts = _record_counts(before, strip.source.act_base, strip.source.number, strip.source.slots)
    positions = len(strip.sources)
    gathered, entries = _events(strip, counts, strip.sources.reshape(positions, -1))
    columns = None
    if strip.fields["row_passes"]:
        sources = source_columns(strip)
        columns, _ = _events(strip, counts, sources.reshape(-1, sources.shape[-1]))
        columns = columns.reshape(*columns.shape[:2], *sources.shape[:2], -1)
    return DescriptorStats(strip.index, gathered, entries, _stored(strip, after, config), columns)


def source_columns(strip: Strip) -> NDArray[np.int64]:
    """Source records (rows, source columns, records) of row mode: every column that an output row reads, once."""
    f = strip.fields
    walk = strip.sources.reshape(f["rows"], f["cols"], f["n_pool_y"], f["n_pool_x"], f["n_tap_y"], f["n_tap_x"])
    by_column = walk.transpose(0, 1, 3, 5, 2, 4)  # row, column, column of the window, kx; py, ky
    of_window = by_column.reshape(f["rows"], f["cols"] * f["n_pool_x"], f["n_tap_x"], -1)
    return np.concatenate([of_window[:, :, 0], of_window[:, -1, 1:]], axis=1)


def _events(
    strip: Strip, counts: NDArray[np.int64], sources: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Events, and records with any, (N, T_in, tables, banks) of source records (tables, records)."""
    n, _, banks = counts.shape
    gathered = np.zeros((n, strip.steps_in, len(sources), banks), dtype=np.int64)
    entries = np.zeros_like(gathered)
    pad = np.zeros(banks, dtype=np.int64)
    if strip.pad is not None:
        pad = np.count_nonzero(strip.pad.reshape(-1, banks), axis=0).astype(np.int64)
    for source in sources.T:
        for step in range(strip.steps_in):
            of_source = counts[:, np.maximum(source, 0) + step * (source >= 0)]
            of_source = np.where((source == PAD)[:, None], pad, of_source)
            of_source = np.where((source == NOTHING)[:, None], 0, of_source)
            gathered[:, step] += of_source
            entries[:, step] += of_source > 0
    return gathered, entries


def _stored(strip: Strip, memory: NDArray[np.uint8], config: Config) -> NDArray[np.int64]:
    """Events (N, T, positions, groups, banks) in the records a strip has just written."""
    target, per_group = strip.target, config.channels_per_bank_group
    n, _, banks = memory.shape
    groups = strip.groups(config)
    words = memory[:, target.act_base : target.act_base + target.number * target.slots] > 0
    fired = words.reshape(n, target.number, target.slots, banks)[:, strip.outputs]
    padded = np.zeros((*fired.shape[:3], max(groups * per_group, target.slots), banks), dtype=bool)
    padded[:, :, :, : target.slots] = fired
    padded = padded[:, :, :, : groups * per_group]
    by_group = padded.reshape(*fired.shape[:3], groups, per_group, banks).sum(axis=4)
    return by_group.transpose(0, 2, 1, 3, 4)


def _record_counts(memory: NDArray[np.uint8], base: int, number: int, slots: int) -> NDArray[np.int64]:
    """Non-zero codes (N, number, banks) of consecutive records."""
    words = memory[:, base : base + number * slots] > 0
    return words.reshape(memory.shape[0], number, slots, memory.shape[2]).sum(axis=2)
