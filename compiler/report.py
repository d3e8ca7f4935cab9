"""What was compiled and what it takes, for a person and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from reverb_fpga.compiler.backend.geometry import Walk, walks_of
from reverb_fpga.compiler.backend.intervals import current_bounds, source_max
from reverb_fpga.compiler.ebr import DEVICE_BLOCKS, block_rams
from reverb_fpga.compiler.intnet import IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.invariance import Invariance
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.row_mode import weight_rows
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import DESCRIPTOR_WORDS, PARAM_WORDS, Opcode

__all__ = ["CompileReport", "LayerReport", "MapReport", "Use", "make_report", "memory_uses"]


@dataclasses.dataclass(frozen=True)
class Use:
    """A resource of the target: how much is used of how much."""

    resource: str
    used: int
    available: int


@dataclasses.dataclass(frozen=True)
class MapReport:
    """One map of a layer: its convolution, or a shortcut.

    Parameters
    ----------
    source : str
        The tensor it reads.
    weights : str
        Kind and bits.
    fan_in : int
        Source values of one output value, pooling included.
    z_bits : int
        Bits that the current provably needs, sign included.
    passes, rows : int
        Passes of the lane array for an output position and step, and the weight rows per bank that they read: where
        rows are shared, some that other maps read too.
    row_mode : bool
    gain, shift : int
        Largest m, and r.
    """

    source: str
    weights: str
    fan_in: int
    z_bits: int
    passes: int
    rows: int
    row_mode: bool
    gain: int
    shift: int


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer.

    Parameters
    ----------
    maps : tuple of MapReport
        Shortcuts first.
    weight_blocks : float
        Its rows' share of the overlay's block RAM for weights.
    additions : int
        Of one dense time step.
    strips : int
        How often its rows are taken up.
    code_step : float or None
        Value of one code of its output, and where that comes from.
    """

    name: str
    shape: tuple[int, int, int]
    maps: tuple[MapReport, ...]
    weight_blocks: float
    additions: int
    strips: int
    code_step: float | None
    code_origin: str


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """The whole compilation."""

    name: str
    target: str
    timesteps_trained: int
    timesteps: int
    invariance: tuple[tuple[str, bool, str], ...]
    layers: tuple[LayerReport, ...]
    uses: tuple[Use, ...]
    block_rams: dict[str, int]
    block_rams_available: int | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return dataclasses.asdict(self)


def make_report(
    program: Program,
    network: IntNetwork,
    config: Config,
    proof: Invariance,
    steps: Mapping[str, Step],
    notes: tuple[str, ...],
) -> CompileReport:
    """Gather the figures of a compilation."""
    return CompileReport(
        name=program.name,
        target=config.name,
        timesteps_trained=proof.trained,
        timesteps=proof.emitted,
        invariance=proof.tensors,
        layers=tuple(_layer(program, network, index, steps, config) for index in range(len(network.layers))),
        uses=memory_uses(program, config),
        block_rams=block_rams(config),
        block_rams_available=DEVICE_BLOCKS.get(config.name),
        notes=notes,
    )


def _layer(program: Program, network: IntNetwork, index: int, steps: Mapping[str, Step], config: Config) -> LayerReport:
    layer, info = network.layers[index], program.layers[index]
    legs = [
        _map(network, leg, walk, _descriptor(program, index, layer, position))
        for position, (leg, walk) in enumerate(zip(layer.maps, walks_of(network)[index], strict=True))
    ]
    step = steps.get(layer.name)
    rows = sum(leg.rows for leg in legs)
    return LayerReport(
        name=info.name,
        shape=info.shape,
        maps=tuple(legs),
        weight_blocks=block_rams(config)["weights"] * rows / config.weight_rows,
        additions=info.additions,
        strips=len(info.strips),
        code_step=step.step if step else None,
        code_origin=step.origin if step else "",
    )


def _descriptor(program: Program, index: int, layer: IntLayer, position: int) -> dict[str, int]:
    """Fields of the first descriptor that gathers a map."""
    leg = next(number for number, leg in enumerate(layer.legs) if leg.position == position)
    return program.descriptor(program.layers[index].descriptors_of(leg)[0])[1]


def _map(network: IntNetwork, leg: IntMap, walk: Walk, fields: Mapping[str, int]) -> MapReport:
    low, high = current_bounds(leg.weight, walk.pooled, source_max(network, leg))
    return MapReport(
        source=leg.source,
        weights=_weights(leg),
        fan_in=int(np.prod(leg.weight.shape[1:])) * walk.pooled,
        z_bits=max(int(high.max()).bit_length(), int(-low.min()).bit_length()) + 1,
        passes=fields["n_passes"],
        rows=(fields["row_passes"] or fields["n_passes"]) * weight_rows(fields),
        row_mode=fields["row_passes"] > 0,
        gain=int(leg.gain.max()),
        shift=leg.r_shift,
    )


def _weights(leg: IntMap) -> str:
    if leg.kind is WeightKind.UNIT:
        return "unit"
    return f"{leg.kind.value} {leg.bits}" if leg.bits > 1 else leg.kind.value


def memory_uses(program: Program, config: Config) -> tuple[Use, ...]:
    """How much of each memory of its configuration a program takes, at any time of its schedule."""
    words, records = _touched(program, config)
    return (
        Use("weight rows per bank", len(program.weight) // (config.banks * config.weight_words), config.weight_rows),
        Use("neuron parameter groups", len(program.param) // (PARAM_WORDS * config.neuron_lanes), config.param_groups),
        Use("slot entries", len(program.slot), config.slot_entries),
        Use("descriptors", len(program.desc) // DESCRIPTOR_WORDS, config.descriptors),
        Use("activation words per bank", words, config.act_words),
        Use("count words", records, config.count_words),
    )


def _touched(program: Program, config: Config) -> tuple[int, int]:
    """Activation words and count words that hold something at some time."""
    words, records = np.zeros(config.act_words, dtype=bool), np.zeros(config.count_words, dtype=bool)
    places = [(0, 0, len(program.act) // config.banks, len(program.count) // config.banks)]
    for index in range(program.n_descriptors - 1):
        opcode, f = program.descriptor(index)
        if opcode is not Opcode.LAYER:
            places.append((f["in_act_base"], f["in_cnt_base"], f["in_slots"], f["in_records"]))
            continue
        slots = f["dst_slots"] if f["spiking"] else 0
        places.append((f["dst_act_base"], f["dst_cnt_base"], slots, f["dst_ring"]))
    for act, count, slots, number in places:
        words[act : act + slots * number] = True
        records[count : count + number] = True
    return int(words.sum()), int(records.sum())
