"""Imports a torch module: runs it on samples, and hands its float graph to the compiler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reverb_fpga.compiler.frontends import layers
from reverb_fpga.compiler.frontends.assemble import Found, Imported, assemble
from reverb_fpga.compiler.frontends.checking import check_import
from reverb_fpga.compiler.frontends.functions import FUNCTIONS
from reverb_fpga.compiler.frontends.grid import Grid, grid_of
from reverb_fpga.compiler.frontends.running import (
    Samples,
    evaluating,
    fed,
    first_of,
    reset_state,
    rounds_of,
    run_module,
    unwrapped,
)
from reverb_fpga.compiler.frontends.tracing import Membrane, Traced, Tracer
from reverb_fpga.compiler.frontends.values import EVERY, SEQUENCE, Shape, Value
from reverb_fpga.compiler.manifest import MAX_TEXT
from reverb_fpga.compiler.passes.graph import FloatNetwork
from reverb_fpga.compiler.pipeline import Compilation, CompileOptions, Description, compile_graph
from reverb_fpga.compiler.program import ArrayInput
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["compile_module", "import_module"]

_TRACED = 2  # samples that the trace runs on
_CHECKED = 32  # samples on which the import is compared with the module
_CALIBRATION = 256  # samples that scales are taken from


def import_module(module: nn.Module, samples: Samples, config: Config, timesteps: int | None) -> tuple[Imported, Grid]:
    """The float graph of a module, and the codes of its input. Its state is reset, its mode is kept.

    Parameters
    ----------
    timesteps : int or None
        Steps to run a module that runs one at a time; its results are averaged. None: it has its own.

    Raises
    ------
    InputError
        Whatever the target cannot express; names the layer and the reason.
    """
    module = unwrapped(module)
    with torch.no_grad(), evaluating(module):
        tracer = Tracer(module, samples.shape)
        tracer.handlers.append(layers.handle)
        tracer.functions.update(FUNCTIONS)
        output, rounds = _traced(tracer, module, samples, timesteps)
        value, static = _logits(output), not samples.timed
    found = Found(
        {name: (fired.current, fired.neuron) for name, fired in tracer.fired.items()},
        value,
        max(tracer.timesteps, rounds, len(samples.data) if samples.timed else 1),
        tracer.input_shape,
        static,
    )
    _check_steps(tracer, found.timesteps)
    grid = _grid(samples, tracer.input_shape)
    return assemble(found, grid, config.table_entries), grid


def compile_module(
    module: nn.Module,
    samples: Samples,
    config: Config,
    timesteps: int | None = None,
    *,
    labels: Sequence[str] | None = None,
    name: str = "module",
) -> Compilation:
    """Compile a module. Errors as :func:`import_module`, and as the compiler's own."""
    wanted = run_module(module, samples, timesteps, _CHECKED)  # whatever is wrong with it by itself is told first
    imported, grid = import_module(module, samples, config, timesteps)
    network = imported.network
    first = _codes(samples, network, grid)[: len(wanted)]
    off_border = any("its border of zeros" in note for note in imported.notes)
    check_import(imported.unrounded, first, wanted, border=off_border)
    given = _labels(labels, len(network.layers[-1].maps[-1].bias))
    notes = imported.notes
    if (rounding := grid.note(samples.data.reshape(-1, len(grid.step), _positions(samples, grid)))) is not None:
        notes = (rounding, *notes)
    array = _array_input(samples, network, grid)
    description = Description(name, name, "imported", "none", given, array=array, notes=notes)
    pixels = np.clip(np.floor(_codes(samples, network, grid)[:_CALIBRATION] + 0.5), 0, 255).astype(np.uint8)
    return compile_graph(network, description, config, CompileOptions(images=pixels))


def _labels(labels: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Names of the classes."""
    if labels is None:
        return tuple(str(index) for index in range(classes))
    given = () if isinstance(labels, str) else tuple(labels)
    if not given or not all(isinstance(it, str) and 0 < len(it) <= MAX_TEXT and it.isprintable() for it in given):
        raise InputError(f"labels {labels!r:.60}; one printable text for each of {classes} classes is wanted")
    if len(given) != classes:
        raise InputError(f"{len(given)} labels for {classes} classes")
    return tuple(str(label) for label in given)  # numpy's texts are of a type of their own


def _positions(samples: Samples, grid: Grid) -> int:
    return math.prod(samples.shape) // len(grid.step)


def _array_input(samples: Samples, network: FloatNetwork, grid: Grid) -> ArrayInput:
    """The codes of the float graph in terms of what the module takes."""
    std, own = np.asarray(network.std), samples.shape_given
    channels = own[0] if len(own) == 3 else 1
    share = std.min() / std if len(std) == channels else np.ones(channels)  # as folding scales channels
    zero = np.rint(grid.zero[:channels] * share) if np.any(share != 1) else grid.zero[:channels]
    scale = share / grid.step[:channels]
    return ArrayInput(own, tuple(scale.tolist()), tuple(zero.tolist()))


def _codes(samples: Samples, network: FloatNetwork, grid: Grid) -> NDArray[np.float64]:
    """Inputs of the float graph in codes, not rounded: (N, C, H, W), or (N, T, C, H, W)."""
    data, shape = samples.data, (len(network.mean), network.height, network.width)
    sides = (-1,) + (1,) * (len(samples.shape_given) - 1)
    channels = samples.shape_given[0] if len(samples.shape_given) == 3 else 1
    step, zero = grid.step[:channels].reshape(sides), grid.zero[:channels].reshape(sides)
    pixels = data / step + zero
    if samples.timed:
        return np.moveaxis(pixels.reshape(len(data), -1, *shape), 0, 1)
    return pixels.reshape(-1, *shape)


def _traced(tracer: Tracer, module: nn.Module, samples: Samples, timesteps: int | None) -> tuple[Any, int]:
    reset_state(module)
    x = fed(module, samples.part(slice(_TRACED)), samples, timesteps)
    flat = samples.data.ndim == 2
    rounds = rounds_of(module, samples, timesteps)
    total: Any = None
    with tracer.running():
        for turn in range(rounds):
            given = tracer.input(x, SEQUENCE if samples.timed else EVERY, flat=flat)
            result = first_of(module(given[turn] if samples.timed and rounds > 1 else given))
            if turn == 0 and rounds > 1 and tracer.timesteps > 1:
                raise InputError("the module runs its own time steps: leave timesteps out")
            total = result if total is None else total + result
    return (total / rounds if rounds > 1 else total), rounds


def _logits(result: Any) -> Value:
    if isinstance(result, Traced) and isinstance(result.value, Membrane):
        raise InputError(
            f"layer {result.value.name}: the module returns its membrane; return its spikes, or the current of a last "
            "layer without neurons"
        )
    if not isinstance(result, Traced) or not isinstance(result.value, Value):
        raise InputError("the module returns nothing that was computed from its input; a tensor (N, classes) is wanted")
    return result.value


def _check_steps(tracer: Tracer, steps: int) -> None:
    for name, count in tracer.calls().items():
        if count != steps:
            raise InputError(f"layer {name}: runs {count} time steps of {steps}; every layer must run all of them")


def _grid(samples: Samples, shape: Shape) -> Grid:
    data = samples.data.reshape(-1, *samples.shape)
    joint = samples.shape != shape or samples.data.ndim == 2
    grid = grid_of(data, joint=joint)
    if samples.shape == shape:
        return grid
    return Grid(np.full(shape[0], grid.step[0]), np.full(shape[0], grid.zero[0]), grid.exact)
