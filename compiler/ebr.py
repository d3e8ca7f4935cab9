"""Block RAM of an overlay by use, on paper (``docs/architecture.md``): ECP5 blocks of 18 Kbit."""

from __future__ import annotations

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import COUNT_BITS, COUNTERS, DESCRIPTOR_WORDS, EVENT_INDEX_BITS, EVENT_VALUE_BITS

__all__ = ["DEVICE_BLOCKS", "block_rams", "stacked"]

DEVICE_BLOCKS = {"ulx3s-12f": 56, "ulx3s-25f": 56, "ulx3s-85f": 208, "ulx3s-85f-row": 208}
"""Blocks of the device that a preset is for."""

_TRUE_DUAL = {1: 16384, 2: 8192, 4: 4096, 9: 2048, 18: 1024}  # width: depth
_SIMPLE_DUAL = {**_TRUE_DUAL, 36: 512}
_SLOT_BITS = 19
_LINK_BLOCKS = 2


def _blocks(width: int, depth: int, shapes: dict[int, int]) -> int:
    return min(-(-width // w) * -(-depth // d) for w, d in shapes.items())


def stacked(width: int, depth: int) -> int:
    """Blocks above each other in a true dual-port memory: of the arrangements with the fewest blocks, the flattest."""
    fewest = _blocks(width, depth, _TRUE_DUAL)
    return min(-(-depth // d) for w, d in _TRUE_DUAL.items() if -(-width // w) * -(-depth // d) == fewest)


def _weight_widths(config: Config) -> list[int]:
    """Of the memories that hold a bank's weight rows: 32 lanes each, the last what is left; then that of the strip."""
    widths = [min(32, config.lanes - first) for first in range(0, config.lanes, 32)]
    return [*widths, config.strip_lanes] if config.weight_strip else widths


def block_rams(config: Config) -> dict[str, int]:
    """Blocks by use. Membranes, tables and z are distributed RAM."""
    events = EVENT_VALUE_BITS + EVENT_INDEX_BITS
    banks, ways = config.banks, config.neuron_ways
    pairs = config.neuron_lanes // ways
    return {
        "weights": banks * sum(_blocks(width, config.weight_rows, _TRUE_DUAL) for width in _weight_widths(config)),
        "activations": banks * _blocks(events, config.act_words, _TRUE_DUAL),
        "counts": banks * _blocks(COUNT_BITS, config.count_words, _SIMPLE_DUAL),
        "neuron parameters": 2 * pairs * _blocks(32, config.param_groups * ways, _SIMPLE_DUAL),
        "descriptors": _blocks(32, config.descriptors * DESCRIPTOR_WORDS, _SIMPLE_DUAL),
        "skip memory": pairs * _blocks(config.skip_width, config.skip_words * ways, _SIMPLE_DUAL),
        "slot program": _blocks(_SLOT_BITS, config.slot_entries, _SIMPLE_DUAL),
        "counters": _blocks(32, config.descriptors * COUNTERS, _SIMPLE_DUAL),
        "link buffers": _LINK_BLOCKS,
    }
