"""Channels over banks: which order of a tensor's channels its readers take in the fewest beats.

A table of events is read by every bank at once, two events a cycle, and is done with when the fullest bank is. Which
channels fire together is the network's doing; which of them share a bank is free (:mod:`..passes.reorder`). Activations
of some images say what fires, half of them are kept to check what was found on the other half.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.constants import constants_of
from reverb_fpga.compiler.backend.emit import Placement
from reverb_fpga.compiler.backend.geometry import Axis, Walk, walks_of
from reverb_fpga.compiler.intnet import INPUT, IntNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import ROW_TAPS
from reverb_fpga.hw.errors import InputError

__all__ = ["Placed", "Tables", "beats_of", "place_channels", "tables_of"]

_TABLES = 4096
"""Tables of a reader that are looked at, of search and check each; of more, so many at random."""
_CELLS = 1 << 20
"""Channels times tables of the search in a tensor: what bounds its time."""
_SWEEPS = 6
_LEAST_GAIN = 0.01
"""Share of a tensor's beats on the images kept that another order must save."""

Events = NDArray[np.int32]
Codes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """Orders that were found.

    Parameters
    ----------
    orders : dict of str to int array (C,)
        By tensor, as :func:`~reverb_fpga.compiler.passes.reorder.reordered` takes them; only where it pays.
    beats : dict of str to (float, float)
        By tensor: an image's beats of all its readers, on the images kept, in the present order and in the best one
        that was found.
    """

    orders: dict[str, NDArray[np.int64]]
    beats: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """A leg that gathers from a tensor.

    Parameters
    ----------
    rows, columns : int array (tables along the axis, source coordinates)
        What a table is gathered from; -1 is outside the tensor.
    passes : int
        That each table is issued to.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    passes: int

    @property
    def least(self) -> int:
        """Beats that a pass takes at least: the walker takes a cycle for every record of the next table meanwhile."""
        return -(-self.rows.shape[1] * self.columns.shape[1] // self.passes)


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Tables that one reader makes of a tensor, or a share of them.

    Parameters
    ----------
    events : int32 array (C, tables)
        Of every channel.
    weight : float
        Passes of an image that each table stands for.
    least : int
        Beats that a pass takes at least.
    """

    events: Events
    weight: float
    least: int


def place_channels(network: IntNetwork, tensors: Mapping[str, Codes], config: Config, row_mode: bool | None) -> Placed:
    """Look for orders in which the readers of every tensor take fewer beats. The same result for the same codes.

    Parameters
    ----------
    network : IntNetwork
    tensors : mapping of str to uint8 array (N, T, H, W, C)
        Activation codes of some images, by the layer that fires them: the search is on every other image, the check on
        those between. Layers without codes keep their order.
    row_mode : bool or None
        As in :class:`~reverb_fpga.compiler.backend.Hints`.

    Raises
    ------
    InputError
        Fewer than two images, or codes of another shape; or the network is too large for the target.
    """
    halves = [{name: codes[part::2] for name, codes in tensors.items()} for part in range(2)]
    search, check = (tables_of(network, half, config, row_mode) for half in halves)
    orders: dict[str, NDArray[np.int64]] = {}
    beats: dict[str, tuple[float, float]] = {}
    for name, tables in search.items():
        best = _in_order(_search(tables, config.banks), config.banks)
        found = beats_of(check[name], config.banks), beats_of(_taken(check[name], best), config.banks)
        beats[name] = found
        if found[1] < (1 - _LEAST_GAIN) * found[0]:
            orders[name] = best
    return Placed(orders, beats)


def tables_of(
    network: IntNetwork, tensors: Mapping[str, Codes], config: Config, row_mode: bool | None
) -> dict[str, list[Tables]]:
    """What the readers of every tensor gather; parameters and errors as of :func:`place_channels`, of one image too."""
    readers = _readers(network, config, row_mode)
    found = {}
    for layer in network.layers[:-1]:
        if layer.name not in tensors:
            continue
        codes, of_layer = tensors[layer.name], readers[layer.name]
        if codes.ndim != 5 or codes.shape[-1] != layer.channels or not len(codes):
            raise InputError(f"layer {layer.name}: codes {codes.shape}; (N, T, H, W, {layer.channels}) are wanted")
        found[layer.name] = [_tables(reader, codes > 0, len(of_layer)) for reader in of_layer]
    return found


def beats_of(tables: Sequence[Tables], banks: int) -> float:
    """Beats of tables, channel ``c`` being in bank ``c % banks``; an image's."""
    total = 0.0
    for part in tables:
        fullest = np.max([part.events[bank::banks].sum(axis=0) for bank in range(banks)], axis=0)
        total += part.weight * int(np.maximum(part.least, (fullest + 1) >> 1).sum())
    return total


def _taken(tables: Sequence[Tables], order: NDArray[np.int64]) -> list[Tables]:
    return [dataclasses.replace(part, events=part.events[order]) for part in tables]


def _readers(network: IntNetwork, config: Config, row_mode: bool | None) -> dict[str, list[_Reader]]:
    """By tensor; none of the input."""
    walks = walks_of(network)
    places = constants_of(network, walks, config, row_mode).places
    readers: dict[str, list[_Reader]] = {layer.name: [] for layer in network.layers}
    for layer, of_maps, of_legs in zip(network.layers, walks, places, strict=True):
        for leg, place in zip(layer.legs, of_legs, strict=True):
            if leg.position is not None and (source := layer.maps[leg.position].source) != INPUT:
                readers[source].append(_reader(of_maps[leg.position], place))
    return readers


def _reader(walk: Walk, place: Placement) -> _Reader:
    rows = _window(walk.y)
    if not place.row_passes:
        return _Reader(rows, _window(walk.x), place.n_passes)
    # a column of the source feeds three of the output's
    columns = walk.x.origin + np.arange(walk.x.out * walk.x.n_pool + ROW_TAPS - 1)
    return _Reader(rows, _inside(columns[:, None], walk.x), place.row_passes)


def _window(axis: Axis) -> NDArray[np.int64]:
    """Source coordinates (outputs, what each reads)."""
    pool, tap = np.arange(axis.n_pool) * axis.pool, np.arange(axis.n_tap) * axis.tap
    reads = (pool[:, None] + tap).ravel()
    return _inside(np.arange(axis.out)[:, None] * axis.step + reads + axis.origin, axis)


def _inside(coordinates: NDArray[np.int64], axis: Axis) -> NDArray[np.int64]:
    """Those outside the source as -1."""
    return np.where((coordinates >= 0) & (coordinates < axis.bound), coordinates, -1)


def _tables(reader: _Reader, fired: NDArray[np.bool_], readers: int) -> Tables:
    """Tables that a reader makes of what fired (N, T, H, W, C); a share of them, if there are many."""
    images, steps, _, _, channels = fired.shape
    shape = (images, steps, len(reader.rows), len(reader.columns))
    number = int(np.prod(shape))
    limit = max(1, min(_TABLES, _CELLS // (channels * readers)))
    chosen = np.arange(number)
    if number > limit:
        chosen = np.sort(np.random.default_rng(0).choice(number, limit, replace=False))
    n, t, y, x = np.unravel_index(chosen, shape)
    padded = np.pad(fired, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))
    events = np.zeros((len(chosen), channels), dtype=np.int32)
    for row, column in itertools.product(reader.rows[y].T, reader.columns[x].T):
        events += padded[n, t, row, column]
    weight = reader.passes * number / (len(chosen) * images)
    return Tables(np.ascontiguousarray(events.T), weight, reader.least)


class _Sums:
    """Events of every bank in every table, and what swaps of two channels make of their beats.

    Parameters
    ----------
    tables : sequence of Tables
        Of all readers.
    """

    def __init__(self, tables: Sequence[Tables], banks: int) -> None:
        events = np.concatenate([part.events for part in tables], axis=1)
        small = int(events.sum(axis=0).max(initial=0)) < 1 << 14
        self.events = events.astype(np.int16 if small else np.int32)
        self.bank = np.arange(len(events)) % banks
        self.sums = np.stack([self.events[self.bank == bank].sum(axis=0, dtype=events.dtype) for bank in range(banks)])
        self.sums = self.sums.astype(self.events.dtype)
        ends = np.cumsum([part.events.shape[1] for part in tables])
        self._parts = [
            (slice(end - part.events.shape[1], end), part.weight) for part, end in zip(tables, ends, strict=True)
        ]
        least = np.concatenate([np.full(part.events.shape[1], 2 * part.least - 1) for part in tables])
        self._least = least.astype(self.events.dtype)  # events that take as many beats

    def cost(self) -> float:
        return float(self._beats(np.maximum(self.sums.max(axis=0), self._least)[None])[0])

    def swaps(self, channel: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Channels of every other bank, and the cost if ``channel`` changes places with each of them."""
        own, moved = self.bank[channel], self.events[channel]
        for bank in range(len(self.sums)):
            others = np.flatnonzero(self.bank == bank)
            if bank == own or not len(others):
                continue
            coming = self.events[others]
            rest = np.delete(self.sums, [own, bank], axis=0).max(axis=0, initial=0)
            fullest = coming + (self.sums[own] - moved)
            np.maximum(fullest, (self.sums[bank] + moved) - coming, out=fullest)
            np.maximum(fullest, np.maximum(rest, self._least), out=fullest)
            yield others, self._beats(fullest)

    def swap(self, channel: int, other: int) -> None:
        banks, change = self.bank[[channel, other]], self.events[other] - self.events[channel]
        self.sums[banks[0]] += change
        self.sums[banks[1]] -= change
        self.bank[[channel, other]] = banks[::-1]

    def _beats(self, fullest: NDArray[np.integer]) -> NDArray[np.float64]:
        """Of (candidates, tables), whose numbers are lost."""
        fullest += 1
        fullest >>= 1
        total = np.zeros(len(fullest))
        for part, weight in self._parts:
            total += weight * fullest[:, part].sum(axis=1, dtype=np.int64)
        return total


def _search(tables: Sequence[Tables], banks: int) -> NDArray[np.int64]:
    """The bank (C,) of every channel: the best swap of each channel in turn, until none helps, or often enough."""
    state = _Sums(tables, banks)
    cost, rng = state.cost(), np.random.default_rng(0)
    for _ in range(_SWEEPS):
        before = cost
        for channel in rng.permutation(len(state.bank)):
            swaps = list(state.swaps(int(channel)))
            if not swaps:
                return state.bank
            others, costs = (np.concatenate(parts) for parts in zip(*swaps, strict=True))
            best = int(costs.argmin())
            if costs[best] < cost:
                state.swap(int(channel), int(others[best]))
                cost = float(costs[best])
        if cost > 0.9995 * before:
            break
    return state.bank


def _in_order(bank: NDArray[np.int64], banks: int) -> NDArray[np.int64]:
    """The order in which channels lie in their banks, those of a bank as they are."""
    order = np.empty(len(bank), dtype=np.int64)
    for number in range(banks):
        order[number::banks] = np.flatnonzero(bank == number)
    return order
