"""What all strips of the layers share: slot program, parameters and weights, and where those of each map lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend import emit
from reverb_fpga.compiler.backend.emit import Placement
from reverb_fpga.compiler.backend.geometry import Walk
from reverb_fpga.compiler.backend.limits import require_fit
from reverb_fpga.compiler.backend.mode import Mode, mode_of
from reverb_fpga.compiler.backend.packing import Place, Request, pack_passes
from reverb_fpga.compiler.backend.tiling import (
    Pass,
    Plane,
    Tile,
    arrange,
    pack_rows,
    planes_of,
    repeated,
    slot_entries,
    tile_layer,
)
from reverb_fpga.compiler.intnet import IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.program import Section
from reverb_fpga.compiler.weight_memory import strip_words
from reverb_fpga.hw.config import Config

__all__ = ["Constants", "constants_of"]

Key = tuple[int, int]
"""Number of a layer, position of a map in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Constants:
    """Sections of a program, and by layer and leg where its own lie."""

    slot: Section
    param: Section
    weight: Section
    places: tuple[tuple[Placement, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Tiled:
    """A map in planes and tiles. ``rows``: of a pass, in each bank. ``around``: its last passes are repeated."""

    planes: tuple[Plane, ...]
    tiles: list[Tile]
    mode: Mode
    rows: int
    around: bool

    @property
    def request(self) -> Request:
        return Request(self.rows, len(self.tiles), self.mode.slots, shares=not self.mode.row)

    def passes(self, place: Place) -> tuple[Pass, ...]:
        return arrange(self.tiles, place.slots)


def constants_of(
    network: IntNetwork, walks: Sequence[tuple[Walk, ...]], config: Config, row_mode: bool | None
) -> Constants:
    """Tile all maps, and find a place for everything that does not change.

    Parameters
    ----------
    row_mode : bool or None
        As in :func:`mode_of`.

    Raises
    ------
    InputError
        If something does not fit the configuration: names the layer, what it needs and what there is.
    """
    tiled = {
        (number, layer.maps.index(leg)): _tile(network, layer, leg, walk, config, row_mode)
        for number, (layer, of_maps) in enumerate(zip(network.layers, walks, strict=True))
        for leg, walk in zip(layer.maps, of_maps, strict=True)
    }
    strip = config.strip_slots if config.weight_strip else 0
    found, length = pack_passes([one.request for one in tiled.values()], config.weight_rows, strip)
    if length > config.weight_rows:
        _require_rows(network, tiled, config)
    packed = dict(zip(tiled, found, strict=True))
    tables = _Tables(config)
    places = tuple(
        tuple(_leg(tables, network, number, leg, tiled, packed) for leg in layer.legs)
        for number, layer in enumerate(network.layers)
    )
    return Constants(
        np.array(tables.slots, dtype=np.uint32),
        np.concatenate(tables.params).reshape(-1),
        _weights(tiled, packed, length, config).reshape(-1),
        places,
    )


def _tile(
    network: IntNetwork, layer: IntLayer, leg: IntMap, walk: Walk, config: Config, row_mode: bool | None
) -> _Tiled:
    mode, planes = mode_of(network, layer, leg, walk, config, row_mode), planes_of(leg)
    groups = -(-layer.channels // config.neuron_lanes)
    # further steps of a static input, by position: z of two positions has cells
    static = len(layer.legs) == 1 and network.steps_of(leg.source) < layer.timesteps
    around = static and groups <= config.z_depth // 2
    rows = (walk.y.n_tap if mode.row else walk.taps) * -(-leg.weight.shape[1] // config.banks)
    return _Tiled(planes, tile_layer(groups, len(planes), around), mode, rows, around)


def _where(network: IntNetwork, number: int) -> str:
    return f"layer {network.layers[number].name} (with those before it)"


def _require_rows(network: IntNetwork, tiled: dict[Key, _Tiled], config: Config) -> None:
    """Name the layer that is too much, one after the other."""
    length = 0
    for (number, _), one in tiled.items():
        length += one.rows * one.request.passes
        require_fit(config, _where(network, number), "weight rows per bank", length, config.weight_rows)


class _Tables:
    """Slot program and parameters, which grow leg by leg."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.slots: list[int] = []
        self.params: list[NDArray[np.uint32]] = []
        self.groups = 0

    def add_params(self, words: NDArray[np.uint32], where: str) -> int:
        """Their first group."""
        require_fit(
            self.config, where, "groups of neuron parameters", self.groups + len(words), self.config.param_groups
        )
        self.params.append(words)
        self.groups += len(words)
        return self.groups - len(words)

    def add_slots(self, entries: list[int], where: str) -> int:
        """The position of the entries, which are only added if they are not there yet."""
        slots = self.slots
        for base in range(len(slots) - len(entries) + 1):
            if slots[base : base + len(entries)] == entries:
                return base
        slots += entries
        require_fit(self.config, where, "slot entries", len(slots), self.config.slot_entries)
        return len(slots) - len(entries)


def _leg(
    tables: _Tables,
    network: IntNetwork,
    number: int,
    leg: emit.Leg,
    tiled: dict[Key, _Tiled],
    packed: dict[Key, Place],
) -> Placement:
    layer, config, where = network.layers[number], tables.config, _where(network, number)
    param_base = tables.add_params(emit.param_words(layer, leg, config), where)
    if leg.position is None:  # gathers nothing: one plane of no weights
        planes = planes_of(dataclasses.replace(layer.map_of(leg), kind=WeightKind.UNIT))
        tiles = tile_layer(-(-layer.channels // config.neuron_lanes), 1)
        (place,), _ = pack_passes([Request(0, len(tiles), config.slots, shares=False)], config.weight_rows)
        passes = arrange(tiles, place.slots)
        slot_base = tables.add_slots(slot_entries(passes, planes), where)
        return Placement(0, 0, len(passes), slot_base, param_base, _drained(passes, config.slots))
    one, place = tiled[number, leg.position], packed[number, leg.position]
    passes, columns = one.passes(place), one.mode.columns
    return Placement(
        w_base=place.base,
        w_pass_stride=place.stride,
        n_passes=len(passes) * columns,
        slot_base=tables.add_slots(slot_entries(passes, one.planes, columns), where),
        param_base=param_base,
        pass_slots=_drained(passes, one.mode.slots),
        row_passes=len(passes) if one.mode.row else 0,
        repeat_passes=repeated(passes) if one.around else 0,
    )


def _drained(passes: tuple[Pass, ...], slots: int) -> int:
    """Field ``pass_slots`` of passes that have so many slots."""
    return len(passes[0]) if len(passes[0]) < slots else 0


def _weights(tiled: dict[Key, _Tiled], packed: dict[Key, Place], length: int, config: Config) -> NDArray[np.uint32]:
    """Section WEIGHT (length, banks, weight_words)."""
    ends = [place.base + (len(place.slots) - 1) * place.stride + tiled[key].rows for key, place in packed.items()]
    memory = np.zeros((max(length, *ends), config.banks, config.weight_words), dtype=np.uint32)
    for key, one in tiled.items():
        place = packed[key]
        for index, rows in enumerate(pack_rows(one.passes(place), one.planes, config, one.mode.row)):
            start = place.base + index * place.stride
            memory[start : start + len(rows)] |= rows
    return strip_words(memory, config)
