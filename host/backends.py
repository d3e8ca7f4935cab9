"""Where a program runs: the golden model, the gateware in simulation, or a board. Same codes in, same logits out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.cache import cache_directory
from reverb_fpga.hw.config import PRESETS, Config
from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.sim.golden import GoldenModel

from . import ports
from .driver import Device
from .session import SIMULATED
from .transport import SerialTransport

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendOptions",
    "Outcome",
    "announced",
    "config_of",
    "open_backend",
    "simulated_core",
]

BACKENDS = ("golden", "rtl", "serial")
_IDLE_SECONDS = 0.1  # between looks for a new image


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of one image.

    Parameters
    ----------
    logits : tuple of int
        Membrane potentials of the output layer.
    cycles : int or None
        Clock cycles, where there is a clock.
    """

    logits: tuple[int, ...]
    cycles: int | None


class Backend(Protocol):
    """Runs a loaded program."""

    @property
    def program(self) -> Program:
        """The program that is loaded."""
        ...

    @property
    def input_steps(self) -> int:
        """T_in: time steps that an input has (1: every step sees the same image)."""
        ...

    def stream(self, images: Iterable[NDArray[np.uint8] | None]) -> Iterator[Outcome]:
        """Outcomes in order of input codes (T_in, H, W, C) or, where T_in is 1, (H, W, C).

        Images are taken ahead of the outcomes. None: there is no image now, but there may be one later.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """What a backend is opened with.

    Parameters
    ----------
    port : str or None
        Serial port, only for the serial backend; None or "auto" is the first board that answers.
    baud : int or None
        Serial rate; None is the one at which the board answers.
    report : callable
        Told what is being done while the backend starts: compiling the simulation, loading the program.
    """

    port: str | None = None
    baud: int | None = None
    report: Callable[[str], None] = lambda _: None


def config_of(program: Program) -> Config:
    """The configuration that a program was compiled for.

    Raises
    ------
    InputError
        If this version has no such configuration.
    """
    for config in PRESETS.values():
        if config.digest == program.config_digest:
            return config
    raise InputError(
        f"program {program.name}: compiled for a configuration {program.config_name} that this version does not "
        f"have; compile it again for one of: {', '.join(PRESETS)}"
    )


@contextmanager
def open_backend(name: str, golden: GoldenModel, options: BackendOptions) -> Iterator[Backend]:
    """A backend with the golden model's program loaded, for the duration of the block.

    Raises
    ------
    InputError
        Unknown backend, or a port or rate for one that has none.
    DeviceError
        The board or the link failed.
    """
    if name not in BACKENDS:
        raise InputError(f"no backend {name!r}; there are: {', '.join(BACKENDS)}")
    for option, value in (("--port", options.port), ("--baud", options.baud)):
        if value is not None and name != "serial":
            raise InputError(f"{option} goes with --backend serial")
    if name == "golden":
        yield _Golden(golden)
    elif name == "serial":
        with ports.connect(options.port, options.baud, options.report) as (device, _):
            yield _Attached(golden, device, options)
    else:
        with _virtual_board(golden.config, options) as device:
            yield _Attached(golden, device, options)


class _Golden:
    """The integer model."""

    def __init__(self, model: GoldenModel) -> None:
        self.program = model.program
        self.input_steps = model.input_steps
        self._model = model

    def stream(self, images: Iterable[NDArray[np.uint8] | None]) -> Iterator[Outcome]:
        waiting: list[NDArray[np.uint8]] = []
        for codes in images:
            if codes is not None:
                waiting.append(codes)
            elif not waiting:
                time.sleep(_IDLE_SECONDS)
            if len(waiting) == self._model.batch or codes is None:
                yield from self._run(waiting)
                waiting.clear()
        yield from self._run(waiting)

    def _run(self, images: list[NDArray[np.uint8]]) -> Iterator[Outcome]:
        if images:
            for row in self._model.run(np.stack(images)):
                yield Outcome(tuple(int(v) for v in row), None)


class _Attached:
    """An overlay behind a transport, real or simulated, with the program loaded."""

    def __init__(self, model: GoldenModel, device: Device, options: BackendOptions) -> None:
        self.program = model.program
        self.input_steps = model.input_steps
        self._model = model
        self._device = device
        device.connect(model.config.digest)
        device.load(
            model.program, lambda done, total: options.report(f"loading the program, {100 * done // max(1, total)} %")
        )

    def stream(self, images: Iterable[NDArray[np.uint8] | None]) -> Iterator[Outcome]:
        for result in self._device.stream(map(self._input, images)):
            yield Outcome(tuple(int(v) for v in result.logits), result.cycles)

    def _input(self, codes: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        return None if codes is None else self._model.input_bytes(codes[None])[0]


@contextmanager
def _virtual_board(config: Config, options: BackendOptions) -> Iterator[Device]:
    """The gateware in simulation, behind a pseudo-terminal that the serial transport opens like any port."""
    try:
        from reverb_fpga.sim.virtual_board import VirtualBoard
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        raise EnvironmentMissing(f"not installed: {error.name}; run: pip install 'reverb-fpga[sim]'") from None
    with (
        VirtualBoard(config, progress=announced(config, options.report)) as board,
        Device(SerialTransport(board.port, round(board.line.baud)), SIMULATED) as device,
    ):
        yield device


_LARGE = 1024  # additions a cycle: 182 s; with 512 it took 48 s on two cores of an AMD EPYC (Zen 5)


@contextmanager
def simulated_core(config: Config, report: Callable[[str], None], waveform: Path | None = None) -> Iterator[Any]:
    """The simulated core. Raises EnvironmentMissing if the simulation packages are not installed."""
    try:
        from reverb_fpga.sim.rtl_core import RtlCore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        raise EnvironmentMissing(f"not installed: {error.name}; run: pip install 'reverb-fpga[sim]'") from None
    # the same program as of a virtual board, where no waveform is asked for
    with RtlCore(config, linked=waveform is None, waveform=waveform, progress=announced(config, report)) as core:
        yield core


def announced(config: Config, report: Callable[[str], None]) -> Callable[[str], None]:
    """``report`` for a build of the simulated gateware that also says, once and in a pipe too, what is waited for.

    Nothing is said where the cache has it.
    """
    said = False

    def stage(line: str) -> None:
        nonlocal said
        if not said:
            said = True
            time_it_takes = "several minutes" if config.lanes * config.ports >= _LARGE else "about a minute"
            click.echo(
                f"compiling the gateware of {config.name} to a simulator: once, {time_it_takes} on two free cores; "
                f"kept in {cache_directory()}",
                err=True,
            )
        report(line)

    return stage
