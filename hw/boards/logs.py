"""What the logs of yosys and nextpnr say: progress lines, critical path, block RAM by use."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable

__all__ = [
    "FROM_CACHE", "TIMING_MISSED", "BuildPhase", "PlacementWatch", "bram_by_use", "critical_path", "nextpnr_phase",
    "yosys_phase",
]  # fmt: skip


TIMING_MISSED = "timing not met"
"""Begins the message of a placement that could be routed, but not for the clock."""
FROM_CACHE = "taken from the cache"
"""Step of a build that there was nothing to do for."""


@dataclasses.dataclass(frozen=True)
class BuildPhase:
    """Where a tool is.

    Parameters
    ----------
    step : str
        What it does.
    detail : str
        The figure that it reported last; empty if none.
    """

    step: str
    detail: str = ""


_YOSYS_PASS = re.compile(r"^(\d+)\.(\d+)\. Executing ([A-Z0-9_]+) pass")
_CELLS = {"TRELLIS_COMB": "LUT4", "TRELLIS_FF": "flip-flops", "DP16KD": "block RAMs", "MULT18X18D": "multipliers"}
_UTILISATION = re.compile(r"^Info:\s+(TRELLIS_COMB|TRELLIS_FF|DP16KD|MULT18X18D):\s*(\d+)/\s*(\d+)")
_PLACER = re.compile(r"^Info: overlap: COMB=([\d.]+)%")
_ANNEAL = re.compile(r"^Info:\s+at iteration #(\d+): temp = .*wirelen = (\d+)")
_ROUTER = re.compile(r"^Info:\s+iter=(\d+) wires=\d+ overused=(\d+)(?:.* tmgfail=(\d+))?")
_ROUTER_PATIENCE, _ROUTER_GROWTH, _ROUTER_FEW = 15, 4, 100  # iterations; times the fewest wires, and so many at least
_TIMING_PATIENCE = 60  # iterations with neither fewer slow connections nor fewer overused wires
_FMAX = re.compile(r"^Info: Max frequency for clock\s+'(.+)': ([\d.]+) MHz")
_STEPS = (
    (re.compile(r"^Info: Packing"), "packing"),
    (re.compile(r"^Info: Running Static placer"), "placing"),
    (re.compile(r"^Info: Strict legalising"), "placing"),
    (re.compile(r"^Info: Running simulated annealing"), "refining the placement"),
    (re.compile(r"^Info: Running router2"), "routing"),
    (re.compile(r"^Info: Running router1"), "checking the routes"),
)
_SINK_OR_SOURCE = re.compile(r"^Info:\s+[\w-]+\s+([\d.]+)\s+([\d.]+)\s+(Source|Net)\s+(\S+)")
_MEMORY_TAIL = re.compile(r"(\.(mem|memory|store|store_memory|dual_read_ram_\d+))?(\.\d+)+$")
_WRAPPERS = re.compile(r"^((core|overlay)\.)+")  # the board's wrapper and the top level call what they wrap so
_ARRAY_INDEX = re.compile(r"_?\d+")


class PlacementWatch:
    """Tells from nextpnr's log when it will not come to an end.

    A design larger than the device is placed all the same, for hours. And router2 goes on for ever where wires that
    want the same place grow in number again: a placement that can be routed has fewer of them from one iteration to the
    next, give or take a few near the end; one that cannot raises the price of the places until everything moves. Nor
    does it end where connections stay too slow for the clock, when neither they nor crowded wires become fewer.
    """

    def __init__(self) -> None:
        self._best = (0, 0)  # iteration, wires
        self._least_slow = (0, 0)  # iteration, connections
        self._estimate = ""

    def follow(self, line: str) -> str | None:
        """What is wrong, once it is, and what to do."""
        if (match := _UTILISATION.match(line)) is not None and int(match[2]) > int(match[3]):
            return (
                f"the overlay takes {int(match[2]):,} of the device's {int(match[3]):,} {_CELLS[match[1]]}; it needs a "
                "smaller configuration, or a larger board"
            )
        if match := _FMAX.match(line):
            self._estimate = f" ({match[2]} MHz were estimated before routing)"
        if (match := _ROUTER.match(line)) is None:
            return None
        iteration = int(match[1])
        return self._crowded(iteration, int(match[2])) or self._slow(iteration, int(match[3] or 0))

    def _crowded(self, iteration: int, wires: int) -> str | None:
        best, fewest = self._best
        if not best or iteration <= best or wires < fewest:
            self._best = (iteration, wires)
        elif iteration - best >= _ROUTER_PATIENCE and wires >= max(_ROUTER_FEW, _ROUTER_GROWTH * fewest):
            return (
                f"the router does not converge: {fewest} wires overused in iteration {best}, {wires} in {iteration}; "
                "try another --seed, or more --tries"
            )
        return None

    def _slow(self, iteration: int, connections: int) -> str | None:
        best, fewest = self._least_slow
        if not connections or iteration <= best or connections < fewest or not fewest:
            self._least_slow = (iteration, connections)
        elif iteration - max(best, self._best[0]) >= _TIMING_PATIENCE:
            return (
                f"{TIMING_MISSED}: {fewest} connections are too slow for the clock{self._estimate}, and routing them "
                f"again does not help in {_TIMING_PATIENCE} iterations; try a lower --clock, or more --tries"
            )
        return None


def yosys_phase(line: str) -> BuildPhase | None:
    """Progress that a line of a yosys log tells, if any."""
    if match := _YOSYS_PASS.match(line):
        return BuildPhase("synthesis", f"pass {match[1]}.{match[2]} {match[3].lower()}")
    return None


def nextpnr_phase(line: str) -> BuildPhase | None:
    """Progress that a line of a nextpnr log tells, if any."""
    if match := _PLACER.match(line):
        return BuildPhase("placing", f"{match[1]} % of the cells overlap")
    if match := _ANNEAL.match(line):
        return BuildPhase("refining the placement", f"iteration {match[1]}, wire length {match[2]}")
    if match := _ROUTER.match(line):
        slow = f", {match[3]} connections too slow" if int(match[3] or 0) else ""
        return BuildPhase("routing", f"iteration {match[1]}, {match[2]} wires overused{slow}")
    if match := _FMAX.match(line):
        return BuildPhase("timing", f"{match[2]} MHz")
    if match := _UTILISATION.match(line):
        return BuildPhase("packing", f"{match[1]} {match[2]} of {match[3]}")
    for pattern, step in _STEPS:
        if pattern.match(line):
            return BuildPhase(step)
    return None


def critical_path(lines: Iterable[str], limit: int = 400) -> list[str]:
    """The longest register-to-register path of a nextpnr log after routing: ``total ns, kind, name`` per hop."""
    path: list[str] = []
    inside = False
    for line in lines:
        if line.startswith("Info: Critical path report for clock"):
            inside, path = True, []  # the last one counts: it is the routed design
        elif line.startswith("Info: Critical path report"):
            inside = False
        elif inside and (match := _SINK_OR_SOURCE.match(line)):
            path.append(f"{float(match[2]):.2f} ns {match[3].lower()} {match[4]}")
    return path[:limit]


def bram_by_use(cells: Iterable[str]) -> dict[str, int]:
    """Block RAMs by the memory that they hold, array indices left out, largest first.

    Parameters
    ----------
    cells : iterable of str
        ``module/cell`` as ``select -list`` prints them.
    """
    uses: Counter[str] = Counter()
    for cell in cells:
        module, _, name = cell.strip().partition("/")
        if not name:
            continue
        path = f"{module.removeprefix('top')}.{name}".lstrip(".")
        use = _ARRAY_INDEX.sub("", _MEMORY_TAIL.sub("", path))
        uses[_WRAPPERS.sub("", use)] += 1
    return dict(uses.most_common())
