"""Sections of a program on their own: lengths, stray bits, the constant record, the parameters of a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program, section_capacity
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import (
    COUNT_BITS,
    DESCRIPTOR_WORDS,
    EVENT_FIELDS,
    PARAM_WORDS,
    SLOT_FIELDS,
    unpack,
)
from reverb_fpga.hw.errors import InputError

__all__ = ["ConstantRecord", "check_params", "check_sections", "constant_record"]


@dataclasses.dataclass(frozen=True)
class ConstantRecord:
    """The pad record: ``words`` of each bank, and ``records`` (0 if there is none), from address 0."""

    words: int
    records: int


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise InputError(f"{where}: {what}")


def check_sections(program: Program, config: Config, head: Mapping[str, int], where: str) -> None:
    """Lengths against descriptor 0 and the memories, and that no bit is set which a memory would not keep.

    A stray bit means nothing to whoever reads the section, but the device hashes what its memories hold.

    Raises
    ------
    InputError
        Names the section.
    """
    lanes = config.neuron_lanes
    units = {
        "desc": ("n_descriptors", DESCRIPTOR_WORDS, 1),
        "slot": ("n_slot_entries", 1, 1),
        "param": ("n_param_words", 1, PARAM_WORDS * lanes),
        "weight": ("n_weight_words", 1, config.banks * config.weight_words),
        "act": ("n_act_words", 1, config.banks),
        "count": ("n_count_words", 1, config.banks),
    }
    for name, limit in section_capacity(config).items():
        field, words, unit = units[name]
        length = len(getattr(program, name))
        _require(length <= limit, where, f"section {name} is larger than the memory of {config.name}")
        _require(head[field] * words == length, where, f"{field} is {head[field]}, its section has {length} words")
        _require(length % unit == 0, where, f"section {name} has {length} words, not a multiple of {unit}")
    for name, mask in _masks(config).items():
        words_of = getattr(program, name)
        stray = words_of & ~np.resize(mask, len(words_of))
        _require(not stray.any(), where, f"section {name} sets bits that have no meaning")


def _masks(config: Config) -> dict[str, NDArray[np.uint32]]:
    """Bits that the memories of a section keep, word by word, repeating."""
    slot = sum(((1 << field.width) - 1) << field.lsb for field in SLOT_FIELDS)
    event = sum(((1 << field.width) - 1) << field.lsb for field in EVENT_FIELDS)
    lanes = [max(0, min(32, config.lanes - 32 * word)) for word in range(config.weight_words)]
    if config.weight_strip:
        lanes[config.weight_memories] = config.strip_lanes
    masks = {"slot": [slot], "act": [event], "count": [(1 << COUNT_BITS) - 1]}
    masks["weight"] = [(1 << width) - 1 for width in lanes]
    return {name: np.array(mask, dtype=np.uint32) for name, mask in masks.items()}


def constant_record(program: Program, config: Config, where: str) -> ConstantRecord:
    """The constant record, after a check that it is one of the input's: ascending events of channels that there are.

    Raises
    ------
    InputError
        Says which bank.
    """
    banks = config.banks
    _require(len(program.count) in (0, banks), where, f"{len(program.count)} words of COUNT are not one record")
    words = len(program.act) // banks
    if not len(program.count):
        return ConstantRecord(words, 0)
    events = program.act.reshape(words, banks)
    for bank, count in enumerate(program.count):
        _require(count <= words, where, f"its constant record holds more events than words in bank {bank}")
        previous = -1
        for word in events[:count, bank]:
            event = unpack(EVENT_FIELDS, [int(word)])
            ok = event["value"] > 0 and event["index"] > previous
            ok = ok and event["index"] * banks + bank < program.input.channels
            _require(ok, where, f"its constant record has a misplaced event in bank {bank}")
            previous = event["index"]
    return ConstantRecord(words, 1)


def check_params(program: Program, config: Config, base: int, channels: int, where: str, *, fires: bool = True) -> None:
    """Parameters of a layer: they exist and fit the configuration, and lanes without a channel can never fire.

    Those of a leg (``fires`` is false) add nothing to the current of such lanes; nobody compares it with a threshold.

    Raises
    ------
    InputError
        Says what is wrong.
    """
    lanes = config.neuron_lanes
    groups = -(-channels // lanes)
    words = program.param[base * PARAM_WORDS * lanes : (base + groups) * PARAM_WORDS * lanes]
    _require(len(words) == groups * PARAM_WORDS * lanes, where, "its parameters do not exist")
    low, high = words.reshape(groups, PARAM_WORDS, lanes).transpose(1, 0, 2).reshape(PARAM_WORDS, -1).astype(np.int64)
    gain, bias, threshold = low & 0xFFFF, _signed24(low >> 16 | (high & 0xFF) << 16), _signed24(high >> 8)
    limit = 1 << (config.membrane_width - 1)
    _require(int(gain.max()) < 1 << config.gain_width, where, f"a gain does not fit {config.gain_width} bits")
    for name, values in (("bias", bias), ("threshold", threshold)):
        fits = -limit <= int(values.min()) and int(values.max()) < limit
        _require(fits, where, f"a {name} does not fit {config.membrane_width} bits")
    silent = (gain == 0) & (bias == 0) & ((threshold > 0) | (not fires))
    _require(bool(silent[channels:].all()), where, f"a channel beyond {channels} could fire")


def _signed24(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return (values ^ 0x800000) - 0x800000
