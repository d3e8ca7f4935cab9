"""When a slot program is one: every group is opened, completed once and in order, and keeps its cell of z meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import SLOT_FIELDS, unpack
from reverb_fpga.hw.errors import InputError

__all__ = ["SlotEntry", "check_repeats", "check_slots"]

SlotEntry = dict[str, int]


def check_slots(
    words: NDArray[np.uint32], slots: int, config: Config, where: str, row_passes: int = 0
) -> tuple[tuple[SlotEntry, ...], ...]:
    """The valid entries of every pass, each with its ``slot``, after a check of their order.

    A group takes the cell ``group % z_depth`` with its first slot and keeps it to the end of the pass of its final
    one: repeats of a static input read it until then.

    Parameters
    ----------
    words : uint32 array (passes * slots,)
    slots : int
        Of a pass.
    where : str
        For messages.
    row_passes : int
        Of the layer. In row mode, the passes of every column of a pooling window must be the same.

    Raises
    ------
    InputError
        Reserved bits, a group that is beyond the membranes, never begun, never finished, computed twice, out of order,
        or in the cell of another.
    """
    state = _Cells(config, where)
    passes = []
    for start in range(0, len(words), slots):
        entries = _entries(words[start : start + slots], start, where)
        for entry in entries:
            state.take(entry)
        state.end_pass()
        passes.append(entries)
    state.end()
    if row_passes:
        for index in range(row_passes, len(passes)):
            if [_added(entry) for entry in passes[index]] != [_added(entry) for entry in passes[index % row_passes]]:
                raise InputError(f"{where}: its slot program is not that of every column of a pooling window")
    return tuple(passes)


def check_repeats(f: Mapping[str, int], groups: int, first: int, config: Config, where: str) -> None:
    """What must hold of a LAYER descriptor with ``repeat_passes``; nothing without.

    Two positions are under way, so that each has half of the cells of z, and no two groups may share one.

    Parameters
    ----------
    groups : int
        Of the layer.
    first : int
        The first pass that finishes one.

    Raises
    ------
    InputError
        Names what cannot be repeated.
    """
    repeated, cells = f["repeat_passes"], config.z_depth // 2
    if not repeated:
        return
    for ok, what in (
        (f["static_input"] and f["timesteps"] > 1, "but its input is not the same in several steps"),
        (not (f["store_skip"] or f["add_skip"] or f["gate"]), "but is a leg"),
        (repeated <= f["n_passes"], f"of {f['n_passes']}"),
        (groups <= cells, f"but has {groups} groups for {cells} cells of z"),
        (first >= f["n_passes"] - repeated, f"but finishes groups in pass {first} of {f['n_passes']}"),
    ):
        if not ok:
            raise InputError(f"{where}: repeats {repeated} passes, {what}")


def _added(entry: SlotEntry) -> SlotEntry:
    """What an entry adds, and to which group."""
    return {name: value for name, value in entry.items() if name not in ("first", "final")}


def _entries(words: Sequence[int] | NDArray[np.uint32], start: int, where: str) -> tuple[SlotEntry, ...]:
    found = []
    for slot, word in enumerate(words):
        try:
            entry = unpack(SLOT_FIELDS, [int(word)])
        except InputError as error:
            raise InputError(f"{where}: slot entry {start + slot} of the layer: {error}") from None
        if entry["valid"]:
            found.append({**entry, "slot": slot})
    return tuple(found)


class _Cells:
    """Who holds which cell of z."""

    def __init__(self, config: Config, where: str) -> None:
        self._config = config
        self._where = where
        self._holder: dict[int, int] = {}
        self._open: set[int] = set()
        self._finished = 0  # groups finish in ascending order, so a number says which

    def take(self, entry: SlotEntry) -> None:
        """One valid entry."""
        group = entry["group"]
        self._require(group < self._config.layer_groups, f"has group {group} of {self._config.layer_groups}")
        self._require(group >= self._finished, f"computes group {group} twice")
        if entry["first"]:
            self._require(group not in self._open, f"starts group {group} twice")
            holder = self._holder.setdefault(group % self._config.z_depth, group)
            self._require(holder == group, f"starts group {group} in the cell of z that group {holder} still holds")
            self._open.add(group)
        self._require(group in self._open, f"adds to group {group}, which was never started")
        if entry["final"]:
            self._require(group == self._finished, f"finishes groups out of order: {group} before {self._finished}")
            self._open.remove(group)
            self._finished += 1

    def end_pass(self) -> None:
        """Cells of finished groups are free again."""
        self._holder = {cell: group for cell, group in self._holder.items() if group in self._open}

    def end(self) -> None:
        """Nothing may be left open."""
        self._require(not self._open, f"never finishes group {min(self._open, default=0)}")
        self._require(self._finished > 0, "has no valid entry")

    def _require(self, ok: bool, what: str) -> None:
        if not ok:
            raise InputError(f"{self._where}: its slot program {what}")
