"""Imports a torch module: runs it on samples, and hands its float graph to the compiler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reverb_fpga.compiler.frontends import layers
from reverb_fpga.compiler.frontends.assemble import Found, Imported, assemble
from reverb_fpga.compiler.frontends.functions import FUNCTIONS
from reverb_fpga.compiler.frontends.grid import Grid, grid_of
from reverb_fpga.compiler.frontends.neurons import framework_of
from reverb_fpga.compiler.frontends.tracing import Membrane, Traced, Tracer
from reverb_fpga.compiler.frontends.values import EVERY, SEQUENCE, Shape, Value
from reverb_fpga.compiler.passes.graph import FloatNetwork
from reverb_fpga.compiler.pipeline import Compilation, CompileOptions, Description, compile_graph
from reverb_fpga.compiler.program import ArrayInput
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["Samples", "compile_module", "import_module", "reset_state", "run_module"]

_TRACED = 2  # samples that the trace runs on
_BATCH = 128
_CALIBRATION = 256  # samples that scales are taken from


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Inputs as the module takes them.

    Parameters
    ----------
    data : float32 array (N, C, H, W), (N, features), or with time (T, N, C, H, W)
    """

    data: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.data.ndim not in (2, 4, 5) or 0 in self.data.shape:
            raise InputError(
                f"samples of shape {self.data.shape}; (N, channels, height, width), (N, features), or with time "
                "(T, N, channels, height, width) are wanted, as the module takes them"
            )

    @property
    def timed(self) -> bool:
        """Every step has an input of its own."""
        return self.data.ndim == 5

    @property
    def shape(self) -> Shape:
        """(C, H, W); features are (1, 1, features)."""
        own = self.data.shape[2:] if self.timed else self.data.shape[1:]
        return (1, 1, own[0]) if len(own) == 1 else (own[0], own[1], own[2])

    @property
    def shape_given(self) -> tuple[int, ...]:
        """Of one input as it is."""
        return self.data.shape[2:] if self.timed else self.data.shape[1:]

    def __len__(self) -> int:
        return self.data.shape[1 if self.timed else 0]

    def part(self, rows: slice) -> Tensor:
        """Some of the inputs."""
        return torch.from_numpy(np.ascontiguousarray(self.data[:, rows] if self.timed else self.data[rows]))


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
    with torch.no_grad(), _evaluating(module):
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
    imported, grid = import_module(module, samples, config, timesteps)
    network = imported.network
    classes = len(network.layers[-1].maps[-1].bias)
    given = tuple(labels) if labels is not None else tuple(str(index) for index in range(classes))
    if len(given) != classes:
        raise InputError(f"{len(given)} labels for {classes} classes")
    array = _array_input(samples, network, grid)
    description = Description(name, name, "imported", "none", given, array=array, notes=imported.notes)
    pixels = _codes(samples, network, grid)
    return compile_graph(network, description, config, CompileOptions(images=pixels[:_CALIBRATION]))


def _array_input(samples: Samples, network: FloatNetwork, grid: Grid) -> ArrayInput:
    """The codes of the float graph in terms of what the module takes."""
    std, own = np.asarray(network.std), samples.shape_given
    channels = own[0] if len(own) == 3 else 1
    share = std.min() / std if len(std) == channels else np.ones(channels)  # as folding scales channels
    zero = np.rint(grid.zero[:channels] * share) if np.any(share != 1) else grid.zero[:channels]
    scale = share / grid.step[:channels]
    return ArrayInput(own, tuple(scale.tolist()), tuple(zero.tolist()))


def _codes(samples: Samples, network: FloatNetwork, grid: Grid) -> NDArray[np.uint8]:
    """Pixels of the float graph: (N, C, H, W), or (N, T, C, H, W)."""
    data, shape = samples.data, (len(network.mean), network.height, network.width)
    sides = (-1,) + (1,) * (len(samples.shape_given) - 1)
    channels = samples.shape_given[0] if len(samples.shape_given) == 3 else 1
    step, zero = grid.step[:channels].reshape(sides), grid.zero[:channels].reshape(sides)
    pixels = np.clip(np.floor(data / step + zero + 0.5), 0, 255).astype(np.uint8)
    if samples.timed:
        return np.moveaxis(pixels.reshape(len(data), -1, *shape), 0, 1)
    return pixels.reshape(-1, *shape)


def run_module(module: nn.Module, samples: Samples, timesteps: int | None) -> NDArray[np.float64]:
    """What the module itself returns for every input: (N, classes)."""
    found = []
    with torch.no_grad(), _evaluating(module):
        for start in range(0, len(samples), _BATCH):
            reset_state(module)
            x = _fed(module, samples.part(slice(start, start + _BATCH)), samples, timesteps)
            rounds = _rounds(module, samples, timesteps)
            results = [_numbers(module(x)) for _ in range(rounds)]
            found.append(sum(results[1:], results[0]) / rounds)
    return np.concatenate(found)


def _traced(tracer: Tracer, module: nn.Module, samples: Samples, timesteps: int | None) -> tuple[Any, int]:
    reset_state(module)
    x = _fed(module, samples.part(slice(_TRACED)), samples, timesteps)
    flat = samples.data.ndim == 2
    rounds = _rounds(module, samples, timesteps)
    total: Any = None
    with tracer.running():
        for turn in range(rounds):
            given = tracer.input(x, SEQUENCE if samples.timed else EVERY, flat=flat)
            result = _first(module(given))
            if turn == 0 and rounds > 1 and tracer.timesteps > 1:
                raise InputError("the module runs its own time steps: leave timesteps out")
            total = result if total is None else total + result
    return (total / rounds if rounds > 1 else total), rounds


def _multi_step(module: nn.Module) -> bool:
    """Whether layers of SpikingJelly take all steps at once."""
    return any(getattr(part, "step_mode", None) == "m" for part in module.modules())


def _fed(module: nn.Module, x: Tensor, samples: Samples, timesteps: int | None) -> Tensor:
    """With time as the first dimension where the module takes it and the samples have none."""
    if timesteps is None or samples.timed or not _multi_step(module):
        return x
    return x.unsqueeze(0).repeat(timesteps, *([1] * x.dim()))


def _rounds(module: nn.Module, samples: Samples, timesteps: int | None) -> int:
    if timesteps is None or _multi_step(module):
        return 1
    if samples.timed:
        raise InputError("samples with time have their steps: leave timesteps out")
    return timesteps


def _first(result: Any) -> Any:
    """Of several results (spikes and membranes, say) the first."""
    while isinstance(result, tuple | list) and result:
        result = result[0]
    return result


def _logits(result: Any) -> Value:
    if isinstance(result, Traced) and isinstance(result.value, Membrane):
        raise InputError(
            f"layer {result.value.name}: the module returns its membrane; return its spikes, or the current of a last "
            "layer without neurons"
        )
    if not isinstance(result, Traced) or not isinstance(result.value, Value):
        raise InputError("the module returns nothing that was computed from its input; a tensor (N, classes) is wanted")
    return result.value


def _numbers(result: Any) -> NDArray[np.float64]:
    """(N, classes) of one call; steps (T, N, classes) are summed."""
    data: Tensor = _first(result)
    if data.dim() == 3:
        data = data.sum(0)
    return data.flatten(1).double().numpy()


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


def reset_state(module: nn.Module) -> None:
    """Membranes as they are before the first step."""
    for part in module.modules():
        package = framework_of(part)
        if package == "spikingjelly" and hasattr(part, "reset"):
            part.reset()
        elif package == "snntorch" and hasattr(part, "reset_mem"):
            part.reset_mem()
            if part.init_hidden or isinstance(getattr(part, "mem", None), Tensor):
                part.mem = torch.zeros(0)  # of any batch
        elif package == "reverb_fpga" and callable(getattr(part, "reset", None)):
            part.reset()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, on the processor; afterwards every part as it was, with its state reset."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        reset_state(module)
        for part, training in modes.items():
            part.training = training
