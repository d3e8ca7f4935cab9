"""Configuration of the overlay: one frozen dataclass and a preset per board.

Needs neither amaranth nor numpy, so that the host and the compiler can read it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

from .errors import InputError

__all__ = ["PRESETS", "Config", "named", "preset"]


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of one overlay. Every program is compiled for exactly one of these (see :attr:`digest`).

    Parameters
    ----------
    name : str
        Preset name; not part of the digest.
    clusters : int
        Groups of lanes, each a module of its own with its own copy of the beat registers (fan-out).
    lanes_per_cluster : int
        Output channels per cluster.
    banks : int
        Activation and weight banks. Channel ``c`` lives in bank ``c % banks``. Power of two.
    ports_per_bank : int
        Event ports that share one bank's queue (2: both ports of a true-dual-port memory).
    neuron_lanes : int
        Neurons updated side by side by the neuron unit. A multiple of ``banks``, divides ``lanes``. Power of two.
    act_words, count_words, weight_rows : int
        Depth of each bank of the activation, count and weight memory.
    param_groups : int
        Groups of ``neuron_lanes`` channels whose parameters fit on chip.
    layer_groups : int
        Groups one layer may have: depth of the membrane memory.
    slot_entries, descriptors : int
        Capacity of the slot program and of the schedule.
    table_entries : int
        Source records one output position may gather (taps times pooled positions). Power of two.
    max_timesteps : int
        Largest T.
    acc_width, z_width, membrane_width, gain_width : int
        Bits of P (unsigned), z (signed), membrane/bias/threshold (signed) and current gain m (unsigned).
    fraction_bits : int
        F: membrane fraction bits below one activation code.
    skip_words : int
        Depth of the skip memory: (position, step, group) of one strip of a layer with a shortcut. 0: there is none.
    skip_width : int
        S: bits of a lane of the skip memory (signed, membrane units). Not more than ``membrane_width``.
    z_depth : int
        Cells of the memory of z, addressed by ``group % z_depth``. A group holds its cell from its first slot to the
        end of the pass of its last one. At least :attr:`slots`. Power of two.
    """

    name: str
    clusters: int
    lanes_per_cluster: int
    banks: int
    ports_per_bank: int = 2
    neuron_lanes: int
    act_words: int
    count_words: int
    weight_rows: int
    param_groups: int
    layer_groups: int
    slot_entries: int
    descriptors: int
    table_entries: int = 64
    max_timesteps: int = 16
    acc_width: int = 22
    z_width: int = 28
    membrane_width: int = 24
    gain_width: int = 16
    fraction_bits: int = 8
    skip_words: int = 0
    skip_width: int = 18
    z_depth: int = 16

    def __post_init__(self) -> None:
        for field in ("banks", "neuron_lanes", "table_entries", "lanes_per_cluster", "z_depth"):
            if not _is_power_of_two(getattr(self, field)):
                raise InputError(f"configuration {self.name}: {field} = {getattr(self, field)} is not a power of two")
        if self.ports_per_bank != 2:
            raise InputError(f"configuration {self.name}: ports_per_bank = {self.ports_per_bank}, only 2 is built")
        if self.neuron_lanes % self.banks or self.lanes % self.neuron_lanes:
            raise InputError(
                f"configuration {self.name}: neuron_lanes = {self.neuron_lanes} must be a multiple of "
                f"banks = {self.banks} and divide lanes = {self.lanes}"
            )
        if self.slots > self.z_depth:
            raise InputError(
                f"configuration {self.name}: a pass drains {self.slots} groups, "
                f"z has only z_depth = {self.z_depth} cells"
            )
        if self.layer_groups * self.neuron_lanes // self.banks > 256:
            raise InputError(f"configuration {self.name}: channel index in a bank needs more than 8 bits")
        if not 0 <= self.skip_words <= 1 << 16:
            raise InputError(f"configuration {self.name}: skip_words = {self.skip_words} is not in 0..65536")
        if not 10 <= self.skip_width <= self.membrane_width:  # a gate has 9 bits and a sign
            raise InputError(
                f"configuration {self.name}: skip_width = {self.skip_width} is not in 10..{self.membrane_width}"
            )

    @property
    def lanes(self) -> int:
        """N: output channels (or planes of them) computed side by side."""
        return self.clusters * self.lanes_per_cluster

    @property
    def ports(self) -> int:
        """M: events consumed per cycle at most."""
        return self.banks * self.ports_per_bank

    @property
    def additions_per_cycle(self) -> int:
        """M times N."""
        return self.ports * self.lanes

    @property
    def slots(self) -> int:
        """Neuron-lane groups that one pass of the lane array drains."""
        return self.lanes // self.neuron_lanes

    @property
    def channels_per_bank_group(self) -> int:
        """Channels of one group that fall into one bank."""
        return self.neuron_lanes // self.banks

    @property
    def weight_words(self) -> int:
        """32-bit words per weight row on the host bus."""
        return (self.lanes + 31) // 32

    @property
    def digest(self) -> int:
        """64-bit hash of everything but the name, and of the contract version."""
        from .contract import CONTRACT_VERSION

        fields = dataclasses.asdict(self)
        del fields["name"]
        text = json.dumps({"contract": CONTRACT_VERSION, **fields}, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


PRESETS: dict[str, Config] = {
    config.name: config
    for config in (
        Config(
            name="tiny", clusters=2, lanes_per_cluster=4, banks=2, neuron_lanes=4,
            act_words=4096, count_words=1024, weight_rows=2048, param_groups=128, layer_groups=32,
            slot_entries=256, descriptors=64, max_timesteps=8, skip_words=256,
        ),
        Config(
            name="ulx3s-12f", clusters=1, lanes_per_cluster=16, banks=4, neuron_lanes=4,
            act_words=5120, count_words=2048, weight_rows=5120, param_groups=256, layer_groups=128,
            slot_entries=512, descriptors=32, skip_words=512,
        ),
        Config(
            name="ulx3s-25f", clusters=2, lanes_per_cluster=16, banks=4, neuron_lanes=4,
            act_words=4096, count_words=2048, weight_rows=3072, param_groups=256, layer_groups=128,
            slot_entries=512, descriptors=32, skip_words=512,
        ),
        Config(
            name="ulx3s-85f", clusters=4, lanes_per_cluster=16, banks=4, neuron_lanes=16,
            act_words=14336, count_words=2048, weight_rows=7168, param_groups=256, layer_groups=64,
            slot_entries=512, descriptors=64, skip_words=512,
        ),
    )
}  # fmt: skip
"""Preset per board; ``tiny`` is for tests."""


def preset(name: str) -> Config:
    """Preset by name.

    Raises
    ------
    InputError
        If there is none of that name; lists those there are.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise InputError(f"no configuration {name!r}; there are: {', '.join(PRESETS)}") from None


def named(digest: int) -> str:
    """What a configuration is called, for messages."""
    for config in PRESETS.values():
        if config.digest == digest:
            return f"configuration {config.name}"
    return "a configuration that this version does not have"
