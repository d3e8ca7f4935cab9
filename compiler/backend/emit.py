"""Sections of a program: descriptors, slot program, parameters, weights, constant records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.allocation import Ring
from reverb_fpga.compiler.backend.geometry import Walk
from reverb_fpga.compiler.backend.schedule import Strip
from reverb_fpga.compiler.intnet import IntInput, IntLayer, IntNetwork
from reverb_fpga.compiler.program import Section
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    CONTRACT_VERSION,
    DESCRIPTOR_WORDS,
    END_FIELDS,
    EVENT_FIELDS,
    LAYER_FIELDS,
    PARAM_FIELDS,
    PARAM_WORDS,
    PROGRAM_FIELDS,
    Opcode,
    pack,
)

__all__ = ["Placement", "end_descriptor", "layer_descriptor", "pad_sections", "param_words", "program_descriptor"]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a layer's constants lie and how it is tiled."""

    w_base: int
    w_pass_stride: int
    n_passes: int
    slot_base: int
    param_base: int


def has_pad_record(network: IntNetwork) -> bool:
    """Whether the first layer reads a constant record outside the image."""
    return network.layers[0].padding > 0 and bool(network.input.pad_codes.any())


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


def param_words(layer: IntLayer, config: Config) -> NDArray[np.uint32]:
    """Parameters (groups, 2, neuron_lanes). Lanes without a channel can never fire."""
    lanes = config.neuron_lanes
    channels = len(layer.gain)
    groups = -(-channels // lanes)
    silent = {"gain": 0, "threshold": (1 << (config.membrane_width - 1)) - 1}
    words = np.zeros((groups * lanes, PARAM_WORDS), dtype=np.uint32)
    words[channels:] = pack(PARAM_FIELDS, silent, PARAM_WORDS)
    for channel in range(channels):
        bias = int(layer.bias[channel]) & 0xFFFFFF
        values = {
            "gain": int(layer.gain[channel]),
            "bias_low": bias & 0xFFFF,
            "bias_high": bias >> 16,
            "threshold": int(layer.threshold[channel]),
        }
        words[channel] = pack(PARAM_FIELDS, values, PARAM_WORDS)
    return words.reshape(groups, lanes, PARAM_WORDS).transpose(0, 2, 1)


def layer_descriptor(
    network: IntNetwork, strip: Strip, walk: Walk, rings: Sequence[Ring], place: Placement
) -> list[int]:
    """LAYER descriptor of one strip. ``rings`` holds the source and the destination of the layer."""
    layer = network.layers[strip.layer]
    source, target = rings
    y, x = walk.y, walk.x
    t_src = source.tensor.timesteps
    iy0 = strip.first * y.step + y.origin
    fields = {
        "opcode": Opcode.LAYER,
        "spiking": layer.spiking,
        "static_input": t_src < network.timesteps,
        "pad_record": strip.layer == 0 and has_pad_record(network),
        "layer": strip.layer,
        "r_shift": layer.r_shift,
        "rows": strip.rows,
        "cols": x.out,
        "timesteps": network.timesteps,
        "t_src": t_src,
        "in_height": y.bound,
        "in_width": x.bound,
        "code_max": layer.code_max,
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
        "src_row_step": source.row_offset(y.step),
        "src_row_pool": source.row_offset(y.pool),
        "src_row_tap": source.row_offset(y.tap),
        "src_ring": source.records,
        "src_cnt_base": source.base.records,
        "src_act_base": source.base.words,
        "src_slots": source.tensor.slots,
        "src_col0": x.origin * t_src,
        "src_col_step": x.step * t_src,
        "src_col_pool": x.pool * t_src,
        "src_col_tap": x.tap * t_src,
        "dst_act_base": target.base.words,
        "dst_cnt_base": target.base.records,
        "dst_ring": target.records,
        "dst_row0": target.row_offset(strip.first),
        "dst_row_stride": target.tensor.row_records,
        "dst_slots": target.tensor.slots,
        "w_base": place.w_base,
        "w_pass_stride": place.w_pass_stride,
        "n_passes": place.n_passes,
        "slot_base": place.slot_base,
        "param_base": place.param_base,
        "tau_q": layer.tau_q,
    }
    return pack(LAYER_FIELDS, fields, DESCRIPTOR_WORDS)


def program_descriptor(network: IntNetwork, source: Ring, config: Config, lengths: Sequence[int]) -> list[int]:
    """PROGRAM descriptor without its CRC; ``lengths``: descriptors, then words of SLOT, PARAM, WEIGHT, ACT, COUNT."""
    names = ("n_descriptors", "n_slot_entries", "n_param_words", "n_weight_words", "n_act_words", "n_count_words")
    fields = {
        "opcode": Opcode.PROGRAM,
        "version": CONTRACT_VERSION,
        "in_channels": network.input.channels,
        "in_records": source.records,
        "in_act_base": source.base.words,
        "in_cnt_base": source.base.records,
        "in_slots": source.tensor.slots,
        "n_outputs": network.layers[-1].weight.shape[0],
        **dict(zip(names, lengths, strict=True)),
        "config_low": config.digest & 0xFFFFFFFF,
        "config_high": config.digest >> 32,
    }
    return pack(PROGRAM_FIELDS, fields, DESCRIPTOR_WORDS)


def end_descriptor() -> list[int]:
    """END descriptor."""
    return pack(END_FIELDS, {"opcode": Opcode.END}, DESCRIPTOR_WORDS)
