"""A target that is the golden model itself, with hardware's manners."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import NO_HALT, Region
from reverb_fpga.sim.golden import GoldenModel

__all__ = ["ModelTarget", "Spoil"]

Spoil = Callable[[Region, int, int], int]


class ModelTarget:
    """Hardware's manners over the golden model's memory images; ``spoil`` may change what is read."""

    def __init__(self, config: Config, spoil: Spoil | None = None) -> None:
        self._config = config
        self._spoil = spoil
        self._halt = NO_HALT

    def load(self, program: Program) -> None:
        self._model = GoldenModel(program, self._config)

    def start(self, halt_after: int = NO_HALT) -> None:
        self._halt = halt_after

    def resume(self, halt_after: int = NO_HALT) -> None:
        self._halt = halt_after

    def feed(self, data: bytes) -> None:
        image = self._model.program.input
        shape = (image.height, image.width, self._model.input_steps, image.channels)
        records = np.frombuffer(data, dtype=np.uint8).reshape(shape)
        self._codes = records.transpose(2, 0, 1, 3)[None]

    def wait(self) -> None:
        self._image = self._model.memory_image(self._codes, self._halt)

    def read(self, region: Region, offset: int, count: int) -> Sequence[int]:
        if region is Region.MEMBRANE:
            words = self._model.run(self._codes)[0]
        else:
            words = (self._image.counts if region is Region.COUNT else self._image.events)[0].ravel()
        found = [int(word) & 0xFFFFFFFF for word in words[offset : offset + count]]
        if self._spoil is None:
            return found
        return [self._spoil(region, offset + number, word) for number, word in enumerate(found)]
