"""Programs of contract version 1, brought to the present one: they compute what they always did.

Version 2 changed what descriptor 0 says, not what runs: the CRC-32 covers descriptor 0 as well, and the digest of the
configuration includes the depth of z. So only descriptor 0 is written anew; everything else stays as it was, and is
verified as any other program.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping

import numpy as np

from reverb_fpga.compiler.program import Program, Section, sections_crc32
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import CONTRACT_VERSION, CRC_WORD, DESCRIPTOR_WORDS, PROGRAM_FIELDS, Opcode, pack
from reverb_fpga.hw.errors import InputError

__all__ = ["OLD_VERSION", "old_digest", "upgraded"]

OLD_VERSION = 1
_OLD_FIELDS = (
    "clusters", "lanes_per_cluster", "banks", "ports_per_bank", "neuron_lanes", "act_words", "count_words",
    "weight_rows", "param_groups", "layer_groups", "slot_entries", "descriptors", "table_entries", "max_timesteps",
    "acc_width", "z_width", "membrane_width", "gain_width", "fraction_bits",
)  # fmt: skip
_OLD_Z_DEPTH = 16  # was a constant of the gateware


def old_digest(config: Config) -> int | None:
    """Digest of a configuration under version 1; None if there was no such configuration."""
    if config.z_depth != _OLD_Z_DEPTH:
        return None
    fields = {name: getattr(config, name) for name in _OLD_FIELDS}
    text = json.dumps({"contract": OLD_VERSION, **fields}, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def upgraded(program: Program, config: Config) -> Program:
    """The same program for ``config`` under the present contract.

    Raises
    ------
    InputError
        If its descriptor 0 is not that of an intact program of version 1 for this configuration.
    """
    opcode, head = program.descriptor(0) if program.n_descriptors else (Opcode.END, {})
    if opcode is not Opcode.PROGRAM or head["version"] != OLD_VERSION:
        raise InputError(f"does not start with PROGRAM of contract version {OLD_VERSION}")
    if head["config_low"] | head["config_high"] << 32 != old_digest(config):
        raise InputError("configuration digest differs")
    if head["crc32"] != _old_crc32(program):
        raise InputError("its sections do not match their checksum")
    desc = program.desc.copy()
    desc[:DESCRIPTOR_WORDS] = pack(PROGRAM_FIELDS, {**head, **_identity(config)}, DESCRIPTOR_WORDS)
    result = dataclasses.replace(program, config_name=config.name, config_digest=config.digest, desc=desc)
    desc[CRC_WORD] = sections_crc32(result.sections())
    return result


def _identity(config: Config) -> Mapping[str, int]:
    """Fields of descriptor 0 that name contract and configuration."""
    low, high = config.digest & 0xFFFFFFFF, config.digest >> 32
    return {"version": CONTRACT_VERSION, "config_low": low, "config_high": high}


def _old_crc32(program: Program) -> int:
    """CRC-32 of version 1: without descriptor 0."""
    sections: list[Section] = [words for _, words in program.sections()]
    sections[0] = sections[0][DESCRIPTOR_WORDS:]
    return zlib.crc32(b"".join(np.ascontiguousarray(words, dtype="<u4").tobytes() for words in sections))
