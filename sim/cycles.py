"""Cycle model: how long the gateware takes, from the golden model's event counts.

It follows the gateware's own timing (walker, two tables, dispatcher, queue of passes, slots, emitter), pass by
pass instead of cycle by cycle.
"""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import Gate
from reverb_fpga.hw.core import Core, Sequencer
from reverb_fpga.hw.gather import Gather
from reverb_fpga.hw.gather.dispatcher import Dispatcher
from reverb_fpga.hw.gather.sources import SourceQueue
from reverb_fpga.hw.gather.walker import Walker
from reverb_fpga.hw.gather.writes import WriteQueue
from reverb_fpga.hw.lanes.array import array_delay
from reverb_fpga.hw.neuron import Emitter, NeuronPair, NeuronUnit
from reverb_fpga.hw.neuron.emitter import FIFO_DEPTH
from reverb_fpga.hw.neuron.sequence import SlotSequencer

from .golden import DescriptorStats, GoldenModel
from .golden.schedule import Load, Strip

__all__ = ["UNITS", "CycleModel", "StripCycles", "StripSpans", "image_cycles"]

UNITS = ("walker", "array", "neurons", "emitter")
"""What works side by side in the core, in the order in which data pass through it."""

_FIRST_SOURCE = 1 + Walker.delay + SourceQueue.delay  # when it goes to a table
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


class _Writes:
    """Events that wait for the second port of one bank (:class:`~reverb_fpga.hw.gather.writes.WriteQueue`)."""

    def __init__(self) -> None:
        self._arrivals: deque[int] = deque()  # first cycle of each in which it could be stored
        self._level = 0
        self._time = 0
        self.forced = False  # in cycle `_time`

    def push(self, first: int, number: int) -> None:
        """So many events, one per cycle."""
        self._arrivals.extend(range(first, first + number))

    def quiet(self, end: int) -> bool:
        """Nothing waits, or comes before a cycle."""
        return not self._level and (not self._arrivals or self._arrivals[0] >= end)

    def pass_time(self, end: int) -> None:
        """Up to a cycle the second port is not read."""
        while self._time < end:
            if self.quiet(end):
                self._time, self.forced = end, False
            else:
                self.step(spare=True)

    def step(self, spare: bool) -> None:
        """One cycle."""
        while self._arrivals and self._arrivals[0] <= self._time:
            self._arrivals.popleft()
            self._level += 1
        self.forced, self._level = self._level >= WriteQueue.full, self._level - (spare and self._level > 0)
        self._time += 1


class _Entries:
    """Entries one after the other, each as many cycles as its fullest bank has events."""

    def __init__(self, config: Config, spans: list[tuple[int, int]] | None = None) -> None:
        self._spans = spans
        self._to_active = NeuronUnit.entry_delay(config) + Emitter.delay  # from a slot's issue
        self.begin: list[int] = []  # first cycle of each entry
        self.issued: list[int] = []  # when its slot was issued
        self.end = 0
        self.writes = [_Writes() for _ in range(config.banks)]

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
        begin = max(cycle + self._to_active, self.end)
        self.issued.append(cycle)
        self.begin.append(begin)
        self.end = begin + max(1, *events)
        if self._spans is not None:
            self._spans.append((begin, self.end))
        for writes, number in zip(self.writes, events, strict=True):
            writes.push(begin + _ACTIVE_TO_STEAL, number)


class _StripModel:
    """One descriptor and one image. Time 0 is the cycle of ``start``."""

    def __init__(
        self, strip: Strip, stats: DescriptorStats, image: int, config: Config, notes: _Notes | None = None
    ) -> None:
        fields = strip.fields
        self._strip = strip
        self._notes = notes
        self._slots = slots_of(fields, config)
        self._ways = config.neuron_ways
        self._distance = SlotSequencer.distance(config)
        self._gather_delay = Gather.delay + array_delay(config)
        self._tables = _tables(stats, strip, image)
        self._stored: list[list[list[list[int]]]] = stats.stored[image].transpose(1, 0, 2, 3).tolist()
        self._sources = strip.sources.shape[1] * strip.sources.shape[2]
        self._queue = config.captured_cells // self._slots  # passes
        self._passes = fields["n_passes"]
        self._table_passes = fields["row_passes"] or self._passes
        if fields["row_passes"]:
            self._sources //= fields["n_tap_x"] * fields["n_pool_x"]
        self._steps = fields["timesteps"]
        self._positions = fields["rows"] * fields["cols"]
        self._static = bool(fields["static_input"])
        self._spiking = bool(fields["spiking"])
        self._sums = strip.gate is Gate.SUM
        self._repeated = fields["repeat_passes"]
        self._settled = 0  # when what the last final slot stores can be read
        self._program = _slot_program(strip, config)
        self._emitter = _Entries(config, notes["emitter"] if notes else None)
        self._next_slot = SlotSequencer.beginning  # when the next slot could be issued
        self._next_final = 0  # the same for one that is final, or ends a record: an update takes some cycles
        self._begun: deque[int] = deque(maxlen=self._repeated or 1)  # runs over slots that a later one waits for
        self._stalls = {"table": 0, "drain": 0, "emit": 0}

    def run(self) -> StripCycles:
        ended = 0
        drained: list[int] = []
        captures: list[int] = []
        beats = ideal = 0
        begun: list[int] = []
        freed: list[int] = []
        for number, (events, capture) in enumerate(self._tables):
            begun.append(self._begin(number, begun, freed))
            self._note("walker", begun[-1], begun[-1] + self._sources)
            ready = begun[-1] + self._sources - 1 + Dispatcher.filling
            for index in range(self._table_passes):
                first = ended + 1
                if index == 0 and (number == 0 or ready > ended):
                    first = max(ready, ended + 1) + 1
                    self._stalls["table"] += first - ended - 1
                may_end = self._may_end(drained, captures) if capture else 0
                length, least, ended = self._issue(events, first, may_end)
                self._stalls["drain"] += ended - (first + length - 1)
                beats, ideal = beats + length, ideal + least
                self._note("array", first + self._gather_delay, first + self._gather_delay + length)
                if capture:
                    known = ended + self._gather_delay + NeuronUnit.capturing
                    drained.append(self._drain(*divmod(len(captures), self._passes), known))
                    captures.append(ended)
            freed.append(ended)
        done = max(max(self._next_slot, self._next_final) - 1 + _DRAIN, self._emitter.end - 1 + _SETTLE)
        return StripCycles(
            index=self._strip.index,
            cycles=max(done + Core.starting, Sequencer.least),
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

    def _may_end(self, drained: list[int], captures: list[int]) -> int:
        """When a captured pass may end: the queue has room, and the sums of the one before have left slot by slot."""
        room = drained[-self._queue] + _RELEASE if len(drained) >= self._queue else 0
        return max(room, captures[-1] + self._slots if captures else 0)

    def _begin(self, number: int, begun: list[int], freed: list[int]) -> int:
        """When the first source goes to a table: after those of the one before, and once one of the tables is free.

        The walker is ahead of it by then, but for the first one: its queue is longer than its way there.
        """
        if number == 0:
            return _FIRST_SOURCE
        begin, tables = begun[-1] + self._sources, SourceQueue.tables
        return max(begin, freed[number - tables] + 1) if number >= tables else begin

    def _issue(self, events: list[int], first: int, may_end: int) -> tuple[int, int, int]:
        """A pass that begins in cycle ``first``: beats, beats without writes, and its last cycle.

        The last beat waits for ``may_end``. A bank whose second port is taken in it issues what it can, and another
        beat becomes the last.
        """
        writes = self._emitter.writes
        least = max(1, (max(events) + 1) // 2)
        for bank in writes:
            bank.pass_time(first)
        if all(bank.quiet(max(first + least, may_end + 1)) for bank in writes):
            return least, least, max(first + least - 1, may_end)
        left, cycle, beats = list(events), first, 0
        while True:
            pairs = [number >= 2 and not bank.forced for number, bank in zip(left, writes, strict=True)]
            ends = all(number <= 1 + two for number, two in zip(left, pairs, strict=True))
            ends = ends and all(number <= 2 for number in left)
            issues = not ends or cycle >= may_end
            for number, (bank, two) in enumerate(zip(writes, pairs, strict=True)):
                bank.step(spare=not two)
                if issues:
                    left[number] = max(0, left[number] - 1 - two)
            beats += issues
            if issues and ends:
                return beats, least, cycle
            cycle += 1

    def _drain(self, number: int, index: int, captured: int) -> int:
        """Slots of one pass, which the sequencer knows of in a cycle; when the last that reads them is issued."""
        if self._repeated:
            return self._drain_around(number, index, captured)
        position, step = (number, 0) if self._static else divmod(number, self._steps)
        few = index == 0 and self._passes * self._slots < NeuronPair.recurrence
        drained = self._run_slots(position, step, index, captured + 1, bool(step and few))
        for t in range(1, self._steps if self._static else 1):
            self._run_slots(position, t, index, 0, True)
        return drained

    def _drain_around(self, position: int, index: int, captured: int) -> int:
        """With ``repeat_passes``: the further steps of a position come before the last passes of the next."""
        head, last = self._passes - self._repeated, position == self._positions - 1
        drained = self._run_slots(position, 0, index, captured + 1, False)
        if index == head - 1 and position:
            self._repeat(position - 1)
        if index == self._passes - 1 and (last or not head):
            self._repeat(position)
        return drained

    def _repeat(self, position: int) -> None:
        for t in range(1, self._steps):
            for index in range(self._passes - self._repeated, self._passes):
                self._run_slots(position, t, index, 0, True)

    def _run_slots(self, position: int, t: int, index: int, earliest: int, revisits: bool) -> int:
        """Slots of a pass, for one step; when the last is issued."""
        cycle = begin = max(self._next_slot, earliest)
        if revisits and len(self._begun) == self._begun.maxlen:
            cycle = max(cycle, self._begun[0] + self._distance)
        if self._sums and t == index == 0:
            cycle = max(cycle, self._settled)
        issued = cycle
        for slot, (final, group) in enumerate(self._program[index]):
            marker = index == self._passes - 1 and slot == self._slots - 1
            if final or marker:
                cycle = max(cycle, self._next_final)
            if self._spiking and (final or marker):
                cycle = self._held_back(cycle)
                stored = self._stored[position][t]
                self._emitter.push(cycle, stored[group] if final else [0] * len(stored[0]))
            if slot == 0:
                begin = cycle
                if index >= self._passes - self._repeated or not self._repeated:
                    self._begun.append(cycle)
            if final:
                self._settled = cycle + NeuronPair.skip_recurrence
                self._next_final = cycle + self._ways
            issued = cycle
            cycle += 1
        self._note("neurons", begin, max(cycle, self._next_final))
        self._next_slot = cycle
        return issued

    def _held_back(self, cycle: int) -> int:
        """When the emitter has room for a slot's entry. What waits for the distance of two runs waits as long."""
        room = self._emitter.earliest(cycle)
        if room > cycle:
            self._stalls["emit"] += room - cycle
            self._begun = deque((begun + room - cycle for begun in self._begun), self._begun.maxlen)
        return room


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
