"""The golden model: executes a compiled program on a batch of images."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import EnvironmentMissing, InputError

from .dataflow import check_dataflow
from .gather import Gather
from .neuron import NeuronUpdate
from .picks import Table, blocks
from .schedule import Load, Schedule, Strip, decode
from .skip import SkipMemory
from .trace import DescriptorStats, MemoryImage, count_events, memory_image
from .workspace import Calls, Workspace

__all__ = ["GoldenModel", "load_kernels"]

_WORKING_BYTES = 1 << 20
_MAX_BATCH = 256
_WORTH = 1 << 33
"""Bytes of working memory gone through by numpy before numba is loaded: some 1.5 s, and loading takes half of that."""
_SHARE = 16
"""Images of a plan: more would take longer to put together than most callers compute, fewer waste products."""

Codes = NDArray[np.uint8]
Logits = NDArray[np.int64]
Observer = Callable[[Strip, Codes, Codes], None]
Result = TypeVar("Result")


class GoldenModel:
    """Executes a program exactly as ``docs/numerics.md`` says, on dense memories at the hardware's addresses.

    Parameters
    ----------
    program : Program
    config : Config
        The configuration the program was compiled for.
    threads : int or None
        Of numpy, in :meth:`run` and :meth:`run_layers`; None: as many as OPENBLAS_NUM_THREADS or OMP_NUM_THREADS say,
        or as there are processors.
    compiled : bool or None
        Whether numba computes what stands before and after the products, to the same numbers; None: in :meth:`run` and
        :meth:`run_layers`, where it is installed, once there has been so much to compute that loading it pays.

    Raises
    ------
    InputError
        If the program is damaged, for another configuration, or makes no sense; one line that names the descriptor.
    EnvironmentMissing
        Without numba, if it has to be.
    """

    def __init__(
        self, program: Program, config: Config, threads: int | None = None, compiled: bool | None = None
    ) -> None:
        self.program = program
        self.config = config
        self.schedule: Schedule = decode(program, config)
        _, largest = check_dataflow(self.schedule, config)
        self._units = [_Unit(strip, config, code) for strip, code in zip(self.schedule.strips, largest, strict=True)]
        self._undecided, self._bytes = compiled is None, 0
        self._kernels = load_kernels() if compiled else None
        if compiled and self._kernels is None:
            raise EnvironmentMissing("numba is not installed: pip install 'reverb-fpga[fast]'")
        self._threads = threads or _usual_threads()
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        pixels = program.input.height * program.input.width
        self.input_steps, rest = divmod(self.schedule.input_records, pixels)
        if rest or program.input.channels != self.schedule.input_channels:
            raise InputError(
                f"the program takes {self.schedule.input_records} records of {self.schedule.input_channels} channels, "
                f"its description {program.input.height} x {program.input.width} x {program.input.channels}"
            )

    @property
    def batch(self) -> int:
        """Images that are computed side by side, so that memory stays bounded."""
        return _MAX_BATCH

    def run(self, codes: Codes) -> Logits:
        """Logits (N, n_outputs) of input codes (N, T_in, H, W, C), or (N, H, W, C) where T_in is 1.

        Raises
        ------
        InputError
            If the codes have another shape, or a value does not fit its width (names the layer).
        """
        return np.concatenate(self._on_parts(lambda part: self._execute(part)[1], codes))

    def run_layers(self, codes: Codes) -> tuple[list[Codes], Logits]:
        """Every layer's output codes (N, T, H, W, C), assembled from its strips, and the logits.

        Channels are in the order of the records; :meth:`~reverb_fpga.compiler.program.LayerInfo.of_network` brings them
        in that of the network.
        """
        results = self._on_parts(self._layers, codes)
        layers = [np.concatenate(parts) for parts in zip(*(layers for layers, _ in results), strict=True)]
        return layers, np.concatenate([logits for _, logits in results])

    def statistics(self, codes: Codes) -> list[DescriptorStats]:
        """Events per descriptor, position and bank of one batch (at most :attr:`batch` images)."""
        found: list[DescriptorStats] = []

        def observe(strip: Strip, before: Codes, after: Codes) -> None:
            found.append(count_events(strip, before, after, self.config))

        self._execute(self._checked(codes), observe)
        return found

    def memory_image(self, codes: Codes, descriptor: int) -> MemoryImage:
        """The memories after ``descriptor`` has run, of one batch (at most :attr:`batch` images)."""
        memory, _ = self._execute(self._checked(codes), until=descriptor)
        state, _ = check_dataflow(self.schedule, self.config, until=descriptor)
        return memory_image(memory, state)

    def input_bytes(self, codes: Codes) -> NDArray[np.uint8]:
        """What the host sends per image: uint8 array (N, records * channels), record-major."""
        checked = self._checked(codes)
        return checked.transpose(0, 2, 3, 1, 4).reshape(len(checked), -1)

    def _checked(self, codes: Codes) -> Codes:
        image = self.program.input
        shape = (self.input_steps, image.height, image.width, image.channels)
        if codes.ndim == 4 and self.input_steps == 1:
            codes = codes[:, None]
        if codes.shape[1:] != shape or codes.dtype != np.uint8 or not len(codes):
            raise InputError(f"input codes are {codes.dtype} {codes.shape}, the program takes uint8 (N, *{shape})")
        return codes

    def _on_parts(self, function: Callable[[Codes], Result], codes: Codes) -> list[Result]:
        """Batches side by side: numpy computes without Python's lock, and each batch with one thread of its BLAS."""
        checked = self._checked(codes)
        self._consider_kernels(len(checked))
        parts = [checked[start : start + _SHARE] for start in range(0, len(checked), _SHARE)]
        if self._threads == 1 or len(parts) == 1:
            return [function(part) for part in parts]
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(function, parts))

    def _consider_kernels(self, images: int) -> None:
        """Compiled kernels from here on, if these images are enough work, together with those before."""
        if not self._undecided:
            return
        self._bytes += images * sum(unit.gather.bytes_per_image for unit in self._units)
        if self._bytes >= _WORTH:
            self._undecided, self._kernels = False, load_kernels()
            with self._lock:
                self._plans = []

    def run_strips(self, codes: Codes) -> tuple[dict[int, Codes], Logits]:
        """What every descriptor stores, (N, positions, T, slots * banks) by its index, and the logits.

        For one batch (at most :attr:`batch` images). The output layer, and a leg that goes to the skip memory, store no
        record: their arrays have no channels.
        """
        stored: dict[int, Codes] = {}

        def observe(strip: Strip, _before: Codes, after: Codes) -> None:
            stored[strip.index] = self._target(strip, after)[:, strip.outputs]

        _, logits = self._execute(self._checked(codes), observe)
        return stored, logits

    def _layers(self, codes: Codes) -> tuple[list[Codes], Logits]:
        stored, logits = self.run_strips(codes)
        layers = []
        for info in self.program.layers:
            channels, height, width = info.shape
            tensor = np.zeros((len(codes), info.timesteps, height, width, channels), dtype=np.uint8)
            for descriptor, first, rows in info.strips if info.spiking else ():
                if descriptor not in stored:
                    raise InputError(f"layer {info.name}: descriptor {descriptor} is no strip")
                strip = stored[descriptor].reshape(len(codes), rows, width, info.timesteps, -1)
                tensor[:, :, first : first + rows] = strip.transpose(0, 3, 1, 2, 4)[..., :channels]
            layers.append(tensor)
        return layers, logits

    def _execute(self, codes: Codes, observe: Observer | None = None, until: int | None = None) -> tuple[Codes, Logits]:
        """Run the schedule; the memory (N, act_words, banks), which the next batch overwrites, and the logits."""
        plan = self._plan(len(codes))
        records = codes.transpose(0, 2, 3, 1, 4).reshape(len(codes), -1, codes.shape[-1])
        for step in self.schedule.steps:
            if until is not None and step.index > until:
                break
            if isinstance(step, Load):
                self._take(step, plan.memory, records)
                continue
            before = plan.memory.copy() if observe else plan.memory
            plan.calls[step.index].run()
            if observe:
                observe(step, before, plan.memory)
        logits = plan.membranes.astype(np.int64)
        with self._lock:
            self._plans = [*self._plans, plan][-self._threads - 1 :]  # and one of what is left over
        return plan.memory, logits

    def _take(self, load: Load, memory: Codes, records: Codes) -> None:
        """Store records of the input (N, records of the image, channels)."""
        place, width = load.place, self.config.banks
        part = records[:, load.first : load.first + place.number]
        stored = np.zeros((len(memory), place.number, place.slots * width), dtype=np.uint8)
        stored[:, :, : part.shape[-1]] = part
        words = slice(place.act_base, place.act_base + place.number * place.slots)
        memory[:, words] = stored.reshape(len(memory), -1, width)

    def _plan(self, images: int) -> _Plan:
        """One that nobody uses."""
        with self._lock:
            for index, plan in enumerate(self._plans):
                if len(plan.memory) == images:
                    return self._plans.pop(index)
        return self._new_plan(images)

    def _new_plan(self, images: int) -> _Plan:
        config, strips = self.config, self.schedule.strips
        memory = np.zeros((images, config.act_words, config.banks), dtype=np.uint8)
        membranes = np.zeros((images, self.schedule.n_outputs), dtype=np.float64)
        plan = _Plan(memory, membranes, SkipMemory(images, strips, config), Workspace(), {})
        for unit in self._units:
            plan.calls[unit.strip.index] = calls = Calls()
            step = max(1, _WORKING_BYTES // unit.gather.bytes_per_image)
            for start in range(0, images, step):
                self._compute(calls, unit, plan, slice(start, start + step))
        return plan

    def _compute(self, calls: Calls, unit: _Unit, plan: _Plan, images: slice) -> None:
        """A strip for some images; the last one leaves the membranes that are read."""
        strip, neurons, space = unit.strip, unit.neurons, plan.space
        part = plan.memory[images]
        z = unit.gather.currents(calls, part, space, self._kernels)
        if strip.fields["store_skip"]:
            calls.add(plan.skip.take, strip, images, z)
            return
        added = None
        if strip.fields["add_skip"]:
            shape = (len(part), strip.fields["timesteps"], *z.shape[2:])
            added = space.array("skip", shape, np.int32)
            calls.add(plan.skip.load, strip, images, added)
        if strip.fields["spiking"]:
            self._store(calls, unit, part, neurons.update(calls, z, space, added, self._kernels))
        if strip is self.schedule.strips[-1]:
            membranes = neurons.membranes(calls, z, space, added)
            calls.add(np.copyto, plan.membranes[images], membranes[:, : plan.membranes.shape[1]])

    def _target(self, strip: Strip, memory: Codes) -> Codes:
        """The target's ring as records: (N, ring, slots * banks), a view of the memory."""
        target = strip.target
        words = memory[:, target.act_base : target.act_base + target.number * target.slots]
        return words.reshape(len(memory), target.number, target.slots * self.config.banks)

    def _store(self, calls: Calls, unit: _Unit, memory: Codes, outputs: Codes) -> None:
        """Write codes (N, T, positions, channels) to the strip's records."""
        strip, channels = unit.strip, outputs.shape[3]
        room = strip.target.slots * self.config.banks
        if channels > room:
            calls.add(_check_room, strip, outputs[..., room:], room)
        ring = Table(self._target(strip, memory)[:, None])
        for step, parts in enumerate(unit.outputs):
            computed = Table(outputs[:, step : step + 1])
            for block in parts:
                records, codes = block.rows(ring), block.places(computed)
                calls.add(np.copyto, records[..., :channels], codes[..., :room])
                if channels < room:
                    calls.add(np.copyto, records[..., channels:], 0)


def load_kernels() -> ModuleType | None:
    """:mod:`.compiled`, or None without numba, or with one that does not run here."""
    try:
        from . import compiled
    except (ImportError, OSError):
        return None
    return compiled


def _usual_threads() -> int:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if (value := os.environ.get(name, "")).isdecimal() and int(value):
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_room(strip: Strip, beyond: Codes, room: int) -> None:
    if beyond.any():
        raise InputError(f"{strip.where}: channels beyond {room} fire, their record has {strip.target.slots} words")


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """Calls that execute the program on a number of images, by descriptor, and the memories on which they do."""

    memory: Codes
    membranes: NDArray[np.float64]
    skip: SkipMemory
    space: Workspace
    calls: dict[int, Calls]


class _Unit:
    """What executes a strip, made once."""

    def __init__(self, strip: Strip, config: Config, max_code: int) -> None:
        self.strip = strip
        self.gather = Gather(strip, config, max_code)
        self.neurons = NeuronUpdate(strip, config, self.gather.reach)
        self.outputs = [blocks(records) for records in strip.outputs.T]
