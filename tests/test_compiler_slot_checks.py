"""Slot programs: which orders the gateware computes as the specification says, and which it does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reverb_fpga.compiler.slot_checks import check_slots
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import SLOT_FIELDS, pack
from reverb_fpga.hw.errors import InputError

TINY = preset("tiny")
FOUR_CELLS = dataclasses.replace(TINY, z_depth=4)


def slots(*entries: tuple[int, str]) -> np.ndarray:
    """(group, flags): ``f`` first, ``l`` final; no flags at all for a slot that is unused (group -1)."""
    words = []
    for group, flags in entries:
        values = {"group": max(group, 0), "first": "f" in flags, "final": "l" in flags, "valid": group >= 0}
        words += pack(SLOT_FIELDS, {name: int(value) for name, value in values.items()}, 1)
    return np.array(words, dtype=np.uint32)


def test_what_the_compiler_emits_passes() -> None:
    passes = check_slots(slots((0, "f"), (0, "l"), (1, "fl"), (-1, "")), 2, TINY, "here")
    assert [[entry["group"] for entry in entries] for entries in passes] == [[0, 0], [1]]
    assert [entry["slot"] for entry in passes[0]] == [0, 1]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        # group 4 takes the cell of group 0 in the pass that finishes group 0: its repeats would read group 4's z
        ([(0, "fl"), (4, "f"), (1, "fl"), (2, "fl"), (3, "fl"), (4, "l")], "group 4 in the cell of z that group 0"),
        ([(0, "f"), (4, "f"), (0, "l"), (4, "l")], "group 4 in the cell of z that group 0 still holds"),
        ([(0, "fl"), (0, "fl")], "computes group 0 twice"),
        ([(0, "f"), (0, "f")], "starts group 0 twice"),
        ([(0, "l"), (-1, "")], "adds to group 0, which was never started"),
        ([(0, "f"), (-1, "")], "never finishes group 0"),
        ([(1, "fl"), (0, "fl")], "out of order: 1 before 0"),
        ([(-1, ""), (-1, "")], "has no valid entry"),
        ([(40, "fl"), (-1, "")], "has group 40 of 32"),
    ],
)
def test_orders_that_the_gateware_computes_differently(entries: list[tuple[int, str]], message: str) -> None:
    with pytest.raises(InputError, match=f"^here: its slot program .*{message}"):
        check_slots(slots(*entries), 2, FOUR_CELLS, "here")


def test_a_cell_is_free_again_in_the_next_pass() -> None:
    entries = [(0, "fl"), (1, "fl"), (4, "f"), (2, "fl"), (3, "fl"), (4, "l")]
    assert len(check_slots(slots(*entries), 2, FOUR_CELLS, "here")) == 3


def test_reserved_bits_are_named() -> None:
    with pytest.raises(InputError, match="slot entry 1 of the layer: reserved bits"):
        check_slots(slots((0, "fl"), (1, "fl")) | np.array([0, 1 << 31], dtype=np.uint32), 2, TINY, "here")
