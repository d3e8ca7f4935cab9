"""Cycle model: how long the gateware takes, from the golden model's event counts.

It follows the gateware's own timing (walker, two tables, dispatcher, queue of passes, slots, emitter), pass by
pass instead of cycle by cycle.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import Gate
from reverb_fpga.hw.core import Sequencer
from reverb_fpga.hw.gather import Gather
from reverb_fpga.hw.gather.dispatcher import Dispatcher
from reverb_fpga.hw.gather.walker import Walker
from reverb_fpga.hw.lanes.array import array_delay
from reverb_fpga.hw.neuron import Emitter, NeuronPair, NeuronUnit
from reverb_fpga.hw.neuron.emitter import FIFO_DEPTH
from reverb_fpga.hw.neuron.sequence import SlotSequencer
from reverb_fpga.hw.signatures import CAPTURED_PASSES

from .golden import DescriptorStats, GoldenModel
from .golden.schedule import Load, Strip

__all__ = ["UNITS", "CycleModel", "StripCycles", "StripSpans", "image_cycles"]

UNITS = ("walker", "array", "neurons", "emitter")
"""What works side by side in the core, in the order in which data pass through it."""

_WALK_TO_READY = Walker.delay + Dispatcher.filling  # from a table's last source to its ready flag
_OP_TO_ACTIVE = NeuronUnit.entry_delay + Emitter.delay  # from a slot's issue to its entry in the emitter
_ACTIVE_TO_STEAL = Emitter.write_delay + Gather.steal_delay  # from an event in the emitter to the port that it takes
_RELEASE = SlotSequencer.delay + Dispatcher.crediting  # from the issue of a pass's last slot to the next credit
_ROOM = FIFO_DEPTH - Emitter.margin
_SETTLE = Emitter.settling + NeuronUnit.ending  # from the last event in the emitter to `done`
_DRAIN = NeuronUnit.drain + NeuronUnit.ending  # from the last slot to `done`


@dataclasses.dataclass(frozen=True)
class StripCycles:
    """Prediction for one descriptor; names as the hardware's counters.

    Parameters
    ----------
    index : int
        Of the descriptor.
    cycles, beats, events, passes, stall_table, stall_drain, stall_emit : int
    stolen : int
        Beats that writes cost.
    """

    index: int
    cycles: int
    beats: int
    events: int
    passes: int
    stall_table: int
    stall_drain: int
    stall_emit: int
    stolen: int


@dataclasses.dataclass(frozen=True, eq=False)
class StripSpans:
    """When the units of the core work in one descriptor.

    Parameters
    ----------
    index : int
        Of the descriptor.
    start, cycles : int
        Its first cycle in the image, and how many it takes.
    spans : dict of str to int array (spans, 2)
        By unit of :data:`UNITS`: first cycle, and the one after the last, from the image's first on.
    """

    index: int
    start: int
    cycles: int
    spans: dict[str, NDArray[np.int64]]


class CycleModel:
    """Predicts cycles per image.

    Parameters
    ----------
    program : Program
    config : Config
    """

    def __init__(self, program: Program, config: Config) -> None:
        self.golden = GoldenModel(program, config)
        self._config = config

    def strips(self, codes: NDArray[np.uint8]) -> list[list[StripCycles]]:
        """One list of descriptors per image, input codes (N, T_in, H, W, C)."""
        found: list[list[StripCycles]] = []
        for start in range(0, len(codes), self.golden.batch):
            part = codes[start : start + self.golden.batch]
            stats = self.golden.statistics(part)
            found += [
                [
                    _StripModel(strip, stat, image, self._config).run()
                    for strip, stat in zip(self.golden.schedule.strips, stats, strict=True)
                ]
                for image in range(len(part))
            ]
        return found

    def spans(self, codes: NDArray[np.uint8]) -> list[StripSpans]:
        """When which unit works, of one image: codes (1, T_in, H, W, C)."""
        found, start = [], Sequencer.ending // 2
        statistics = iter(self.golden.statistics(codes))
        for strip in self.golden.schedule.steps[1:]:
            if isinstance(strip, Load):
                start += Sequencer.loading
                continue
            stats = next(statistics)
            notes: _Notes = {unit: [] for unit in UNITS}
            cycles = _StripModel(strip, stats, 0, self._config, notes).run().cycles
            spans = {unit: np.array(pairs, dtype=np.int64).reshape(-1, 2) + start for unit, pairs in notes.items()}
            found.append(StripSpans(strip.index, start, cycles, spans))
            start += cycles + Sequencer.between
        return found

    def cycles(self, codes: NDArray[np.uint8]) -> list[int]:
        """Cycles per image, as register CYCLES counts them."""
        loads = len(self.golden.schedule.loads)
        return [image_cycles(strips, loads) for strips in self.strips(codes)]


def image_cycles(strips: list[StripCycles], loads: int = 1) -> int:
    """Cycles of an image from those of its strips; ``loads``: how many descriptors take rows of the input."""
    layers = sum(strip.cycles + Sequencer.between for strip in strips)
    return Sequencer.ending + layers + (loads - 1) * Sequencer.loading


_Notes = dict[str, list[tuple[int, int]]]
"""Spans by unit, in cycles of the descriptor."""


class _Entries:
    """Entries one after the other, each as many cycles as its fullest bank has events."""

    def __init__(self, banks: int, spans: list[tuple[int, int]] | None = None) -> None:
        self._spans = spans
        self.begin: list[int] = []  # first cycle of each entry
        self.issued: list[int] = []  # when its slot was issued
        self.end = 0
        self._steals = [bytearray() for _ in range(banks)]

    def earliest(self, cycle: int) -> int:
        """First cycle from ``cycle`` on in which there is room."""
        while True:
            number = len(self.issued)
            while number and self.issued[number - 1] > cycle - Emitter.margin:
                number -= 1
            blocking = number - _ROOM
            if blocking < 0 or self.begin[blocking] + 1 <= cycle:
                return cycle
            cycle = self.begin[blocking] + 1

    def push(self, cycle: int, events: list[int]) -> None:
        """An entry whose slot is issued in ``cycle``, with its events per bank."""
        begin = max(cycle + _OP_TO_ACTIVE, self.end)
        self.issued.append(cycle)
        self.begin.append(begin)
        self.end = begin + max(1, *events)
        if self._spans is not None:
            self._spans.append((begin, self.end))
        for flags, number in zip(self._steals, events, strict=True):
            if number:
                first = begin + _ACTIVE_TO_STEAL
                if len(flags) < first + number:
                    flags.extend(bytes(2 * (first + number)))
                flags[first : first + number] = b"\1" * number

    def steals(self, bank: int, first: int, cycles: int) -> int:
        """Cycles among ``first .. first+cycles-1`` in which a bank's second port is taken."""
        return self._steals[bank].count(1, first, first + cycles)


class _StripModel:
    """One descriptor and one image. Time 0 is the cycle of ``start``."""

    def __init__(
        self, strip: Strip, stats: DescriptorStats, image: int, config: Config, notes: _Notes | None = None
    ) -> None:
        fields = strip.fields
        self._strip = strip
        self._notes = notes
        self._slots = slots_of(fields, config)
        self._gather_delay = Gather.delay + array_delay(config)
        self._tables = _tables(stats, strip, image)
        self._stored: list[list[list[list[int]]]] = stats.stored[image].transpose(1, 0, 2, 3).tolist()
        self._sources = strip.sources.shape[1] * strip.sources.shape[2]
        self._passes = fields["n_passes"]
        self._table_passes = fields["row_passes"] or self._passes
        if fields["row_passes"]:
            self._sources //= fields["n_tap_x"] * fields["n_pool_x"]
        self._steps = fields["timesteps"]
        self._static = bool(fields["static_input"])
        self._spiking = bool(fields["spiking"])
        self._sums = strip.gate is Gate.SUM
        self._settled = 0  # when what the last final slot stores can be read
        self._program = _slot_program(strip, config)
        self._emitter = _Entries(config.banks, notes["emitter"] if notes else None)
        self._next_slot = 3  # when the next slot could be issued
        self._lead = -NeuronPair.recurrence
        self._stalls = {"table": 0, "drain": 0, "emit": 0}

    def run(self) -> StripCycles:
        ended = 0
        drained: list[int] = []
        beats = ideal = 0
        begun: list[int] = []
        freed: list[int] = []
        captured = 0
        for number, (events, capture) in enumerate(self._tables):
            begun.append(self._begin(number, begun, freed))
            self._note("walker", begun[-1], begun[-1] + self._sources)
            ready = begun[-1] + self._sources - 1 + _WALK_TO_READY
            for index in range(self._table_passes):
                first = ended + 1
                if index == 0 and (number == 0 or ready > ended):
                    first = max(ready, ended + 1) + 1
                    self._stalls["table"] += first - ended - 1
                length, least = self._length(events, first)
                last = first + length - 1
                waits = capture and len(drained) >= CAPTURED_PASSES
                ended = max(last, drained[-CAPTURED_PASSES] + _RELEASE) if waits else last
                length, ended = self._split(events, first, length, ended)
                self._stalls["drain"] += ended - (first + length - 1)
                beats, ideal = beats + length, ideal + least
                self._note("array", first + self._gather_delay, first + self._gather_delay + length)
                if capture:
                    drained.append(self._drain(*divmod(captured, self._passes), ended + self._gather_delay))
                    captured += 1
            freed.append(ended)
        done = max(self._next_slot - 1 + _DRAIN, self._emitter.end - 1 + _SETTLE)
        return StripCycles(
            index=self._strip.index,
            cycles=max(done, Sequencer.least),
            beats=beats,
            events=self._table_passes * sum(sum(events) for events, _ in self._tables),
            passes=self._table_passes * len(self._tables),
            stall_table=self._stalls["table"],
            stall_drain=self._stalls["drain"],
            stall_emit=self._stalls["emit"],
            stolen=beats - ideal,
        )

    def _note(self, unit: str, first: int, end: int) -> None:
        if self._notes is not None:
            self._notes[unit].append((first, end))

    def _begin(self, number: int, begun: list[int], freed: list[int]) -> int:
        """When the walker begins a table: after the one before, and once one of the two is free."""
        if number == 0:
            return 1
        begin = begun[-1] + self._sources
        return max(begin, freed[number - 2] + 1) if number >= 2 else begin

    def _length(self, events: list[int], first: int) -> tuple[int, int]:
        """Beats of a pass that begins in cycle ``first``, and what they were without writes."""
        longest = least = 1
        for bank, number in enumerate(events):
            cycles = wanted = (number + 1) // 2
            least = max(least, cycles)
            while True:
                wanted = (number + self._emitter.steals(bank, first, cycles) + 1) // 2
                if wanted <= cycles:
                    break
                cycles = wanted
            longest = max(longest, cycles)
        return longest, least

    def _split(self, events: list[int], first: int, length: int, ended: int) -> tuple[int, int]:
        """Beats and end of a pass whose last beat waits for credit until ``ended``.

        A write that takes a port from the waiting beat splits it in two; in cycle ``ended`` it also delays the end.
        """
        last = first + length - 1
        if ended == last:
            return length, ended
        split = False
        for bank, number in enumerate(events):
            left = number - 2 * (length - 1) + self._emitter.steals(bank, first, length - 1)
            if left == 2 and self._emitter.steals(bank, last + 1, ended - last - 1):
                return length + 1, ended
            split = split or (left == 2 and self._emitter.steals(bank, ended, 1) > 0)
        return length + split, ended + split

    def _drain(self, number: int, index: int, captured: int) -> int:
        """Slots of one pass, whose P and S are captured in a cycle; when the last that reads them is issued."""
        position, step = (number, 0) if self._static else divmod(number, self._steps)
        drained = 0
        for repeat in range(self._steps if self._static else 1):
            t = repeat if self._static else step
            cycle = self._next_slot
            if t and (self._static or (index == 0 and self._passes * self._slots < NeuronPair.recurrence)):
                cycle = max(cycle, self._lead + NeuronPair.recurrence)
            if repeat == 0:
                cycle = max(cycle, captured + 1)
            if self._sums and t == index == 0:
                cycle = max(cycle, self._settled)
            for slot, (final, group) in enumerate(self._program[index]):
                marker = index == self._passes - 1 and slot == self._slots - 1
                if self._spiking and (final or marker):
                    room = self._emitter.earliest(cycle)
                    self._stalls["emit"] += room - cycle
                    cycle = room
                    stored = self._stored[position][t]
                    self._emitter.push(cycle, stored[group] if final else [0] * len(stored[0]))
                if slot == 0:
                    self._lead = cycle
                if final:
                    self._settled = cycle + NeuronPair.skip_recurrence
                issued = cycle
                cycle += 2 if final else 1
            self._note("neurons", self._lead, cycle)
            self._next_slot = cycle
            if repeat == 0:
                drained = issued
        return drained


def _slot_program(strip: Strip, config: Config) -> list[list[tuple[bool, int]]]:
    """(final, group) of every slot of every pass."""
    empty = (False, 0)
    program = [[empty] * slots_of(strip.fields, config) for _ in range(strip.fields["n_passes"])]
    for entry in strip.weights.entries:
        program[entry.index][entry.slot] = (entry.final, entry.group)
    return program


def _tables(stats: DescriptorStats, strip: Strip, image: int) -> list[tuple[list[int], bool]]:
    """Events per bank of every table in order, and whether its passes are captured."""
    fields = strip.fields
    if stats.columns is None:  # position, then step
        gathered = stats.gathered[image].transpose(1, 0, 2)
        return [(events, True) for events in gathered.reshape(-1, gathered.shape[-1]).tolist()]
    columns = stats.columns[image]  # step, row, column, bank
    steps, rows, number, banks = columns.shape
    pooled = fields["n_pool_x"]
    by_window = columns.reshape(steps, rows, number // pooled, pooled, banks).transpose(1, 2, 0, 3, 4)
    captures = np.arange(number) >= number - fields["cols"] * pooled
    flags = np.broadcast_to(captures.reshape(-1, 1, pooled), (rows, number // pooled, steps, pooled))
    return list(zip(by_window.reshape(-1, banks).tolist(), flags.ravel().tolist(), strict=True))
