"""Tiling: groups of channels and bit planes onto passes and slots, and the weight rows that follow."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import IntMap, WeightKind
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import SLOT_FIELDS, pack

__all__ = ["Pass", "Plane", "Tile", "arrange", "pack_rows", "planes_of", "repeated", "slot_entries", "tile_layer"]


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """One bit plane of a map's weights: it adds ``(P << shift)``, negated or not, less S or not, to z.

    Parameters
    ----------
    bits : bool array, shape of the weights
    """

    bits: NDArray[np.bool_]
    shift: int
    negate: bool = False
    subtract_s: bool = False


@dataclasses.dataclass(frozen=True)
class Tile:
    """What one slot of one pass holds. ``first`` and ``final`` plane of its group."""

    group: int
    plane: int
    first: bool
    final: bool


def planes_of(leg: IntMap) -> tuple[Plane, ...]:
    """Bit planes in the order in which they are accumulated."""
    weight = leg.weight
    if leg.kind is WeightKind.BINARY:
        return (Plane(weight > 0, 1, subtract_s=True),)
    if leg.kind is WeightKind.UNIT:
        return (Plane(weight > 0, 0),)
    if leg.kind is WeightKind.TERNARY:
        return (Plane(weight > 0, 0), Plane(weight < 0, 0, negate=True))
    top = leg.bits - 1
    return tuple(Plane((weight >> k & 1).astype(bool), k, negate=k == top) for k in range(leg.bits))


Pass = tuple[Tile | None, ...]
"""The tiles of a pass by slot; None where a slot is another map's, or nobody's."""


def tile_layer(groups: int, planes: int, late: bool = False) -> list[Tile]:
    """Tiles in the order in which they are drained, over slots and then passes.

    The planes of a group follow each other: that spreads the neuron updates evenly over the passes, and keeps few
    groups of z open at a time.

    ``late``: the last two planes of each group come after all others, for a layer whose last passes are repeated. A
    plane before each final one takes no time: it is drained while lanes are updated.
    """
    tiles = [Tile(group, plane, plane == 0, plane == planes - 1) for group in range(groups) for plane in range(planes)]
    if late:
        tiles.sort(key=lambda tile: tile.plane >= planes - 2)
    return tiles


def arrange(tiles: Sequence[Tile], slots_of_pass: Sequence[Sequence[int]]) -> tuple[Pass, ...]:
    """Passes of as many slots as are in use, of which each uses those that it has been given."""
    following = iter(tiles)
    slots = 1 + max(max(used) for used in slots_of_pass)
    passes = []
    for used in slots_of_pass:
        row: list[Tile | None] = [None] * slots
        for slot in used:
            row[slot] = next(following)
        passes.append(tuple(row))
    return tuple(passes)


def repeated(passes: tuple[Pass, ...]) -> int:
    """Passes from the first on that finishes a group."""
    first = next(index for index, tiles in enumerate(passes) if any(tile is not None and tile.final for tile in tiles))
    return len(passes) - first


def slot_entries(passes: tuple[Pass, ...], planes: tuple[Plane, ...], columns: int = 1) -> list[int]:
    """The slot program of a map, a word per slot, over all passes of each of ``columns`` captured columns."""
    words = []
    for column, tiles in itertools.product(range(columns), passes):
        for tile in tiles:
            if tile is None:
                words.append(0)
                continue
            plane = planes[tile.plane]
            entry = {
                "group": tile.group,
                "shift": plane.shift,
                "negate": plane.negate,
                "subtract_s": plane.subtract_s,
                "first": tile.first and column == 0,
                "final": tile.final and column == columns - 1,
                "valid": 1,
            }
            words += pack(SLOT_FIELDS, entry, 1)
    return words


def pack_rows(
    passes: tuple[Pass, ...], planes: tuple[Plane, ...], config: Config, row_mode: bool = False
) -> NDArray[np.uint32]:
    """Weight rows, uint32 (passes, taps * src_slots, banks, weight_words), of a map; in row mode of its rows of taps.

    Lanes of channels that do not exist, and rows of source channels that do not exist, are 0.
    """
    c_out, c_in, k_h, k_w = planes[0].bits.shape
    lanes, banks = config.neuron_lanes, config.banks
    src_slots = -(-c_in // banks)
    width = config.row_lanes if row_mode else config.lanes
    rows = np.zeros((len(passes), k_h * k_w, src_slots * banks, width), dtype=np.uint8)
    for index, tiles in enumerate(passes):
        for slot, tile in enumerate(tiles):
            if tile is None:
                continue
            low, high = tile.group * lanes, min((tile.group + 1) * lanes, c_out)
            bits = planes[tile.plane].bits[low:high].reshape(high - low, c_in, k_h * k_w)
            # channel c is in bank c % banks at index c // banks: the order of (index, bank) is that of c
            rows[index, :, :c_in, slot * lanes : slot * lanes + high - low] = bits.transpose(2, 1, 0)
    if row_mode:  # the lanes of the last kernel column first
        by_row = rows.reshape(len(passes), k_h, k_w, src_slots * banks, width)[:, :, ::-1]
        rows = by_row.transpose(0, 1, 3, 2, 4).reshape(len(passes), k_h, src_slots * banks, config.lanes)
    padded = np.zeros((*rows.shape[:3], config.weight_words * 32), dtype=np.uint8)
    padded[..., : config.lanes] = rows
    words = np.packbits(padded, axis=-1, bitorder="little").view("<u4").astype(np.uint32)
    return words.reshape(len(passes), -1, banks, config.weight_words)
