"""What the gather computes, in plain Python: the events of every pass, in order, bank by bank."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from ..contract import EVENT_VALUE_BITS, ROW_CELLS

__all__ = ["GatherMemory", "Sources", "gather_events", "pass_flags", "source_records"]

Layer = Mapping[str, int]
Sources = list[tuple[int | None, int]]
"""(record number, or None for the pad record; tap) of one output position and step."""


@dataclasses.dataclass(frozen=True)
class GatherMemory:
    """Contents of the memories, ``[bank][address]``: event words, counts, weight rows."""

    act: Sequence[Sequence[int]]
    count: Sequence[Sequence[int]]
    weight: Sequence[Sequence[int]]


def source_records(layer: Layer) -> Iterator[Sources]:
    """Source records of every output position and step of a strip, in row mode of every source column and step.

    ``layer``: fields of the descriptor.
    """
    if layer["row_passes"]:
        yield from _row_records(layer)
        return
    steps = 1 if layer["static_input"] else layer["timesteps"]
    per_step = layer["t_src"] > 1 and not layer["static_input"]
    for oy, ox, t in itertools.product(range(layer["rows"]), range(layer["cols"]), range(steps)):
        sources: Sources = []
        window = (range(layer[name]) for name in ("n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x"))
        for py, px, ky, kx in itertools.product(*window):
            y = oy * layer["y_step"] + py * layer["y_pool"] + ky * layer["y_tap"] + layer["iy0"]
            x = ox * layer["x_step"] + px * layer["x_pool"] + kx * layer["x_tap"] + layer["ix0"]
            tap = ky * layer["n_tap_x"] + kx
            if 0 <= y < layer["in_height"] and 0 <= x < layer["in_width"]:
                sources.append((_record(layer, (oy, py, ky), (ox, px, kx)) + (t if per_step else 0), tap))
            elif layer["pad_record"]:
                sources.append((None, tap))
        yield sources


def _row_tables(layer: Layer) -> Iterator[tuple[int, int, int, int]]:
    """(oy, ox, t, px) of every table of row mode; ox counts from the columns left of the first output column on."""
    steps = 1 if layer["static_input"] else layer["timesteps"]
    columns = layer["cols"] + (2 if layer["n_pool_x"] == 1 else 1)
    return itertools.product(range(layer["rows"]), range(columns), range(steps), range(layer["n_pool_x"]))


def _row_records(layer: Layer) -> Iterator[Sources]:
    per_step = layer["t_src"] > 1 and not layer["static_input"]
    for oy, ox, t, px in _row_tables(layer):
        sources: Sources = []
        for py, ky in itertools.product(range(layer["n_pool_y"]), range(layer["n_tap_y"])):
            y = oy * layer["y_step"] + py * layer["y_pool"] + ky * layer["y_tap"] + layer["iy0"]
            x = ox * layer["x_step"] + px * layer["x_pool"] + layer["ix0"]
            if 0 <= y < layer["in_height"] and 0 <= x < layer["in_width"]:
                sources.append((_record(layer, (oy, py, ky), (ox, px, 0)) + (t if per_step else 0), ky))
            elif layer["pad_record"]:
                sources.append((None, ky))
        yield sources


def pass_flags(layer: Layer) -> Iterator[tuple[int, int, int]]:
    """(keep, capture, cell) of every pass; gather mode keeps nothing, and reads the last cell."""
    if not layer["row_passes"]:
        number = sum(1 for _ in source_records(layer)) * layer["n_passes"]
        yield from itertools.repeat((0, 1, ROW_CELLS - 1), number)
        return
    lead = 2 if layer["n_pool_x"] == 1 else 1
    for _, ox, t, _ in _row_tables(layer):
        for number in range(layer["row_passes"]):
            yield 1, int(ox >= lead), t * layer["row_passes"] + number


def _record(layer: Layer, rows: tuple[int, int, int], cols: tuple[int, int, int]) -> int:
    """Record number of step 0; rows are taken modulo the ring."""
    row, col = layer["src_row0"], layer["src_col0"]
    for level, row_index, col_index in zip(("step", "pool", "tap"), rows, cols, strict=True):
        row += row_index * layer[f"src_row_{level}"]
        col += col_index * layer[f"src_col_{level}"]
    return row % layer["src_ring"] + col


def gather_events(layer: Layer, memory: GatherMemory) -> Iterator[list[list[tuple[int, int]]]]:
    """``(code, weight row)`` of the events of every pass, one list per bank, in the order in which they are issued."""
    for sources in source_records(layer):
        for number in range(layer["row_passes"] or layer["n_passes"]):
            base = layer["w_base"] + number * layer["w_pass_stride"]
            yield [_bank_events(layer, memory, bank, sources, base) for bank in range(len(memory.act))]


def _bank_events(layer: Layer, memory: GatherMemory, bank: int, sources: Sources, base: int) -> list[tuple[int, int]]:
    events = []
    slots = layer["src_slots"]
    for record, tap in sources:
        if record is None:
            act, count = layer["pad_act_base"], layer["pad_cnt_base"]
        else:
            act, count = layer["src_act_base"] + record * slots, layer["src_cnt_base"] + record
        for word in memory.act[bank][act : act + memory.count[bank][count]]:
            index = word >> EVENT_VALUE_BITS
            code = word & ((1 << EVENT_VALUE_BITS) - 1)
            events.append((code, memory.weight[bank][base + tap * slots + index]))
    return events
