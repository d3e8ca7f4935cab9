"""Activation memory over the schedule: records, from when they are written to when they are last read."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import INPUT_TENSOR, Program
from reverb_fpga.hw.config import Config
from reverb_fpga.sim.golden.dataflow import source_steps
from reverb_fpga.sim.golden.schedule import Load, Schedule

__all__ = ["MemoryUse", "memory_over_schedule"]

_IMAGE = "image"


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryUse:
    """Words of each bank that hold what is still to be read, descriptor by descriptor.

    Parameters
    ----------
    words : int array (tensors, descriptors)
    tensors : tuple of str
        The image, and every layer that stores records.
    layers : tuple of int
        Their numbers; -1 of the image.
    constant : int
        Words of the constant (pad) record, always there.
    capacity : int
        Words of a bank.
    """

    tensors: tuple[str, ...]
    layers: tuple[int, ...]
    words: NDArray[np.int64]
    constant: int
    capacity: int

    @property
    def peak(self) -> int:
        """Most words that are in use at a time."""
        return int(self.words.sum(axis=0).max()) + self.constant


class _Versions:
    """Records, each time they are written: whose they are, and from which descriptor to which they are wanted."""

    def __init__(self, count_words: int) -> None:
        self._current = np.full(count_words, -1, dtype=np.int64)
        self.owner: list[int] = []
        self.slots: list[int] = []
        self.born: list[int] = []
        self.last: list[int] = []

    def write(self, counts: NDArray[np.int64], owner: int, slots: int, when: int) -> None:
        first = len(self.owner)
        self._current[counts] = first + np.arange(len(counts))
        for column, value in ((self.owner, owner), (self.slots, slots), (self.born, when), (self.last, when)):
            column += [value] * len(counts)

    def read(self, counts: NDArray[np.int64], when: int) -> None:
        for version in self._current[counts]:
            if version >= 0:
                self.last[version] = when


def memory_over_schedule(program: Program, schedule: Schedule, config: Config) -> MemoryUse:
    """Follow records from their writing to their last reading."""
    layers = (INPUT_TENSOR, *(index for index, layer in enumerate(program.layers) if layer.spiking))
    tensors = tuple(_IMAGE if index == INPUT_TENSOR else program.layers[index].name for index in layers)
    versions = _Versions(config.count_words)
    when = 0
    for step in schedule.steps:
        if isinstance(step, Load):  # just before the strip that comes next
            place = step.place
            versions.write(place.cnt_base + np.arange(place.number), 0, place.slots, when)
            continue
        versions.read(step.source.cnt_base + source_steps(step), when)
        if step.fields["spiking"]:
            records = step.target.cnt_base + step.outputs.ravel()
            versions.write(records, layers.index(step.fields["layer"]), step.target.slots, when)
        when += 1
    words = np.zeros((len(tensors), len(schedule.strips) + 1), dtype=np.int64)
    owner, slots = np.array(versions.owner), np.array(versions.slots)
    np.add.at(words, (owner, np.array(versions.born)), slots)
    np.add.at(words, (owner, np.array(versions.last) + 1), -slots)
    constant = len(program.act) // config.banks
    return MemoryUse(tensors, layers, words.cumsum(axis=1)[:, :-1], constant, config.act_words)
