"""Sections 1 and 2 of ``docs/numerics.md``: source records to synaptic currents, for many images at once."""

from __future__ import annotations

import dataclasses
import functools
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

from .picks import Rows, Windows
from .schedule import NOTHING, PAD, Strip
from .workspace import Calls, Workspace

__all__ = ["Gather"]

_FLOAT32_EXACT, _FLOAT64_EXACT = 1 << 24, 1 << 53


@dataclasses.dataclass(frozen=True, eq=False)
class _Checks:
    """Which results cannot be proven to fit from intervals and are therefore looked at."""

    p_limit: int
    z_limit: int
    needed: bool


class Gather:
    """Executes the gather and the weights of one strip.

    Parameters
    ----------
    strip : Strip
    config : Config
    max_code : int
        Largest code that any of its sources can hold.
    """

    def __init__(self, strip: Strip, config: Config, max_code: int) -> None:
        self._strip = strip
        pooled = strip.sources.shape[1]
        largest = max_code * pooled
        self._used, inverse = np.unique(strip.sources, return_inverse=True)
        self._used = self._used[self._used >= 0]
        indices = self._index(inverse.reshape(strip.sources.shape))
        windows, taps = _deduplicate(indices)
        if pooled == 1:
            taps = windows[taps, 0]  # nothing to sum: straight to the records
        self._sums = [Rows(column) for column in windows.T] if pooled > 1 else []
        self._records, self._windows, self._taps = Rows(self._used), len(windows), Windows(taps)
        self._shape = taps.shape
        weights = strip.weights
        self.reach = largest * weights.column_gains
        """Largest magnitude of a current, by channel."""
        bound = int(self.reach.max())
        if bound >= _FLOAT64_EXACT:
            raise InputError(f"{strip.where}: a current can reach {bound}")
        self._dtype: Any = np.float32 if bound < _FLOAT32_EXACT else np.float64
        self._matrix = weights.cast(self._dtype)
        sum_bound = largest * weights.matrix.shape[0]
        p_limit, z_limit = 1 << config.acc_width, 1 << (config.z_width - 1)
        needed = sum_bound >= p_limit or largest * weights.z_gain >= z_limit
        self._checks = _Checks(p_limit, z_limit, needed)

    @property
    def bytes_per_image(self) -> int:
        """Working memory of one image, roughly."""
        strip = self._strip
        positions, taps = self._shape
        rows = positions * strip.steps_in
        channels = self._matrix.shape[1]
        codes = self._windows * strip.steps_in * (self._matrix.shape[0] // taps)
        size = np.dtype(self._dtype).itemsize
        steps = strip.fields["timesteps"]
        return size * (rows * self._matrix.shape[0] + codes) + 32 * positions * channels * steps

    def currents(
        self, calls: Calls, memory: NDArray[np.uint8], space: Workspace, kernels: ModuleType | None = None
    ) -> NDArray[Any]:
        """Where calls put z (N, T_in, positions, channels), integers in a float type.

        They read the activation memory (N, act_words, banks), and raise InputError if a P, S, c or partial z does not
        fit its width. ``kernels`` (:mod:`.compiled`) gather what float32 holds.
        """
        if kernels and self._dtype is np.float32:
            gathered = self._gather_at_once(kernels, calls, memory, space)
        else:
            gathered = self._gather(calls, memory, space)
        n, steps, positions, _ = gathered.shape
        flat = gathered.reshape(n * steps * positions, -1)
        if self._checks.needed:
            calls.add(self._check, flat)
        z = space.array("currents", (len(flat), self._matrix.shape[1]), self._dtype)
        calls.add(np.matmul, flat, self._matrix, z)
        return z.reshape(n, steps, positions, -1)

    def _index(self, inverse: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of the table built by :meth:`_gather`: used records, then the pad record, then nothing."""
        special = int(np.count_nonzero(np.unique(self._strip.sources) < 0))
        indices = inverse - special
        indices = np.where(self._strip.sources == PAD, len(self._used), indices)
        return np.where(self._strip.sources == NOTHING, len(self._used) + 1, indices)

    def _gather(self, calls: Calls, memory: NDArray[np.uint8], space: Workspace) -> NDArray[Any]:
        """Codes (N, T_in, positions, taps * channels), summed over the pooled positions."""
        strip, source = self._strip, self._strip.source
        n, banks = memory.shape[0], memory.shape[2]
        steps, channels = strip.steps_in, source.slots * banks
        ring = memory[:, source.act_base : source.act_base + source.number * source.slots]
        ring = ring.reshape(n, 1, source.number, channels)
        used = len(self._used)
        table = space.array("records", (n, steps, used + 2, channels), self._dtype)
        for step in range(steps):
            self._records.copy(calls, ring, table[:, step : step + 1, :used], step)
        calls.add(np.copyto, table[:, :, used], 0 if strip.pad is None else strip.pad)
        calls.add(np.copyto, table[:, :, used + 1], 0)
        if self._sums:
            summed = space.array("windows", (n, steps, self._windows, channels), self._dtype)
            self._sums[0].copy(calls, table, summed)
            for column in self._sums[1:]:
                column.add(calls, table, summed)
            table = summed
        gathered = space.array("gathered", (n, steps, *self._shape, channels), self._dtype)
        self._taps.copy(calls, table, gathered)
        return gathered.reshape(n, steps, self._shape[0], -1)

    def _gather_at_once(
        self, kernels: ModuleType, calls: Calls, memory: NDArray[np.uint8], space: Workspace
    ) -> NDArray[Any]:
        """As :meth:`_gather`, from the memory to the result in one pass."""
        n, steps = len(memory), self._strip.steps_in
        gathered = space.array("gathered", (n, steps, self._shape[0], len(self._matrix)), self._dtype)
        calls.add(kernels.gather, memory.reshape(n, -1), *self._places, gathered)
        return gathered

    @functools.cached_property
    def _places(self) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """What :func:`.compiled.gather` is told of the sources: constants, places, runs."""
        strip, channels = self._strip, len(self._matrix) // self._shape[1]
        constants = np.zeros((2, channels), dtype=np.uint8)
        if strip.pad is not None:
            constants[-1 - PAD] = strip.pad
        start = strip.source.act_base * (channels // strip.source.slots)
        places = np.where(strip.sources < 0, strip.sources, start + strip.sources * channels).transpose(0, 2, 1)
        return constants, np.ascontiguousarray(places, dtype=np.int32), _runs(strip.sources)

    def _check(self, flat: NDArray[Any]) -> None:
        """Look at every P, S, c and partial z of this batch."""
        strip, checks = self._strip, self._checks
        total = flat.sum(axis=1, dtype=np.float64).astype(np.int64)
        if total.max() >= checks.p_limit:
            raise InputError(f"{strip.where}: S = {int(total.max())} does not fit the accumulator")
        partial: dict[int, NDArray[np.int64]] = {}
        for entry in strip.weights.distinct:
            masked: NDArray[np.float64] = flat.astype(np.float64) @ entry.bits
            p = masked.astype(np.int64) << entry.shift
            c = (-p if entry.negate else p) - (total[:, None] if entry.subtract_s else 0)
            z = c if entry.first else c + partial[entry.group]
            partial[entry.group] = z
            for name, values in (("P << shift", p), ("c", c), ("z", z)):
                if values.max() >= checks.z_limit or values.min() < -checks.z_limit:
                    raise InputError(f"{strip.where}: {name} of group {entry.group} does not fit its width")


def _deduplicate(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct pooling windows (windows, pooled) and the window of each (position, tap)."""
    positions, pooled, taps = indices.shape
    per_tap = indices.transpose(0, 2, 1).reshape(positions * taps, pooled)
    windows, inverse = np.unique(per_tap, axis=0, return_inverse=True)
    return windows, inverse.reshape(positions, taps)


def _runs(sources: NDArray[np.int64]) -> NDArray[np.int32]:
    """Taps (positions, taps) from each one on whose records follow each other, at every pooled position."""
    joined = ((np.diff(sources, axis=2) == 1) & (sources[:, :, :-1] >= 0)).all(axis=1)
    runs = np.ones((len(sources), sources.shape[2]), dtype=np.int32)
    for tap in reversed(range(joined.shape[1])):
        runs[:, tap] += np.where(joined[:, tap], runs[:, tap + 1], 0)
    return runs
