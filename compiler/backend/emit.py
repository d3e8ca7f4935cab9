"""Sections of a program: descriptors, slot program, parameters, weights, constant records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.allocation import Ring
from reverb_fpga.compiler.backend.geometry import Walk
from reverb_fpga.compiler.backend.strips import Strip
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntMap, IntNetwork, Leg
from reverb_fpga.compiler.program import Section
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    CONTRACT_VERSION,
    DESCRIPTOR_WORDS,
    END_FIELDS,
    EVENT_FIELDS,
    INPUT_FIELDS,
    LAYER_FIELDS,
    PARAM_FIELDS,
    PARAM_WORDS,
    PROGRAM_FIELDS,
    Gate,
    Opcode,
    pack,
)

__all__ = [
    "Job",
    "Placement",
    "end_descriptor",
    "has_pad_record",
    "input_descriptor",
    "layer_descriptor",
    "load_fields",
    "pad_sections",
    "param_words",
    "program_descriptor",
    "reads_pad_record",
]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a map's constants lie and how it is tiled; ``pass_slots`` and what follows as in the contract."""

    w_base: int
    w_pass_stride: int
    n_passes: int
    slot_base: int
    param_base: int
    pass_slots: int
    row_passes: int = 0
    repeat_passes: int = 0


def reads_pad_record(network: IntNetwork, leg: IntMap) -> bool:
    """Whether a map reads the constant record outside the image."""
    return leg.source == INPUT and leg.geometry.padded and bool(network.input.pad_codes.any())


def has_pad_record(network: IntNetwork) -> bool:
    """Whether any map reads the constant record outside the image."""
    return any(reads_pad_record(network, leg) for layer in network.layers for leg in layer.maps)


def pad_sections(source: IntInput, config: Config) -> tuple[Section, Section]:
    """ACT and COUNT sections that hold the pad record at offset 0."""
    slots = -(-source.channels // config.banks)
    act = np.zeros((slots, config.banks), dtype=np.uint32)
    count = np.zeros(config.banks, dtype=np.uint32)
    for channel, code in enumerate(source.pad_codes):
        bank = channel % config.banks
        if code:
            act[count[bank], bank] = pack(EVENT_FIELDS, {"value": int(code), "index": channel // config.banks}, 1)[0]
            count[bank] += 1
    return act.reshape(-1), count


def param_words(layer: IntLayer, leg: Leg, config: Config) -> NDArray[np.uint32]:
    """Parameters (groups, 2, neuron_lanes) of one leg. Lanes without a channel can never fire."""
    gate = layer.gate
    if gate is not None and leg.gate is Gate.SIGMOID:
        factors = np.repeat(gate.factor, config.neuron_lanes)
        return _words(np.zeros_like(factors), np.zeros_like(factors), factors, config)
    if leg.position is None:
        return _words(np.zeros_like(layer.threshold), np.zeros_like(layer.threshold), layer.threshold, config)
    scaled = gate if gate is not None and leg.gate is Gate.SUM else layer.map_of(leg)
    return _words(scaled.gain, scaled.bias, layer.threshold, config)


def _words(
    gain: NDArray[np.int64], bias: NDArray[np.int64], threshold: NDArray[np.int64], config: Config
) -> NDArray[np.uint32]:
    lanes = config.neuron_lanes
    channels = len(gain)
    groups = -(-channels // lanes)
    silent = {"gain": 0, "threshold": (1 << (config.membrane_width - 1)) - 1}
    words = np.zeros((groups * lanes, PARAM_WORDS), dtype=np.uint32)
    words[channels:] = pack(PARAM_FIELDS, silent, PARAM_WORDS)
    for channel in range(channels):
        low = int(bias[channel]) & 0xFFFFFF
        values = {
            "gain": int(gain[channel]),
            "bias_low": low & 0xFFFF,
            "bias_high": low >> 16,
            "threshold": int(threshold[channel]),
        }
        words[channel] = pack(PARAM_FIELDS, values, PARAM_WORDS)
    return words.reshape(groups, lanes, PARAM_WORDS).transpose(0, 2, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One leg of one strip: what a LAYER descriptor says.

    Parameters
    ----------
    strip : Strip
        The rows that it computes.
    leg : Leg
    walk : Walk
    source, target : Ring
    place : Placement
    """

    strip: Strip
    leg: Leg
    walk: Walk
    source: Ring
    target: Ring
    place: Placement


def layer_descriptor(network: IntNetwork, job: Job, config: Config, gate_base: int) -> list[int]:
    """LAYER descriptor of one leg of one strip. ``gate_base``: the first word of the layer's gates, if it has any."""
    layer = network.layers[job.strip.layer]
    own, walk, legs = layer.map_of(job.leg), job.walk, layer.legs
    fires = job.leg == legs[-1]
    fields = {
        "opcode": Opcode.LAYER,
        "spiking": layer.spiking and fires,
        "static_input": job.source.tensor.timesteps < layer.timesteps,
        "pad_record": job.leg.position is not None and reads_pad_record(network, own),
        "store_skip": not fires,
        "add_skip": job.leg.gate is Gate.NONE and job.leg != legs[0],
        "gate": job.leg.gate,
        "gate_base": gate_base if job.leg.gate else 0,
        "skip_groups": -(-layer.channels // config.neuron_lanes) if len(legs) > 1 else 0,
        "layer": job.strip.layer,
        "r_shift": layer.gate.r_shift if layer.gate is not None and job.leg.gate is Gate.SUM else own.r_shift,
        "rows": job.strip.rows,
        "cols": walk.x.out,
        "timesteps": layer.timesteps,
        "code_max": layer.code_max,
        "w_base": job.place.w_base,
        "w_pass_stride": job.place.w_pass_stride,
        "n_passes": job.place.n_passes,
        "row_passes": job.place.row_passes,
        "repeat_passes": job.place.repeat_passes,
        "slot_base": job.place.slot_base,
        "pass_slots": job.place.pass_slots,
        "param_base": job.place.param_base,
        "tau_q": layer.tau_q,
        "soft_reset": fires and layer.spiking and layer.reset is not None,
        "reset": layer.reset or 0 if fires and layer.spiking else 0,
        **_source_fields(job),
        **_target_fields(job),
    }
    return pack(LAYER_FIELDS, fields, DESCRIPTOR_WORDS)


def _source_fields(job: Job) -> dict[str, int]:
    """Where a map reads."""
    source, y, x = job.source, job.walk.y, job.walk.x
    t_src = source.tensor.timesteps
    iy0 = min(job.strip.first * y.step + y.origin, y.bound)  # what lies beyond the source may lie anywhere there
    return {
        "t_src": t_src,
        "in_height": y.bound,
        "in_width": x.bound,
        "iy0": iy0,
        "ix0": x.origin,
        "y_step": y.step,
        "y_pool": y.pool,
        "y_tap": y.tap,
        "x_step": x.step,
        "x_pool": x.pool,
        "x_tap": x.tap,
        "n_pool_y": y.n_pool,
        "n_pool_x": x.n_pool,
        "n_tap_y": y.n_tap,
        "n_tap_x": x.n_tap,
        "src_row0": source.row_offset(iy0),
        "src_row_step": source.step_offset(y.step),
        "src_row_pool": source.step_offset(y.pool),
        "src_row_tap": source.step_offset(y.tap),
        "src_ring": source.records,
        "src_cnt_base": source.base.records,
        "src_act_base": source.base.words,
        "src_slots": source.tensor.slots,
        "src_col0": x.origin * t_src,
        "src_col_step": x.step * t_src,
        "src_col_pool": x.pool * t_src,
        "src_col_tap": x.tap * t_src,
    }


def _target_fields(job: Job) -> dict[str, int]:
    """Where a strip writes; of a map that leaves its current in the skip memory, where its layer will."""
    target = job.target
    return {
        "dst_act_base": target.base.words,
        "dst_cnt_base": target.base.records,
        "dst_ring": target.records,
        "dst_row0": target.row_offset(job.strip.first),
        "dst_row_stride": target.tensor.row_records,
        "dst_slots": target.tensor.slots,
    }


def load_fields(network: IntNetwork, source: Ring, load: Strip) -> dict[str, int]:
    """Where rows of the image are stored."""
    offset = source.row_offset(load.first)
    return {
        "in_channels": network.input.channels,
        "in_records": load.rows * source.tensor.row_records,
        "in_act_base": source.base.words + offset * source.tensor.slots,
        "in_cnt_base": source.base.records + offset,
        "in_slots": source.tensor.slots,
    }


def input_descriptor(network: IntNetwork, source: Ring, load: Strip) -> list[int]:
    """INPUT descriptor: the next rows of the image."""
    return pack(INPUT_FIELDS, {"opcode": Opcode.INPUT, **load_fields(network, source, load)}, DESCRIPTOR_WORDS)


def program_descriptor(network: IntNetwork, load: dict[str, int], config: Config, lengths: Sequence[int]) -> list[int]:
    """PROGRAM descriptor without its CRC.

    ``load``: of :func:`load_fields`, its first rows of the image. ``lengths``: descriptors, then words of SLOT, PARAM,
    WEIGHT, ACT, COUNT.
    """
    names = ("n_descriptors", "n_slot_entries", "n_param_words", "n_weight_words", "n_act_words", "n_count_words")
    fields = {
        "opcode": Opcode.PROGRAM,
        "version": CONTRACT_VERSION,
        **load,
        "n_outputs": network.layers[-1].channels,
        **dict(zip(names, lengths, strict=True)),
        "config_low": config.digest & 0xFFFFFFFF,
        "config_high": config.digest >> 32,
    }
    return pack(PROGRAM_FIELDS, fields, DESCRIPTOR_WORDS)


def end_descriptor() -> list[int]:
    """END descriptor."""
    return pack(END_FIELDS, {"opcode": Opcode.END}, DESCRIPTOR_WORDS)
