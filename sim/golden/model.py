"""The golden model: executes a compiled program on a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

from . import neuron
from .dataflow import check_dataflow
from .gather import Gather
from .schedule import Load, Schedule, Strip, decode
from .skip import SkipMemory
from .trace import DescriptorStats, MemoryImage, count_events, memory_image

__all__ = ["GoldenModel"]

_WORKING_BYTES = 1 << 22
_MAX_BATCH = 256

Codes = NDArray[np.uint8]
Logits = NDArray[np.int64]
Observer = Callable[[Strip, Codes, Codes], None]


class GoldenModel:
    """Executes a program exactly as ``docs/numerics.md`` says, on dense memories at the hardware's addresses.

    Parameters
    ----------
    program : Program
    config : Config
        The configuration the program was compiled for.

    Raises
    ------
    InputError
        If the program is damaged, for another configuration, or makes no sense; one line that names the descriptor.
    """

    def __init__(self, program: Program, config: Config) -> None:
        self.program = program
        self.config = config
        self.schedule: Schedule = decode(program, config)
        _, largest = check_dataflow(self.schedule, config)
        self._gathers = [Gather(strip, config, code) for strip, code in zip(self.schedule.strips, largest, strict=True)]
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
        return np.concatenate([self._execute(part)[1] for part in self._parts(codes)])

    def run_layers(self, codes: Codes) -> tuple[list[Codes], Logits]:
        """Every layer's output codes (N, T, H, W, C), assembled from its strips, and the logits."""
        results = [self._layers(part) for part in self._parts(codes)]
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

    def _parts(self, codes: Codes) -> Iterator[Codes]:
        checked = self._checked(codes)
        for start in range(0, len(checked), self.batch):
            yield checked[start : start + self.batch]

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
        """Run the schedule; the memory (N, act_words, banks) and the logits."""
        config = self.config
        memory = np.zeros((len(codes), config.act_words, config.banks), dtype=np.uint8)
        records = codes.transpose(0, 2, 3, 1, 4).reshape(len(codes), -1, codes.shape[-1])
        gathers = iter(self._gathers)
        membrane = np.zeros((len(codes), self.schedule.n_outputs), dtype=np.int64)
        skip = SkipMemory(len(codes), self.schedule.strips, config)
        for step in self.schedule.steps:
            if until is not None and step.index > until:
                break
            if isinstance(step, Load):
                self._take(step, memory, records)
                continue
            before = memory.copy() if observe else memory
            results = list(self._run_strip(step, next(gathers), memory, skip))
            if not step.fields["store_skip"]:
                membrane = np.concatenate(results)
            if observe:
                observe(step, before, memory)
        return memory, membrane[:, : self.schedule.n_outputs]

    def _take(self, load: Load, memory: Codes, records: Codes) -> None:
        """Store records of the input (N, records of the image, channels)."""
        place, width = load.place, self.config.banks
        part = records[:, load.first : load.first + place.number]
        stored = np.zeros((len(memory), place.number, place.slots * width), dtype=np.uint8)
        stored[:, :, : part.shape[-1]] = part
        words = slice(place.act_base, place.act_base + place.number * place.slots)
        memory[:, words] = stored.reshape(len(memory), -1, width)

    def _run_strip(self, strip: Strip, gather: Gather, memory: Codes, skip: SkipMemory) -> Iterator[Logits]:
        """Compute a strip some images at a time; their membranes, unless it is a leg that leaves them alone."""
        step = max(1, _WORKING_BYTES // gather.bytes_per_image)
        for start in range(0, len(memory), step):
            images = slice(start, start + step)
            part = memory[images]
            if strip.fields["store_skip"]:
                skip.take(strip, images, gather.currents(part))
                continue
            outputs, membrane = neuron.update(strip, self.config, gather.currents(part), skip.added(strip, images))
            if strip.fields["spiking"]:
                self._store(strip, part, outputs)
            yield membrane

    def _target(self, strip: Strip, memory: Codes) -> Codes:
        """The target's ring as records: (N, ring, slots * banks), a view of the memory."""
        target = strip.target
        words = memory[:, target.act_base : target.act_base + target.number * target.slots]
        return words.reshape(len(memory), target.number, target.slots * self.config.banks)

    def _store(self, strip: Strip, memory: Codes, outputs: Codes) -> None:
        """Write codes (N, T, positions, channels) to the strip's records."""
        target = strip.target
        n, _, _, channels = outputs.shape
        room = target.slots * self.config.banks
        if channels > room and outputs[..., room:].any():
            raise InputError(f"{strip.where}: channels beyond {room} fire, their record has {target.slots} words")
        records = np.zeros((n, *strip.outputs.shape, room), dtype=np.uint8)
        records[..., : min(channels, room)] = outputs[..., :room].transpose(0, 2, 1, 3)
        numbers, flat = strip.outputs.ravel(), records.reshape(n, strip.outputs.size, -1)
        ring = self._target(strip, memory)
        for part in _runs(numbers):  # whole stretches of memory: several times as fast as word by word
            ring[:, numbers[part][0] : numbers[part][-1] + 1] = flat[:, part]


def _runs(numbers: NDArray[np.int64]) -> Iterator[slice]:
    """Where consecutive numbers lie in an array."""
    ends = np.flatnonzero(np.diff(numbers) != 1) + 1
    for start, stop in zip([0, *ends], [*ends, len(numbers)], strict=True):
        yield slice(int(start), int(stop))
