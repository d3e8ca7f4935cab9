"""The skip memory: currents that one leg of a layer leaves for the next (``docs/numerics.md`` section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config

from .schedule import Strip

__all__ = ["SkipMemory"]


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
        words = max((int(strip.skip.max()) + 1 for strip in strips if strip.skip.size), default=0)
        self._words = np.zeros((images, words, config.neuron_lanes), dtype=np.int32)

    def load(self, strip: Strip, images: slice) -> NDArray[np.int32] | None:
        """What the strip adds to its current (N, T, positions, channels); None if nothing."""
        if not strip.fields["add_skip"]:
            return None
        content = self._words[images][:, strip.skip]  # (N, positions, T, groups, lanes)
        return content.reshape(*content.shape[:3], -1).transpose(0, 2, 1, 3)

    def store(self, strip: Strip, images: slice, values: NDArray[Any]) -> None:
        """Keep the currents (N, T, positions, channels) of a leg."""
        by_entry = values.transpose(0, 2, 1, 3).reshape(len(values), *strip.skip.shape, -1)
        self._words[images, strip.skip] = by_entry
