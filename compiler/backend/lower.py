"""From a quantised network to a program: the back end's stages in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from reverb_fpga.compiler.backend import emit
from reverb_fpga.compiler.backend.allocation import Ring, allocate
from reverb_fpga.compiler.backend.constants import Constants, constants_of
from reverb_fpga.compiler.backend.geometry import Walk, tensors_of, walks_of
from reverb_fpga.compiler.backend.intervals import prove_widths, source_max
from reverb_fpga.compiler.backend.limits import require_fit
from reverb_fpga.compiler.backend.schedule import plan
from reverb_fpga.compiler.backend.strips import LOAD, Hints, Memory, Node, Schedule, Strip
from reverb_fpga.compiler.checks import check_network
from reverb_fpga.compiler.intnet import IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.program import LayerInfo, MapInfo, Program, ProgramMeta, sections_crc32
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import CRC_WORD, DESCRIPTOR_WORDS, Gate, Region
from reverb_fpga.hw.errors import InputError

__all__ = ["lower"]

_SPARE = (0.0, 0.05, 0.1, 0.2, 0.3)  # shares of the memories left out of the plan, tried in this order


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
    hints = hints or Hints()
    constants = constants_of(network, walks, config, hints.row_mode)
    tensors = tensors_of(network, walks, config)
    reserved = Memory(tensors[0].slots, 1) if emit.has_pad_record(network) else Memory(0, 0)
    capacity = Memory(config.act_words, config.count_words)
    free = Memory(capacity.words - reserved.words, capacity.records - reserved.records)
    nodes = _nodes(network, walks, config)
    readers = _last_readers(network)
    # the plan knows sizes only: where no way is found to place its tensors side by side, plan with less memory
    for spare in _SPARE:
        available = Memory(*(int(total * (1 - spare)) for total in (free.words, free.records)))
        schedule = plan(nodes, tensors, available, config, hints)
        rings = allocate(schedule, tensors, readers, reserved, capacity)
        if rings is not None:
            break
    else:
        raise InputError(f"network too large for {config.name}: its tensors fit, but no way was found to place them")
    program = _assemble(_Parts(network, config, constants, schedule, rings, walks), meta)
    check_program(program, config)
    return program


def _check_layers(network: IntNetwork, walks: Sequence[tuple[Walk, ...]], config: Config) -> None:
    if network.input.channels > 256 * config.banks:
        require_fit(config, "the input", "channels", network.input.channels, 256 * config.banks)
    require_fit(config, "the network", "time steps", network.timesteps, config.max_timesteps)
    last = walks[-1][-1]
    if (last.y.out, last.x.out) != (1, 1):
        raise InputError(
            f"layer {network.layers[-1].name}: the output layer must have one position, "
            f"it has {last.y.out} x {last.x.out}; end the network with a linear layer"
        )
    for layer, legs in zip(network.layers, walks, strict=True):
        where = f"layer {layer.name}"
        require_fit(config, where, "channels", layer.channels, config.layer_groups * config.neuron_lanes)
        for leg, walk in zip(layer.maps, legs, strict=True):
            require_fit(config, where, "table entries (its window)", walk.window, config.table_entries)
            prove_widths(where, leg, source_max(network, leg), config)


def _nodes(network: IntNetwork, walks: Sequence[tuple[Walk, ...]], config: Config) -> list[Node]:
    """What the schedule must know of every layer."""
    nodes = []
    free = min(_gate_bases(network, config).values(), default=config.skip_words)
    for layer, of_maps in zip(network.layers, walks, strict=True):
        height = max_rows = of_maps[-1].y.out
        if len(layer.legs) > 1:
            groups = -(-layer.channels // config.neuron_lanes)
            row = of_maps[-1].x.out * layer.timesteps * groups
            gates = config.skip_words - free
            require_fit(
                config, f"layer {layer.name} (one row with a shortcut)", "skip words", row + gates, config.skip_words
            )
            max_rows = min(height, free // row)
        again = [-1 if leg.position is None else leg.position for leg in layer.legs if not leg.once]
        sources = tuple(network.index(layer.maps[position].source) + 1 for position in again)
        nodes.append(
            Node(
                sources,
                tuple(of_maps[position].y for position in again),
                max_rows,
                whole=None if layer.gate is None else network.index(layer.maps[-1].source) + 1,
                once=len(layer.legs) - len(again),
            )
        )
    return nodes


def _gate_bases(network: IntNetwork, config: Config) -> dict[int, int]:
    """First word of the gates of every layer that has one, by its number: side by side at the end of the skip memory.

    Layers whose strips interleave need theirs at the same time.
    """
    bases: dict[int, int] = {}
    end = config.skip_words
    for number, layer in enumerate(network.layers):
        if layer.gate is None:
            continue
        needed = layer.timesteps * -(-layer.channels // config.neuron_lanes)
        require_fit(
            config, f"layer {layer.name} (gates, with those before it)", "skip words",
            config.skip_words - end + needed, config.skip_words,
        )  # fmt: skip
        end -= needed
        bases[number] = end
    return bases


def _last_readers(network: IntNetwork) -> list[int]:
    """The last layer that reads each tensor; the number of layers for the result."""
    last = [-1] * (len(network.layers) + 1)
    for index, layer in enumerate(network.layers):
        for name in layer.sources:
            last[network.index(name) + 1] = index
    last[-1] = len(network.layers)
    return last


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """A network with everything that was decided about it."""

    network: IntNetwork
    config: Config
    constants: Constants
    schedule: Schedule
    rings: Sequence[Ring]
    walks: Sequence[tuple[Walk, ...]]

    @property
    def first_load(self) -> Strip:
        """The rows of the image that come first, with which the schedule begins."""
        return self.schedule.strips[0]

    def jobs(self) -> Iterator[emit.Job | Strip]:
        """One per descriptor, in order: rows of the image, or the legs of a strip.

        Legs of the whole map come before the first strip.
        """
        for strip in self.schedule.strips[1:]:
            if strip.layer == LOAD:
                yield strip
                continue
            layer = self.network.layers[strip.layer]
            for leg, place in zip(layer.legs, self.constants.places[strip.layer], strict=True):
                if leg.once and strip.first > 0:
                    continue
                walk = self.walks[strip.layer][-1 if leg.position is None else leg.position]
                rows = walk.y.out if leg.gate is Gate.SUM else strip.rows
                if leg.position is None:
                    walk = walk.without_sources(single=leg.gate is Gate.SIGMOID)
                    rows = min(rows, walk.y.out)
                yield emit.Job(
                    strip=dataclasses.replace(strip, rows=rows),
                    leg=leg,
                    walk=walk,
                    source=self.rings[self.network.index(layer.map_of(leg).source) + 1],
                    target=self.rings[strip.layer + 1],
                    place=place,
                )


def _assemble(parts: _Parts, meta: ProgramMeta) -> Program:
    network, config, constants = parts.network, parts.config, parts.constants
    bases = _gate_bases(network, config)
    words: list[int] = []
    for job in parts.jobs():
        if isinstance(job, Strip):
            words += emit.input_descriptor(network, parts.rings[0], job)
        else:
            words += emit.layer_descriptor(network, job, config, bases.get(job.strip.layer, 0))
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
    load = emit.load_fields(network, parts.rings[0], parts.first_load)
    body[:DESCRIPTOR_WORDS] = emit.program_descriptor(network, load, config, lengths)
    body[CRC_WORD] = sections_crc32(iter(sections))
    return Program(
        **{field.name: getattr(meta, field.name) for field in dataclasses.fields(meta)},
        timesteps=network.timesteps,
        layers=_layer_info(parts),
        config_name=config.name,
        config_digest=config.digest,
        desc=body,
        slot=constants.slot,
        param=constants.param,
        weight=constants.weight,
        act=act,
        count=count,
    )


def _layer_info(parts: _Parts) -> tuple[LayerInfo, ...]:
    network = parts.network
    strips: list[list[tuple[int, int, int]]] = [[] for _ in network.layers]
    descriptor = 0
    for strip in parts.schedule.strips[1:]:
        if strip.layer == LOAD:
            descriptor += 1
            continue
        descriptor += sum(not leg.once or strip.first == 0 for leg in network.layers[strip.layer].legs)
        strips[strip.layer].append((descriptor, strip.first, strip.rows))
    result = []
    for index, layer in enumerate(network.layers):
        tensor = parts.rings[index + 1].tensor
        result.append(
            LayerInfo(
                name=layer.name,
                shape=(tensor.channels, tensor.height, tensor.width),
                timesteps=tensor.timesteps,
                spiking=layer.spiking,
                strips=tuple(strips[index]),
                maps=tuple(
                    MapInfo(
                        source=network.index(layer.map_of(leg).source),
                        additions=0
                        if leg.position is None
                        else _additions(layer.maps[leg.position], parts.walks[index][leg.position]),
                        gate=int(leg.gate),
                    )
                    for leg in layer.legs
                ),
                order=layer.order,
            )
        )
    return tuple(result)


def _additions(leg: IntMap, walk: Walk) -> int:
    """Synaptic additions of one dense time step: bit planes are not counted, nor zeros of an identity."""
    weights = np.count_nonzero(leg.weight) if leg.kind is WeightKind.UNIT else leg.weight.size
    return int(weights) * walk.pooled * walk.y.reading * walk.x.reading
