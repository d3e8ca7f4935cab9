"""How long a descriptor may take, whatever the image: the device's watchdog must not end a program that is right."""

from __future__ import annotations

from collections.abc import Mapping

from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import WATCHDOG_CYCLES
from reverb_fpga.hw.errors import InputError

__all__ = ["check_time", "most_cycles"]

_WAIT = 32  # between passes: more than any dependence between two updates of a group, or two tables
_ENDS = 256  # first table, last update, last event


def most_cycles(f: Mapping[str, int], groups: int, config: Config) -> int:
    """Upper bound of the cycles of a LAYER descriptor that has ``groups`` groups.

    Every source neuron sends an event, every neuron fires, each event that is stored delays a beat, and nothing of
    gather, neuron unit and emitter overlaps.
    """
    updates = f["rows"] * f["cols"] * f["timesteps"]
    steps = 1 if f["static_input"] else f["timesteps"]
    tables, passes = f["rows"] * f["cols"] * steps, f["n_passes"]
    sources = f["n_pool_y"] * f["n_pool_x"] * f["n_tap_y"] * f["n_tap_x"]
    if f["row_passes"]:  # a table is a source column
        tables, passes = f["rows"] * (f["cols"] * f["n_pool_x"] + f["n_tap_x"] - 1) * steps, f["row_passes"]
        sources = f["n_pool_y"] * f["n_tap_y"]
    beats = (sources * f["src_slots"] + 1) // 2 + 1  # of a bank, two events each
    gather = tables * (sources + passes * (beats + _WAIT))
    slots = f["n_passes"] * (slots_of(f, config) + _WAIT) + groups  # one more cycle for the last slot of a group
    entries = groups * (config.channels_per_bank_group + 1) + 1
    delays = groups * config.channels_per_bank_group
    return gather + updates * (slots + entries + delays) + _ENDS


def check_time(f: Mapping[str, int], groups: int, config: Config, where: str) -> None:
    """Raises :class:`InputError` if the descriptor may take longer than the device lets it."""
    most = most_cycles(f, groups, config)
    if most > WATCHDOG_CYCLES:
        raise InputError(
            f"{where}: may take {most:,} cycles, after {WATCHDOG_CYCLES:,} its watchdog ends it; compute fewer "
            "rows in a strip"
        )
