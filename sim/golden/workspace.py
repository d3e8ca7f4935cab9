"""Calls of numpy that are put together once and made for every batch, on memory that is used again.

Fresh pages from the system cost as much as the arithmetic on them, and slicing arrays as much as small calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Calls", "Workspace"]


class Workspace:
    """Named buffers of one thread; calls that are made one after the other share them."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with any content, in the place of what was taken under the same name before."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(1 << max(size - 1, 0).bit_length(), dtype=np.uint8)
        return buffer[:size].view(kind).reshape(shape)


class Calls:
    """Functions with their arguments, in order."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def add(self, function: Callable[..., Any], *arguments: Any) -> None:
        """One more."""
        self._calls.append((function, arguments))

    def run(self) -> None:
        """Make them."""
        for function, arguments in self._calls:
            function(*arguments)
