"""What an overlay takes of a board, before anything is synthesised.

Cells of every part of the overlay are a linear function of a few figures of its configuration; the coefficients were
fitted to what yosys reports part by part (``benchmarks/synthesis.py``). Block RAM and multipliers are counted. The
clock is what routed builds reached. How far all of it is from real builds stands in ``docs/boards.md``; a test holds
the estimates, and the errors that are given here, against those builds (``benchmarks/builds.jsonl``).
"""

from __future__ import annotations

import dataclasses
import re

from reverb_fpga.compiler.ebr import block_rams, stacked
from reverb_fpga.hw.boards.table import Board, Flow, LinkKind, lut_count
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import EVENT_INDEX_BITS, EVENT_VALUE_BITS
from reverb_fpga.hw.errors import InputError

__all__ = [
    "CLOCKS", "ERRORS", "PARTS", "Clock", "Estimate", "Resource", "clock_words", "estimate", "features",
]  # fmt: skip

ERRORS = {"LUT4": 4.0, "flip-flops": 6.0, "block RAM": 0.0, "multipliers": 0.0}
"""Percent that an estimate was off at most, over builds of today's gateware, fitted or not, and of decision 15's, which
has a few percent less in it."""

_GRADE = re.compile(r"-\d+F-(\d)")
_DEVICES = {24_288: 28, 43_848: 72, 83_640: 156}
"""Multipliers of an ECP5 by its LUT4, of which it has as many flip-flops."""
_RAM_DEPTH = 16  # of distributed RAM
_RING_BLOCK = 2048  # bytes of the link's ring in a block RAM
_MULTIPLIERS_OF_PAIR = 4
_MULTIPLIERS = 5  # of gather, neuron unit and sequencer

PARTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "lane_cluster": ((10.9, 13.03), (10.3, 41.9)),
    "row_cluster": ((15.6, 0.0), (15.06, 0.0)),
    "pair": ((817.76, 129.5), (1074.61, 2.27)),
    "neuron": ((1645.89, 296.54, 10.46), (2215.63, 329.74, 19.54)),
    "gather": ((254.82, 2051.77, 0.18), (561.02, 954.79, 0.0)),
    "link": ((3601.93,), (1495.0,)),
    "rest": ((2748.86,), (5476.47,)),
}
"""Coefficients of :func:`features`, for LUT4 and for flip-flops: what ``benchmarks/synthesis.py`` prints."""

_USB = (1585, 855)  # LUT4 and flip-flops that USB takes beyond a UART: OrangeCrab-25F less ULX3S-12F, routed


@dataclasses.dataclass(frozen=True)
class Resource:
    """How much of a resource an overlay takes, and how much there is; `error` in percent (:data:`ERRORS`)."""

    name: str
    used: int
    available: int
    error: float

    @property
    def share(self) -> float:
        """0..1, or more where it does not fit."""
        return self.used / self.available


@dataclasses.dataclass(frozen=True)
class Clock:
    """MHz that place and route reaches: the mean of `builds` routed ones, their least and their most.

    Builds of one configuration differ by more than any figure of a configuration explains, by seed and by version, so
    the mean is the model. They asked for 50 to 75 MHz; one that asks for less may reach less.
    """

    mhz: float
    low: float
    high: float
    builds: int


CLOCKS = {"6": Clock(74.6, 61.77, 82.73, 9), "8": Clock(93.7, 88.43, 98.98, 2)}
"""By speed grade: of decision 15 and later where there are such builds. No build of grade 7 has been routed."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one configuration on one board.

    Parameters
    ----------
    resources : tuple of Resource
        LUT4 (carry and LUT RAM included), flip-flops, block RAM, multipliers.
    clock_mhz : float
        At which rates are computed: asked for, or the board's usual one.
    clock : Clock or None
        That a build is likely to reach; None where none of this speed grade was routed.
    """

    board: str
    config: str
    resources: tuple[Resource, ...]
    clock_mhz: float
    clock: Clock | None

    @property
    def fits(self) -> bool:
        """Whether nothing is beyond the device."""
        return all(resource.used <= resource.available for resource in self.resources)


def estimate(board: Board, config: Config, clock_mhz: float | None = None, link: LinkKind | None = None) -> Estimate:
    """Estimate what ``build`` would find, with the board's usual link or another of its own.

    Raises
    ------
    InputError
        For a board whose tools are others, for their cells are not these.
    """
    if board.flow is not Flow.TRELLIS:
        raise InputError(f"{board.name}: estimates are of boards that are built here (ECP5), not by {board.flow.value}")
    luts = lut_count(board.device)
    if luts not in _DEVICES or board.bram is None:
        raise InputError(f"{board.name}: what a {board.device} holds is not known here")
    luts_of_link, flops_of_link = _USB if (link or board.links[0]) is LinkKind.USB else (0, 0)
    used = (
        ("LUT4", _sum(config, 0) + luts_of_link, luts),
        ("flip-flops", _sum(config, 1) + flops_of_link, luts),
        ("block RAM", _blocks(config, board), board.bram),
        (
            "multipliers",
            _MULTIPLIERS_OF_PAIR * (config.neuron_lanes // config.neuron_ways) + _MULTIPLIERS,
            _DEVICES[luts],
        ),
    )
    resources = tuple(Resource(*entry, ERRORS[entry[0]]) for entry in used)
    return Estimate(board.name, config.name, resources, clock_mhz or board.clock_mhz, CLOCKS.get(_grade(board)))


def _grade(board: Board) -> str:
    """Speed grade: the digit after the size, as in LFE5U-85F-6BG381C."""
    found = _GRADE.search(board.device)
    return found[1] if found else ""


def clock_words(guess: Estimate) -> str:
    """The clock, in words."""
    clock = guess.clock
    if clock is None:
        return "clock: no estimate, for no build of this speed grade has been routed"
    return (
        f"clock: {clock.mhz:.0f} MHz, {clock.low - clock.mhz:+.0f} to {clock.high - clock.mhz:+.0f} "
        f"({clock.builds} routed builds)"
    )


def features(config: Config) -> dict[str, tuple[float, ...]]:
    """By part, the figures that its cells are a linear function of."""
    pairs = config.neuron_lanes // config.neuron_ways
    channels = config.row_lanes + 1  # and one that sums the values
    sides = ((channels * config.taps * config.ports, channels * config.taps), (0, 0))
    lanes, row_lanes = sides if config.taps == 1 else reversed(sides)
    return {
        "lane_cluster": lanes,
        "row_cluster": row_lanes,
        "pair": (pairs, pairs * -(-config.layer_groups * config.neuron_ways // (2 * _RAM_DEPTH))),  # membranes
        "neuron": (1, config.neuron_lanes, config.lanes),
        "gather": (1, config.banks, _selected(config)),
        "link": (1,),
        "rest": (1,),
    }


def _selected(config: Config) -> float:
    """Bits that are chosen among block RAMs above each other, times the number of those beyond the first."""
    weights = config.lanes * (stacked(config.lanes, config.weight_rows) - 1)
    events = EVENT_VALUE_BITS + EVENT_INDEX_BITS
    return config.ports * (weights + events * (stacked(events, config.act_words) - 1))


def _sum(config: Config, kind: int) -> int:
    found = features(config)
    return round(sum(sum(c * f for c, f in zip(PARTS[part][kind], found[part], strict=True)) for part in found))


def _blocks(config: Config, board: Board) -> int:
    """On paper; the link's ring is as large as the board has it."""
    uses = block_rams(config) | {"link buffers": 1 + -(-board.ring // _RING_BLOCK)}
    return sum(uses.values())
