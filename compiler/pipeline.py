"""The compiler: every pass in order, with a verifier between stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.checks import check_float, check_folded
from reverb_fpga.compiler.intnet import IntNetwork
from reverb_fpga.compiler.passes.borders import split_borders
from reverb_fpga.compiler.passes.calibrate import calibrate
from reverb_fpga.compiler.passes.fold import fold
from reverb_fpga.compiler.passes.graph import FloatNetwork, FoldedNetwork
from reverb_fpga.compiler.passes.importing import import_checkpoint
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance
from reverb_fpga.compiler.passes.quantise import quantise
from reverb_fpga.compiler.program import ArrayInput, InputTransform, Program, ProgramMeta
from reverb_fpga.compiler.report import CompileReport, make_report
from reverb_fpga.hw.config import Config
from reverb_fpga.models.checkpoint import Checkpoint, read_checkpoint

__all__ = ["Compilation", "CompileOptions", "Description", "compile_checkpoint", "compile_graph", "compile_network"]

_LIGHT_ON_DARK = ("mnist", "fashion-mnist")


@dataclasses.dataclass(frozen=True, eq=False)
class CompileOptions:
    """Choices of a compilation.

    Parameters
    ----------
    name : str or None
        Of the program; architecture and data set if not given.
    images : uint8 array (N, C, H, W) or None
        Sample images for the scales that training did not learn.
    static_input : bool
        Every time step sees the same image; never so of a network that was trained on event data.
    hints : Hints or None
        Force more strips (tests).
    """

    name: str | None = None
    images: NDArray[np.uint8] | None = None
    static_input: bool = True
    hints: Hints | None = None


@dataclasses.dataclass(frozen=True)
class Description:
    """What a float graph does not say of itself; fields as in :class:`~reverb_fpga.compiler.program.Program`.

    Parameters
    ----------
    array : ArrayInput or None
        The network takes real numbers, not images.
    notes : tuple of str
        What the front end could not keep exactly.
    """

    name: str
    arch: str
    system: str
    dataset: str
    labels: tuple[str, ...]
    accuracy: float | None = None
    invert: bool = False
    array: ArrayInput | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Compilation:
    """A program, how it came about, and the stages before it."""

    program: Program
    report: CompileReport
    folded: FoldedNetwork
    network: IntNetwork


def compile_checkpoint(path: Path | str, config: Config, options: CompileOptions | None = None) -> Compilation:
    """Compile a checkpoint file for one configuration.

    Raises
    ------
    InputError
        Not a checkpoint, an unsupported layer, a number that has no representation, or too large for the target.
    """
    return compile_network(read_checkpoint(path), config, options)


def compile_network(checkpoint: Checkpoint, config: Config, options: CompileOptions | None = None) -> Compilation:
    """Compile a checkpoint that is already read. Errors as :func:`compile_checkpoint`."""
    options = options or CompileOptions()
    imported = import_checkpoint(checkpoint, options.static_input and checkpoint.spec.static_input)
    spec, accuracy = checkpoint.spec, checkpoint.info.get("accuracy")
    description = Description(
        name=f"{spec.arch}-{spec.dataset}",
        arch=spec.arch,
        system=spec.system,
        dataset=spec.dataset,
        labels=spec.labels,
        accuracy=float(accuracy) if isinstance(accuracy, int | float) else None,
        invert=spec.dataset in _LIGHT_ON_DARK,
    )
    return compile_graph(imported, description, config, options)


def compile_graph(
    imported: FloatNetwork, description: Description, config: Config, options: CompileOptions
) -> Compilation:
    """Compile a float graph. Errors as :func:`compile_checkpoint`."""
    check_float(imported)
    proof = prove_invariance(imported)
    graph = drop_redundant_time(imported, proof)
    folded = fold(graph)
    check_folded(folded)
    steps = calibrate(graph, folded, options.images)
    quantised = quantise(split_borders(folded), steps, config)
    program = lower(
        quantised.network, config, _meta(description, folded, quantised.logit_scale, options), options.hints
    )
    report = make_report(program, quantised.network, config, proof, steps, (*description.notes, *quantised.notes))
    return Compilation(program, report, folded, quantised.network)


def _meta(description: Description, folded: FoldedNetwork, logit_scale: float, options: CompileOptions) -> ProgramMeta:
    source = folded.input
    return ProgramMeta(
        name=options.name or description.name,
        arch=description.arch,
        system=description.system,
        dataset=description.dataset,
        accuracy=description.accuracy,
        labels=description.labels,
        input=InputTransform(
            channels=len(source.scale),
            height=source.height,
            width=source.width,
            scale=tuple(float(value) for value in source.scale),
            offset=tuple(float(value) for value in source.offset),
            invert=description.invert,
            array=description.array,
        ),
        logit_scale=logit_scale,
    )
