"""Where a program runs: the golden model, the gateware in simulation, or a board. Same codes in, same logits out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import PRESETS, Config
from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.sim.golden import GoldenModel

from .driver import Device
from .session import SIMULATED, Timing
from .transport import DEFAULT_BAUD, SerialTransport, Transport

__all__ = ["BACKENDS", "Backend", "BackendOptions", "Outcome", "config_of", "open_backend"]

BACKENDS = ("golden", "rtl", "serial")


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

    @property
    def batch(self) -> int:
        """Images worth handing over at a time."""
        ...

    def run(self, codes: NDArray[np.uint8]) -> Iterator[Outcome]:
        """Outcomes of ``codes`` (N, T_in, H, W, C) or, where T_in is 1, (N, H, W, C), in order."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """What a backend is opened with.

    Parameters
    ----------
    port : str or None
        Serial port; only for the serial backend.
    baud : int or None
        Serial rate; None is the driver's own.
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
def open_backend(name: str, program: Program, options: BackendOptions) -> Iterator[Backend]:
    """A backend with ``program`` loaded, for the duration of the block.

    Raises
    ------
    InputError
        Unknown backend, a missing or superfluous port, a program that this version cannot run.
    DeviceError
        The board or the link failed.
    """
    if name not in BACKENDS:
        raise InputError(f"no backend {name!r}; there are: {', '.join(BACKENDS)}")
    if (options.port is not None) != (name == "serial"):
        raise InputError("--port goes with --backend serial" if options.port else "--backend serial needs --port TTY")
    golden = GoldenModel(program, config_of(program))
    if name == "golden":
        yield _Golden(golden)
    else:
        port = _serial_port(options) if name == "serial" else _virtual_port(golden.config, options)
        with port as (transport, timing), Device(transport, timing) as device:
            yield _Attached(golden, device, options)


class _Golden:
    """The integer model."""

    def __init__(self, model: GoldenModel) -> None:
        self.program = model.program
        self.input_steps = model.input_steps
        self.batch = model.batch
        self._model = model

    def run(self, codes: NDArray[np.uint8]) -> Iterator[Outcome]:
        for row in self._model.run(codes):
            yield Outcome(tuple(int(v) for v in row), None)


class _Attached:
    """An overlay behind a transport, real or simulated, with the program loaded."""

    batch = 1

    def __init__(self, model: GoldenModel, device: Device, options: BackendOptions) -> None:
        self.program = model.program
        self.input_steps = model.input_steps
        self._model = model
        self._device = device
        options.report(f"connecting to {device.transport.name}")
        device.connect(model.config.digest)
        device.load(
            model.program, lambda done, total: options.report(f"loading the program, {100 * done // max(1, total)} %")
        )

    def run(self, codes: NDArray[np.uint8]) -> Iterator[Outcome]:
        for image in self._model.input_bytes(codes):
            result = self._device.infer(image)
            yield Outcome(tuple(int(v) for v in result.logits), result.cycles)


@contextmanager
def _serial_port(options: BackendOptions) -> Iterator[tuple[Transport, Timing]]:
    yield SerialTransport(options.port or "", options.baud or DEFAULT_BAUD), Timing()


@contextmanager
def _virtual_port(config: Config, options: BackendOptions) -> Iterator[tuple[Transport, Timing]]:
    """The gateware in simulation, behind a pseudo-terminal that the serial transport opens like any port."""
    try:
        from reverb_fpga.sim.virtual_board import VirtualBoard
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        raise EnvironmentMissing(f"not installed: {error.name}; run: pip install 'reverb-fpga[sim]'") from None
    options.report("building the simulated gateware (minutes the first time)")
    with VirtualBoard(config, progress=options.report) as board:
        yield SerialTransport(board.port), SIMULATED
