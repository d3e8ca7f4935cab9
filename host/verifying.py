"""Golden model against gateware, simulated or on a board: what ``reverb-fpga verify`` and ``Model.verify`` run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError, printable
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.verify import Progress, Target, Verification, Verifier

from . import bundled, images, ports
from .backends import BackendOptions, config_of, simulated_core
from .inputs import ItemReader, Selection, gather_items

__all__ = ["input_codes", "verified"]

Codes = NDArray[np.uint8]


def verified(program: Program, codes: Codes, options: BackendOptions, progress: Progress | None = None) -> Verification:
    """Compare on input codes (N, T_in, H, W, C).

    Parameters
    ----------
    options : BackendOptions
        With a port: a board's gateware; without: the simulated one, whose cycles are compared with the model's too.

    Raises
    ------
    EnvironmentMissing
        Without the packages of the simulation, or a C++ compiler.
    DeviceError
        If the hardware faults or hangs.
    """
    config = config_of(program)
    with _target(config, options) as target:
        verifier = Verifier(program, config, target)
        result = verifier.run(codes, progress)
        if result.difference is not None or options.port is not None:
            return result
        return dataclasses.replace(result, cycles=_cycles(verifier.model, target, codes, progress))


def input_codes(program: Program, selection: Selection, seed: int | None = None) -> tuple[str, Codes]:
    """What the input is, and its codes (N, T_in, H, W, C).

    Image files, or else the bundled images of the model's data set, or else (or if ``seed`` is given) random codes.
    """
    transform = program.input
    steps = program.input_records // (transform.height * transform.width)
    known = bool(selection.paths) or (transform.channels in (1, 3) and bool(bundled.bundled_images(program.dataset)))
    if seed is not None or not known:
        rng = np.random.default_rng(seed or 0)
        shape = (selection.limit or 1, steps, transform.height, transform.width, transform.channels)
        codes = np.where(rng.random(shape) < 0.5, rng.integers(0, 256, shape), 0)  # half of them are no event
        return f"random codes, seed {seed or 0}", codes.astype(np.uint8)
    items = gather_items(selection, program)
    _, pixels = ItemReader(program, strict=True).read_all(items)
    return ", ".join(printable(item.name) for item in items), images.encoded(pixels, program)


@contextmanager
def _target(config: Config, options: BackendOptions) -> Iterator[Target]:
    if options.port is None:
        if options.baud is not None:
            raise InputError("--baud goes with --port")
        with simulated_core(config, options.report) as core:
            yield core
        return
    with ports.connect(options.port, options.baud, options.report) as (device, _):
        device.connect(config.digest)
        yield device


def _cycles(model: GoldenModel, core: Any, codes: Codes, progress: Progress | None) -> tuple[tuple[int, int], ...]:
    """Cycles of every image without halts, measured and predicted."""
    from reverb_fpga.sim.cycles import CycleModel

    measured = []
    for image, data in enumerate(model.input_bytes(codes)):
        if progress is not None:
            progress(image, model.program.n_descriptors - 1)
        core.infer(data)
        measured.append(core.cycles)
    return tuple(zip(measured, CycleModel(model.program, model.config).cycles(codes), strict=True))
