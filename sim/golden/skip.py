"""The skip memory: what the legs of a layer leave for each other (``docs/numerics.md`` section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import FACTOR_BITS, GATE_ONE, GATE_SHIFT, GATES, SIGMOID, Gate

from . import neuron
from .schedule import Strip

__all__ = ["SkipMemory"]

_GATES = np.array(GATES)
"""Of -128..127."""


class SkipMemory:
    """Content for some images, at the hardware's addresses: (N, words, neuron_lanes).

    Parameters
    ----------
    images : int
    strips : sequence of Strip
        What will be executed; only as many words exist as they use.
    config : Config
    """

    def __init__(self, images: int, strips: Sequence[Strip], config: Config) -> None:
        words = max(
            (int(used.max()) + 1 for strip in strips for used in (strip.skip, strip.gates) if used.size), default=0
        )
        self._config = config
        self._words = np.zeros((images, words, config.neuron_lanes), dtype=np.int32)

    def load(self, strip: Strip, images: slice, out: NDArray[np.int32]) -> None:
        """What the strip adds to its current, into (N, T, positions, channels)."""
        out[...] = self._load(images, strip.skip)

    def take(self, strip: Strip, images: slice, z: NDArray[Any]) -> None:
        """Execute a leg that ends here, from its currents z (N, T_in, positions, channels)."""
        config, gate = self._config, strip.gate
        if gate is Gate.SUM:
            return self._store(images, strip.gates, self._sums(strip, z))
        if gate is Gate.SIGMOID:
            sums = self._load(images, strip.gates[None])
            return self._store(images, strip.gates, _gates(strip, neuron.current(strip, config, z, sums)))
        added = self._load(images, strip.skip) if strip.fields["add_skip"] else None
        y = neuron.current(strip, config, z, added)
        if gate is Gate.APPLY:
            y = (y.astype(np.int64) * self._load(images, strip.gates[None])) // GATE_ONE
        return self._store(images, strip.skip, self._saturated(y))

    def _sums(self, strip: Strip, z: NDArray[Any]) -> NDArray[Any]:
        """Sums over the positions (N, T_in, 1, C)."""
        config = self._config
        running = np.cumsum(neuron.summands(strip, config, z), axis=2)
        if np.abs(running).max() < 1 << (config.skip_width - 1):  # nothing saturates on the way
            return running[:, :, -1:]
        total = self._saturated(neuron.current(strip, config, z[:, :, :1]))
        for position in range(1, z.shape[2]):
            here = z[:, :, position : position + 1]
            total = self._saturated(neuron.current(strip, config, here, total.astype(np.int32)))
        return total

    def _saturated(self, values: NDArray[Any]) -> NDArray[Any]:
        limit = 1 << (self._config.skip_width - 1)
        return np.clip(values, -limit, limit - 1)

    def _load(self, images: slice, words: NDArray[np.int64]) -> NDArray[np.int32]:
        """Words (positions, T, groups) as (N, T, positions, channels)."""
        content = self._words[images][:, words]
        return content.reshape(*content.shape[:3], -1).transpose(0, 2, 1, 3)

    def _store(self, images: slice, words: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Values (N, T or 1, positions, channels) at words (positions, T, groups), or (T, groups)."""
        words = words.reshape(-1, *words.shape[-2:])
        positions, steps, groups = words.shape
        shape = (len(values), steps, positions, values.shape[3])
        by_word = (
            np.broadcast_to(values, shape).transpose(0, 2, 1, 3).reshape(len(values), positions, steps, groups, -1)
        )
        self._words[images, words] = by_word


def _gates(strip: Strip, y: NDArray[Any]) -> NDArray[np.int64]:
    """Gates of sums y (N, T, 1, C)."""
    half = 1 << (FACTOR_BITS - 1)
    factor = ((strip.threshold + half) & (2 * half - 1)) - half
    x = (y.astype(np.int64) * factor) >> GATE_SHIFT
    return _GATES[np.clip(x, -len(SIGMOID), len(SIGMOID) - 1) + len(SIGMOID)]
