"""What a configuration may be: everything it accepts can be described by the contract and elaborated."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
from amaranth.back import rtlil
from amaranth.hdl import UnusedElaboratable

from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.core import Core
from reverb_fpga.hw.errors import InputError

TINY = preset("tiny")

REFUSED = [
    ({"max_timesteps": 64}, r"max_timesteps = 64 is not in 1\.\.31"),
    ({"max_timesteps": 32}, "max_timesteps = 32 is not in"),
    ({"max_timesteps": 0}, "max_timesteps = 0 is not in"),
    ({"act_words": 1 << 17}, r"act_words = 131072 is not in 1\.\.65536"),
    ({"act_words": 0}, "act_words = 0 is not in"),
    ({"count_words": (1 << 16) + 1}, "count_words = 65537 is not in"),
    ({"weight_rows": (1 << 16) + 1}, "weight_rows = 65537"),
    ({"param_groups": (1 << 14) + 1}, "param_groups = 16385"),
    ({"layer_groups": 1025}, "layer_groups = 1025"),
    ({"layer_groups": 256}, "layer_groups = 256 are 512 channels in a bank, the index of an event has 8 bits"),
    ({"slot_entries": (1 << 14) + 1}, "slot_entries = 16385"),
    ({"descriptors": 2}, "descriptors = 2 is not in 3"),
    ({"descriptors": 32769}, "descriptors = 32769 are 1048608 words on the host bus of 1048576"),
    ({"table_entries": 1}, "table_entries = 1 is not in"),
    ({"table_entries": 2048}, "table_entries = 2048 is not in"),
    ({"table_entries": 48}, "table_entries = 48 is not a power of two"),
    ({"membrane_width": 28}, r"membrane_width = 28 is not in 10\.\.24"),
    ({"gain_width": 17}, r"gain_width = 17 is not in 1\.\.16"),
    ({"z_width": 36}, r"z_width = 36 is not in 2\.\.35"),
    ({"acc_width": 0}, "acc_width = 0 is not in"),
    ({"fraction_bits": 0}, "fraction_bits = 0 is not in"),
    ({"fraction_bits": 24}, r"fraction_bits = 24 is not in 1\.\.23"),
    ({"membrane_width": 12}, r"skip_width = 18 is not in 10\.\.12"),
    ({"skip_words": (1 << 16) + 1}, "skip_words = 65537"),
    ({"z_depth": 12}, "z_depth = 12 is not a power of two"),
    ({"neuron_lanes": 1, "banks": 1}, "neuron_lanes = 1 is not in 2"),
    ({"neuron_lanes": 16}, r"neuron_lanes = 16 must be a multiple of banks = 2 and divide lanes = 8"),
    ({"banks": 3}, "banks = 3 is not a power of two"),
    ({"ports_per_bank": 4}, r"ports_per_bank = 4 is not in 2\.\.2"),
    ({"taps": 2}, "taps = 2 is neither 1 nor 3"),
    ({"taps": 4}, r"taps = 4 is not in 1\.\.3"),
    ({"taps": 3, "clusters": 8}, "a pass drains 24 groups, z has only z_depth = 16 cells"),
    ({"clusters": 0}, "clusters = 0 is not in"),
    ({"clusters": 48, "z_depth": 64}, "192 lanes are 6 words of weights a row, which is not a power of two"),
    ({"clusters": 32}, "a pass drains 32 groups, z has only z_depth = 16 cells"),
    ({"banks": 32, "neuron_lanes": 32, "clusters": 8, "act_words": 1 << 16}, "act_words = 65536 are 2097152 words"),
    (
        {"neuron_lanes": 64, "clusters": 16, "layer_groups": 8, "param_groups": 1 << 14},
        "param_groups = 16384 are 2097152 words",
    ),
    ({"clusters": 16, "weight_rows": 1 << 16, "banks": 8, "neuron_lanes": 8}, "weight_rows = 65536 are 1048576 words"),
    ({"act_words": 4096.0}, "act_words = 4096.0 is not in"),
    ({"act_words": True}, "act_words = True is not in"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_the_contract_has_no_bits_for_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=f"configuration tiny: {message}"):
        dataclasses.replace(TINY, **changes)


SMALLEST = {
    "clusters": 1, "lanes_per_cluster": 2, "banks": 1, "neuron_lanes": 2, "act_words": 1, "count_words": 1,
    "weight_rows": 1, "param_groups": 1, "layer_groups": 1, "slot_entries": 1, "descriptors": 3, "table_entries": 2,
    "max_timesteps": 1, "acc_width": 1, "z_width": 2, "membrane_width": 10, "gain_width": 1, "fraction_bits": 1,
    "skip_words": 0, "skip_width": 10, "z_depth": 1, "taps": 1,
}  # fmt: skip
LARGEST = {
    "layer_groups": 128, "max_timesteps": 31, "acc_width": 32, "z_width": 35, "fraction_bits": 23,
    "table_entries": 1024, "skip_width": 24, "z_depth": 1024, "weight_rows": 1 << 16,
    "slot_entries": 1 << 14, "count_words": 1 << 16, "taps": 3,
}  # fmt: skip


def test_row_mode_counts_in_the_digest_and_its_absence_does_not() -> None:
    """So programs and bitstreams from before there was a choice go on."""
    assert (
        dataclasses.replace(TINY, taps=3, neuron_ways=4, weight_strip=1).digest
        == preset("tiny-row").digest
        != TINY.digest
    )
    assert TINY.digest == 17094003360052231013


def elaborates(config: Config) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        return "module" in rtlil.convert(Core(config))


def test_the_smallest_configuration_elaborates() -> None:
    assert elaborates(dataclasses.replace(TINY, **SMALLEST))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [LARGEST, *({name: value} for name, value in {**SMALLEST, **LARGEST}.items())])
def test_extreme_configurations_elaborate(changes: dict[str, int]) -> None:
    try:
        config = dataclasses.replace(TINY, **changes)
    except InputError:  # alone, it contradicts the others
        pytest.skip("not a configuration")
    assert elaborates(config)
