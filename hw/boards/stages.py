"""How far a build is: its stages, the time they took, and what is left by the times of the last build."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from .logs import BuildPhase

__all__ = ["STAGES", "StageClock", "duration", "expected_times", "keep_times"]

STAGES = ("elaboration", "synthesis", "placement", "routing", "bitstream")
_STAGE_OF = {
    "elaborating the gateware": "elaboration",
    "synthesis": "synthesis",
    "packing": "placement",
    "placing": "placement",
    "refining the placement": "placement",
    "timing not met": "placement",  # another seed, from there on
    "routing": "routing",
    "checking the routes": "routing",
    "packing the bitstream": "bitstream",
}


class StageClock:
    """Follows the phases of a build.

    Parameters
    ----------
    expected : dict of str to float
        Seconds of each stage in an earlier build; empty if there was none.
    clock : callable
        Seconds.

    Attributes
    ----------
    seconds : dict of str to float
        Time spent in each stage, without the one that runs.
    """

    def __init__(self, expected: dict[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._expected = expected if set(expected) == set(STAGES) else {}
        self._clock = clock
        self._stage = STAGES[0]
        self._began = self._entered = clock()

    @property
    def stage(self) -> str:
        """The stage that runs."""
        return self._stage

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    @property
    def left(self) -> float | None:
        """Seconds that are left if this build goes as the last one; None if there was none."""
        if not self._expected:
            return None
        after = STAGES[STAGES.index(self._stage) + 1 :]
        here = self._clock() - self._entered
        return max(0.0, self._expected[self._stage] - here) + sum(self._expected[name] for name in after)

    def follow(self, phase: BuildPhase) -> None:
        """Go to the stage of a phase; phases of none, such as an estimate of timing, belong to the one that runs."""
        stage = _STAGE_OF.get(phase.step, self._stage)
        if stage == self._stage:
            return
        self._leave()
        if STAGES.index(stage) < STAGES.index(self._stage):  # another try: the times of one are what counts
            for name in STAGES[STAGES.index(stage) :]:
                self.seconds.pop(name, None)
        self._stage = stage

    def finish(self) -> dict[str, float]:
        """Times of all stages, when the build is done."""
        self._leave()
        return {name: round(self.seconds.get(name, 0.0), 1) for name in STAGES}

    def describe(self) -> str:
        """``placement (stage 3 of 5)``, and the time that it is expected to take."""
        text = f"{self._stage} (stage {STAGES.index(self._stage) + 1} of {len(STAGES)}"
        if self._expected:
            text += f", {duration(self._expected[self._stage])} last time"
        return text + ")"

    def _leave(self) -> None:
        now = self._clock()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._entered
        self._entered = now


def duration(seconds: float) -> str:
    """For people: ``8 s``, ``12 min``, ``1 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def expected_times(folder: Path, board: str) -> dict[str, float]:
    """Seconds of each stage of the last build for a board, or nothing."""
    try:
        values = json.loads((folder / f"{board}.json").read_text())
        times = {name: float(values[name]) for name in STAGES}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return times if all(math.isfinite(value) and 0 <= value < 1e6 for value in times.values()) else {}


def keep_times(folder: Path, board: str, times: dict[str, float]) -> None:
    """Keep the times of a build for the next one; where they cannot be kept, there will be no estimate."""
    draft = folder / f".{board}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(times))
        draft.replace(folder / f"{board}.json")
    except OSError:
        draft.unlink(missing_ok=True)
