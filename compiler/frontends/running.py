"""Runs somebody's module on samples as it is, and leaves it as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reverb_fpga.compiler.frontends.neurons import framework_of
from reverb_fpga.compiler.frontends.values import Shape
from reverb_fpga.hw.errors import InputError

__all__ = [
    "Samples",
    "evaluating",
    "fed",
    "first_of",
    "own_name",
    "reset_state",
    "rounds_of",
    "run_module",
    "told",
    "unwrapped",
]

_BATCH = 128
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


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
        """Some of the inputs, as a copy: a module may change what it is given."""
        return torch.tensor(self.data[:, rows] if self.timed else self.data[rows])


def unwrapped(module: nn.Module) -> nn.Module:
    """Without ``DataParallel`` and ``torch.compile`` around it."""
    while (inner := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, inner)
    return module


def own_name(name: str) -> str:
    """The name of a part without those of the wrappers."""
    return ".".join(part for part in name.split(".") if part != _WRAPPERS["OptimizedModule"])


def run_module(
    module: nn.Module, samples: Samples, timesteps: int | None, count: int | None = None
) -> NDArray[np.float64]:
    """What the module itself returns for every input, or the first of them: (N, classes).

    Raises
    ------
    InputError
        If it fails, or returns no finite numbers (N, classes).
    """
    found = []
    total = len(samples) if count is None else min(count, len(samples))
    whole = samples.timed and timesteps is None  # the module gets all time steps in one call
    with torch.no_grad(), evaluating(module):
        for start in range(0, total, _BATCH):
            reset_state(module)
            x = fed(module, samples.part(slice(start, min(start + _BATCH, total))), samples, timesteps)
            rounds = rounds_of(module, samples, timesteps)
            stepped = samples.timed and rounds > 1
            results = [
                _numbers(_called(module, x[turn] if stepped else x, whole=whole), min(_BATCH, total - start))
                for turn in range(rounds)
            ]
            found.append(sum(results[1:], results[0]) / rounds)
    return np.concatenate(found)


def _called(module: nn.Module, x: Tensor, *, whole: bool) -> Any:
    try:
        return module(x)
    except Exception as error:  # whatever somebody's forward raises
        hint = f"; if it takes one time step a call, say timesteps={len(x)}" if whole else ""
        raise InputError(f"the module fails on samples of shape {tuple(x.shape)}: {told(error)}{hint}") from error


def told(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _multi_step(module: nn.Module) -> bool:
    """Whether layers of SpikingJelly take all steps at once."""
    return any(getattr(part, "step_mode", None) == "m" for part in module.modules())


def fed(module: nn.Module, x: Tensor, samples: Samples, timesteps: int | None) -> Tensor:
    """With time as the first dimension where the module takes it and the samples have none."""
    x = x.to(_precision(module))
    if timesteps is None or samples.timed or not _multi_step(module):
        return x
    return x.unsqueeze(0).repeat(timesteps, *([1] * x.dim()))


def rounds_of(module: nn.Module, samples: Samples, timesteps: int | None) -> int:
    """How often the module is called for one sample: with the same one, or with one time step of it after another."""
    if samples.timed and timesteps not in (None, len(samples.data)):
        raise InputError(f"timesteps {timesteps}, but the samples have {len(samples.data)} time steps")
    return 1 if timesteps is None or _multi_step(module) else timesteps


def first_of(result: Any) -> Any:
    """Of several results (spikes and membranes, say) the first."""
    while isinstance(result, tuple | list) and result:
        result = result[0]
    return result


def _numbers(result: Any, count: int) -> NDArray[np.float64]:
    """(N, classes) of one call; steps (T, N, classes) are summed."""
    data = first_of(result)
    if not isinstance(data, Tensor) or data.dim() < 2:
        kind = f"tensor of shape {tuple(data.shape)}" if isinstance(data, Tensor) else type(data).__name__
        raise InputError(f"the module returns a {kind}; a tensor of logits (N, classes) is wanted")
    if data.dim() == 3:
        data = data.sum(0)
    if len(data) != count:
        raise InputError(f"the module returns shape {tuple(data.shape)} for {count} samples; (N, classes) is wanted")
    if not bool(torch.isfinite(data).all()):
        raise InputError("the module returns numbers that are not finite for the samples")
    numbers: NDArray[np.float64] = data.flatten(1).double().numpy()
    return numbers


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


def _precision(module: nn.Module) -> torch.dtype:
    """float64 if any of its numbers are, else float32, which holds BF16 and F16 exactly."""
    found = {tensor.dtype for tensor in (*module.parameters(), *module.buffers())}
    return torch.float64 if torch.float64 in found else torch.float32


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, in float32 or float64, not compiled; afterwards every part as it was, its state reset.

    Raises
    ------
    InputError
        If it lies on another device, or has parameters without values.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            raise InputError(f"{name} of the module has no values yet (a lazy layer): run the module once before")
        if tensor.is_complex():
            raise InputError(f"{name} of the module is complex; real numbers are supported")
        if tensor.device.type != "cpu":
            raise InputError(f"{name} of the module lies on {tensor.device}: give module.cpu()")
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InputError("a module of torch.jit cannot be followed: give the one that it was made from")
    modes = {part: part.training for part in module.modules()}
    kept = [(tensor, tensor.data) for tensor in module.parameters()]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    try:
        module.eval()
    except NotImplementedError:  # of torch.export
        raise InputError(
            "the module cannot be put into evaluation mode (torch.export?): give the one that it was made from"
        ) from None
    module.to(_precision(module))
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for tensor, data in kept:
            tensor.data = data
        for part, own in buffers:
            part._buffers.update(own)
        reset_state(module)
        for part, training in modes.items():
            part.training = training
