"""Place and route with several seeds, some side by side; the fastest is kept."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from .. import interrupts
from ..errors import BuildError
from . import logs
from .logs import BuildPhase
from .tools import POLL_SECONDS, Follow, Toolchain, ToolRun

__all__ = ["INPUTS", "Attempt", "Launch", "NextpnrRun", "SeedRun", "SeedTrials", "fmax_of", "here"]

INPUTS = ("top.json", "top.lpf")
"""What nextpnr reads: the netlist and its constraints."""


class SeedRun(Protocol):
    """nextpnr at work on a seed, here or elsewhere, as a context: it ends with the block."""

    directory: Path

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def poll(self) -> bool:
        """Follow the lines of its log that were added; whether it has ended. Then its files are in the directory."""
        ...

    def check(self) -> None:
        """Raise BuildError with its first error line if it has failed."""
        ...


class Launch(Protocol):
    """Starts nextpnr with arguments in a directory that holds its inputs, with a follower of its log."""

    def __call__(self, arguments: list[str], directory: Path, follow: Follow) -> SeedRun: ...


class NextpnrRun(ToolRun):
    """nextpnr on this machine; ended where it would not come to an end. Parameters are those of ToolRun."""

    def __init__(self, toolchain: Toolchain, arguments: list[str], directory: Path, follow: Follow) -> None:
        super().__init__(toolchain, "nextpnr-ecp5", arguments, "nextpnr.log", directory, self._both)
        self._then = follow
        self._watch = logs.PlacementWatch()
        self._hopeless: str | None = None

    def poll(self) -> bool:
        ended = super().poll()
        if self._hopeless is not None and not ended:
            self.end()
        return ended or self._hopeless is not None

    def check(self) -> None:
        if self._hopeless is not None:
            raise BuildError(self._hopeless)
        super().check()

    def _both(self, line: str) -> None:
        self._hopeless = self._hopeless or self._watch.follow(line)
        self._then(line)


def here(toolchain: Toolchain) -> Launch:
    """Runs on this machine."""
    return functools.partial(NextpnrRun, toolchain)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What came of a seed.

    Parameters
    ----------
    seed : int
    directory : Path
        With nextpnr's files.
    fmax_mhz : float or None
        None if it did not come to timing.
    error : BuildError or None
        Why there is no configuration.
    """

    seed: int
    directory: Path
    fmax_mhz: float | None
    error: BuildError | None


class SeedTrials:
    """Runs nextpnr with seeds, a number of them at a time.

    Parameters
    ----------
    launch : Launch
    arguments : list of str
        Of nextpnr, without the seed.
    clock_mhz : float
    work : Path
        Holds the netlist and its constraints.
    progress : called with phases of one seed at a time, and with what came of each
    """

    def __init__(
        self,
        launch: Launch,
        arguments: list[str],
        clock_mhz: float,
        work: Path,
        progress: Callable[[BuildPhase], None],
    ) -> None:
        self._launch = launch
        self._arguments = arguments
        self._clock_mhz = clock_mhz
        self._work = work
        self._progress = progress
        self._running: dict[int, SeedRun] = {}
        self._attempts: list[Attempt] = []
        self._placed: set[int] = set()

    def run(self, seeds: Sequence[int], jobs: int, spare: Sequence[int] = ()) -> Attempt:
        """Try all seeds; the one with the fastest clock, the first of equal ones.

        Parameters
        ----------
        spare : sequence of int
            Seeds that are tried one by one as long as none could be routed.

        Raises
        ------
        BuildError
            If none meets timing.
        """
        self._try(seeds, jobs, len(seeds))
        for seed in spare:
            if not all(self._unrouted(attempt) for attempt in self._attempts):
                break
            self._try([seed], 1, len(seeds) + len(spare))
        return self._best()

    def _unrouted(self, attempt: Attempt) -> bool:
        """It was placed, but its wires found no way: those of another seed may. A missed clock is no such case."""
        if attempt.error is None or attempt.fmax_mhz is not None or attempt.seed not in self._placed:
            return False
        return not str(attempt.error).startswith(logs.TIMING_MISSED)

    def _try(self, seeds: Sequence[int], jobs: int, number: int) -> None:
        waiting = list(seeds)
        with ExitStack() as stack:
            while waiting or self._running:
                while waiting and len(self._running) < jobs:
                    seed = waiting.pop(0)
                    self._running[seed] = stack.enter_context(self._start(seed, number))
                for seed, run in list(self._running.items()):
                    if run.poll():
                        del self._running[seed]
                        self._finish(seed, run, number)
                interrupts.check()
                time.sleep(POLL_SECONDS)

    def _start(self, seed: int, number: int) -> SeedRun:
        directory = self._work / f"seed-{seed}"
        directory.mkdir()
        for name in INPUTS:
            _link(self._work / name, directory / name)
        arguments = [*self._arguments, "--seed", str(seed)]

        def follow(line: str) -> None:
            shown = next(iter(self._running), seed)  # one at a time, or the stages would go to and fro
            phase = logs.nextpnr_phase(line)
            if phase is not None and phase.step == "routing":
                self._placed.add(seed)
            if seed == shown and phase is not None:
                detail = phase.detail if number == 1 else f"seed {seed}, {phase.detail}".rstrip(", ")
                self._progress(BuildPhase(phase.step, detail))

        self._progress(BuildPhase("packing", "" if number == 1 else f"seed {seed}"))
        return self._launch(arguments, directory, follow)

    def _finish(self, seed: int, run: SeedRun, number: int) -> None:
        error = None
        fmax = fmax_of(run.directory, self._clock_mhz)
        try:
            run.check()
            if fmax is None or fmax < self._clock_mhz:
                error = BuildError(
                    f"nextpnr reported no clock of {self._clock_mhz:g} MHz; is the core driven by domain sync?"
                )
        except BuildError as failure:
            error = failure
        self._attempts.append(Attempt(seed, run.directory, fmax, error))
        if _missed(self._attempts[-1], self._clock_mhz):
            self._progress(BuildPhase("timing not met", f"seed {seed}: {fmax:.1f} of {self._clock_mhz:g} MHz"))
        elif error is not None:
            self._progress(BuildPhase("timing", f"seed {seed}: {error}"))
        elif number > 1:
            done = f"{len(self._attempts)} of {number} seeds done"
            self._progress(BuildPhase("timing", f"seed {seed}: {fmax:.1f} MHz, {done}"))

    def _best(self) -> Attempt:
        if good := [attempt for attempt in self._attempts if attempt.error is None]:
            return min(good, key=lambda attempt: (-(attempt.fmax_mhz or 0.0), attempt.seed))
        missed = [attempt for attempt in self._attempts if _missed(attempt, self._clock_mhz)]
        if not missed:
            raise self._attempts[0].error or BuildError("no seed was tried")
        best = max(missed, key=lambda attempt: attempt.fmax_mhz or 0.0)
        raise BuildError(
            f"{logs.TIMING_MISSED}: {best.fmax_mhz:.1f} MHz (seed {best.seed}) of {self._clock_mhz:g} MHz; "
            f"try --clock {int(best.fmax_mhz or 0.0)}, or another --seed or more --tries"
        )


def fmax_of(directory: Path, clock_mhz: float) -> float | None:
    """Slowest clock constrained to the overlay's frequency, after routing; None if timing was not reached."""
    try:
        clocks = json.loads((directory / "timing.json").read_text())["fmax"].values()
    except (OSError, ValueError, KeyError):
        return None
    found = [float(c["achieved"]) for c in clocks if abs(float(c["constraint"]) / clock_mhz - 1) < 1e-3]
    return min(found, default=None)


def _missed(attempt: Attempt, clock_mhz: float) -> bool:
    """It failed for its timing alone."""
    return attempt.error is not None and attempt.fmax_mhz is not None and attempt.fmax_mhz < clock_mhz


def _link(source: Path, target: Path) -> None:
    """The same file in another folder: WebAssembly tools see only the folder that they run in."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
