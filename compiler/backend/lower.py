"""From a quantised network to a program: the back end's stages in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from reverb_fpga.compiler.backend import emit
from reverb_fpga.compiler.backend.allocation import Ring, allocate
from reverb_fpga.compiler.backend.emit import Placement
from reverb_fpga.compiler.backend.geometry import Walk, tensors_of, walks_of
from reverb_fpga.compiler.backend.intervals import prove_widths, source_max
from reverb_fpga.compiler.backend.limits import require_fit
from reverb_fpga.compiler.backend.schedule import Hints, Memory, Schedule, plan
from reverb_fpga.compiler.backend.tiling import pack_rows, planes_of, slot_entries, tile_layer
from reverb_fpga.compiler.checks import check_network
from reverb_fpga.compiler.intnet import IntLayer, IntNetwork
from reverb_fpga.compiler.program import LayerInfo, Program, ProgramMeta, Section, sections_crc32
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import CRC_WORD, DESCRIPTOR_WORDS, Region
from reverb_fpga.hw.errors import InputError

__all__ = ["lower"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Constants:
    """What all strips of the layers share: slot program, parameters, weights, and where each layer's lie."""

    slot: Section
    param: Section
    weight: Section
    places: tuple[Placement, ...]


def lower(network: IntNetwork, config: Config, meta: ProgramMeta, hints: Hints | None = None) -> Program:
    """Tile, prove, allocate, schedule and emit.

    Parameters
    ----------
    hints : Hints, optional
        Force many strips and small rings (tests).

    Raises
    ------
    InputError
        If the network is malformed, a width cannot be proven, or it is too large for the target: names the layer,
        the resource, what it needs and what there is.
    """
    check_network(network, config)
    walks = walks_of(network)
    _check_layers(network, walks, config)
    constants = _constants(network, walks, config)
    tensors = tensors_of(network, walks, config)
    reserved = Memory(tensors[0].slots, 1) if emit.has_pad_record(network) else Memory(0, 0)
    capacity = Memory(config.act_words, config.count_words)
    free = Memory(capacity.words - reserved.words, capacity.records - reserved.records)
    schedule = plan(walks, tensors, free, config, hints or Hints())
    rings = allocate(schedule, tensors, reserved, capacity)
    program = _assemble(network, config, meta, constants, schedule, rings, walks)
    check_program(program, config)
    return program


def _check_layers(network: IntNetwork, walks: Sequence[Walk], config: Config) -> None:
    if network.input.channels > 256 * config.banks:
        require_fit(config, "the input", "channels", network.input.channels, 256 * config.banks)
    require_fit(config, "the network", "time steps", network.timesteps, config.max_timesteps)
    last = walks[-1]
    if (last.y.out, last.x.out) != (1, 1):
        raise InputError(
            f"layer {network.layers[-1].name}: the output layer must have one position, "
            f"it has {last.y.out} x {last.x.out}; end the network with a linear layer"
        )
    for index, (layer, walk) in enumerate(zip(network.layers, walks, strict=True)):
        where = f"layer {layer.name}"
        channels = layer.weight.shape[0]
        require_fit(config, where, "channels", channels, config.layer_groups * config.neuron_lanes)
        require_fit(config, where, "table entries (its window)", walk.window, config.table_entries)
        prove_widths(layer, source_max(network, index), config)


def _constants(network: IntNetwork, walks: Sequence[Walk], config: Config) -> _Constants:
    slots: list[int] = []
    params, rows, places = [], [], []
    n_rows = n_groups = 0
    for layer, walk in zip(network.layers, walks, strict=True):
        planes = planes_of(layer)
        groups = -(-layer.weight.shape[0] // config.neuron_lanes)
        passes = tile_layer(groups, len(planes), config.slots)
        stride = walk.taps * -(-layer.weight.shape[1] // config.banks)
        where = f"layer {layer.name} (with those before it)"
        require_fit(config, where, "weight rows per bank", n_rows + len(passes) * stride, config.weight_rows)
        require_fit(config, where, "groups of neuron parameters", n_groups + groups, config.param_groups)
        slot_base = _share(slots, slot_entries(passes, planes, config.slots))
        require_fit(config, where, "slot entries", len(slots), config.slot_entries)
        places.append(Placement(n_rows, stride, len(passes), slot_base, n_groups))
        rows.append(pack_rows(passes, planes, config))
        params.append(emit.param_words(layer, config))
        n_rows += len(passes) * stride
        n_groups += groups
    return _Constants(
        np.array(slots, dtype=np.uint32),
        np.concatenate(params).reshape(-1),
        np.concatenate(rows).reshape(-1),
        tuple(places),
    )


def _share(program: list[int], entries: list[int]) -> int:
    """Position of ``entries`` in the slot program, which grows only if they are not in it yet."""
    for base in range(len(program) - len(entries) + 1):
        if program[base : base + len(entries)] == entries:
            return base
    program += entries
    return len(program) - len(entries)


def _assemble(
    network: IntNetwork,
    config: Config,
    meta: ProgramMeta,
    constants: _Constants,
    schedule: Schedule,
    rings: Sequence[Ring],
    walks: Sequence[Walk],
) -> Program:
    words = [
        word
        for strip in schedule.strips
        for word in emit.layer_descriptor(
            network, strip, walks[strip.layer], rings[strip.layer : strip.layer + 2], constants.places[strip.layer]
        )
    ]
    body = np.array([0] * DESCRIPTOR_WORDS + words + emit.end_descriptor(), dtype=np.uint32)
    act = count = np.zeros(0, dtype=np.uint32)
    if emit.has_pad_record(network):
        act, count = emit.pad_sections(network.input, config)
    sections = (
        (Region.DESC, body),
        (Region.SLOT, constants.slot),
        (Region.PARAM, constants.param),
        (Region.WEIGHT, constants.weight),
        (Region.ACT, act),
        (Region.COUNT, count),
    )
    lengths = [len(body) // DESCRIPTOR_WORDS, *(len(section) for _, section in sections[1:])]
    body[:DESCRIPTOR_WORDS] = emit.program_descriptor(network, rings[0], config, lengths)
    body[CRC_WORD] = sections_crc32(iter(sections))
    return Program(
        **{field.name: getattr(meta, field.name) for field in dataclasses.fields(meta)},
        timesteps=network.timesteps,
        layers=_layer_info(network, schedule, rings, walks),
        config_name=config.name,
        config_digest=config.digest,
        desc=body,
        slot=constants.slot,
        param=constants.param,
        weight=constants.weight,
        act=act,
        count=count,
    )


def _layer_info(
    network: IntNetwork, schedule: Schedule, rings: Sequence[Ring], walks: Sequence[Walk]
) -> tuple[LayerInfo, ...]:
    strips: list[list[tuple[int, int, int]]] = [[] for _ in network.layers]
    for index, strip in enumerate(schedule.strips):
        strips[strip.layer].append((index + 1, strip.first, strip.rows))
    result = []
    for index, layer in enumerate(network.layers):
        tensor = rings[index + 1].tensor
        result.append(
            LayerInfo(
                name=layer.name,
                shape=(tensor.channels, tensor.height, tensor.width),
                timesteps=tensor.timesteps,
                spiking=layer.spiking,
                strips=tuple(strips[index]),
                additions=_additions(layer, walks[index], tensor.height * tensor.width),
            )
        )
    return tuple(result)


def _additions(layer: IntLayer, walk: Walk, positions: int) -> int:
    """Synaptic additions of one dense time step: bit planes are not counted."""
    return int(layer.weight.size) * walk.pooled * positions
