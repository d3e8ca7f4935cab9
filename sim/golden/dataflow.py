"""Proof, once per program, that every record and every word of skip memory read is the one that was meant.

The golden model keeps dense codes and no counts. That equals the hardware exactly as long as the count word and the
activation words of a record always belong together, which is what this checks: the allocation of rings and strips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.leg_checks import LegChecks
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

from .schedule import PAD, Load, Records, Schedule, Strip

__all__ = ["Dataflow", "check_dataflow", "source_steps"]

_FREE = -1


class Dataflow:
    """Which record owns each count word and each activation word.

    Attributes
    ----------
    record_act : int array (count_words,)
        First activation word of the record whose count lies here; -1 if none was written.
    record_slots : int array (count_words,)
    word_owner : int array (act_words,)
        Count address of the record that wrote a word last; -1 if none.
    max_code : int array (count_words,)
        Largest code the record can hold.
    """

    def __init__(self, config: Config) -> None:
        self.record_act = np.full(config.count_words, _FREE, dtype=np.int64)
        self.record_slots = np.zeros(config.count_words, dtype=np.int64)
        self.word_owner = np.full(config.act_words, _FREE, dtype=np.int64)
        self.max_code = np.zeros(config.count_words, dtype=np.int64)

    def write(self, tensor: Records, records: NDArray[np.int64], max_code: int) -> None:
        """Records of a tensor are written."""
        counts = tensor.cnt_base + records
        words = tensor.act_base + records * tensor.slots
        self.record_act[counts] = words
        self.record_slots[counts] = tensor.slots
        self.max_code[counts] = max_code
        self.word_owner[words[:, None] + np.arange(tensor.slots)] = counts[:, None]

    def read(self, tensor: Records, records: NDArray[np.int64]) -> int:
        """Records of a tensor are read; the largest code they can hold. Raises InputError if one is not intact."""
        counts = tensor.cnt_base + records
        words = tensor.act_base + records * tensor.slots
        owners = self.word_owner[words[:, None] + np.arange(tensor.slots)]
        intact = (self.record_act[counts] == words) & (self.record_slots[counts] == tensor.slots)
        intact &= (owners == counts[:, None]).all(axis=1)
        if not intact.all():
            raise InputError(f"reads record {int(records[~intact][0])}, which was never written or is overwritten")
        return int(self.max_code[counts].max(initial=0))

    def live(self) -> NDArray[np.int64]:
        """Count addresses of the records that are intact."""
        counts = np.flatnonzero(self.record_act != _FREE)
        intact = [
            (self.word_owner[self.record_act[count] : self.record_act[count] + self.record_slots[count]] == count).all()
            for count in counts
        ]
        return counts[np.array(intact, dtype=bool)]


def source_steps(strip: Strip) -> NDArray[np.int64]:
    """Distinct records of the tensor that a strip reads, all steps."""
    first = np.unique(strip.sources)
    first = first[first >= 0]
    return (first[:, None] + np.arange(strip.steps_in)).ravel()


def check_dataflow(schedule: Schedule, config: Config, until: int | None = None) -> tuple[Dataflow, list[int]]:
    """Follow the schedule through descriptor ``until`` (None: all of it).

    Returns the final state and the largest source code of each strip. Raises :class:`InputError` if a record that is
    read is not intact, or a strip overwrites what it reads.
    """
    state = Dataflow(config)
    _check_legs(schedule.strips, config)
    for strip in schedule.strips:
        if strip.pad is not None:
            state.write(_pad_records(strip), np.zeros(1, dtype=np.int64), int(strip.pad.max()))
    largest = []
    for step in schedule.steps:
        if until is not None and step.index > until:
            break
        if isinstance(step, Load):
            state.write(step.place, np.arange(step.place.number), 255)
        else:
            largest.append(_step(state, step))
    return state, largest


def _check_legs(strips: Sequence[Strip], config: Config) -> None:
    legs = LegChecks(config)
    for strip in strips:
        legs.take(strip.fields, strip.groups(config), strip.where)
    legs.end("the schedule")


def _step(state: Dataflow, strip: Strip) -> int:
    reads = source_steps(strip)
    try:
        largest = state.read(strip.source, reads)
        if strip.pad is not None and (strip.sources == PAD).any():
            largest = max(largest, state.read(_pad_records(strip), np.zeros(1, dtype=np.int64)))
        if strip.fields["spiking"]:  # the output layer stores nothing
            state.write(strip.target, strip.outputs.ravel(), strip.max_code)
        state.read(strip.source, reads)
    except InputError as error:
        raise InputError(f"{strip.where}: {error}") from None
    return largest


def _pad_records(strip: Strip) -> Records:
    fields = strip.fields
    return Records(fields["pad_act_base"], fields["pad_cnt_base"], fields["src_slots"], 1)
