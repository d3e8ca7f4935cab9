"""Widths and structs shared by the blocks of the gather."""

from __future__ import annotations

from amaranth.lib import data
from amaranth.utils import bits_for

from ..config import Config
from ..contract import ROW_CELLS

__all__ = [
    "act_addr_width",
    "count_addr_width",
    "entry_layout",
    "left_width",
    "pair_layout",
    "row_addr_width",
    "source_layout",
]

REST_BITS = 8  # events of a record in one bank, less one: at most 256 channels share a bank


def act_addr_width(config: Config) -> int:
    """Bits of a word address in one activation bank."""
    return bits_for(config.act_words - 1)


def count_addr_width(config: Config) -> int:
    """Bits of a record address in the count memory."""
    return bits_for(config.count_words - 1)


def row_addr_width(config: Config) -> int:
    """Bits of a row address in one weight bank."""
    return bits_for(config.all_weight_rows - 1)


def left_width(config: Config) -> int:
    """Bits of the number of events of one table."""
    return bits_for(config.table_entries << REST_BITS)


def entry_layout(config: Config) -> data.StructLayout:
    """Table entry: where the events of one source record start, how many there are less one, ``tap * src_slots``.

    ``has_one``, ``has_two``: that is how many there are; stored, for the queue's longest path begins there.
    """
    return data.StructLayout(
        {
            "addr": act_addr_width(config),
            "rest": REST_BITS,
            "tap": row_addr_width(config),
            "has_one": 1,
            "has_two": 1,
        }
    )


def source_layout(config: Config) -> data.StructLayout:
    """One source record on its way to the tables.

    ``push``: it exists (inside the image, or there is a pad record). ``first``, ``last``: of its table. ``strip_last``:
    the last source of the strip. Only with row mode: ``capture``: a column is finished when its table has been used up;
    ``cell``: of its first pass.
    """
    row_mode = {"capture": 1, "cell": range(ROW_CELLS)}
    return data.StructLayout(
        {
            "push": 1,
            "first": 1,
            "last": 1,
            "strip_last": 1,
            "addr": act_addr_width(config),
            "tap": row_addr_width(config),
            **(row_mode if config.taps > 1 else {}),
        }
    )


def pair_layout(config: Config) -> data.StructLayout:
    """What a bank issues: activation address and tap offset of the next events of two entries.

    ``valid``: of both ports. ``odd_first``: the first event is the odd entry's. ``alone``: the second event is that of
    the other entry; else it follows the first.
    """
    place = data.StructLayout({"addr": act_addr_width(config), "tap": row_addr_width(config)})
    return data.StructLayout({"valid": 2, "even": place, "odd": place, "odd_first": 1, "alone": 1})
