"""Layers that are taken whole: torch's, SpikingJelly's of the same names in both step modes, and neurons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from reverb_fpga.compiler.frontends import maps
from reverb_fpga.compiler.frontends.neurons import Neuron, class_of, neuron_of
from reverb_fpga.compiler.frontends.shaping import reshaped
from reverb_fpga.compiler.frontends.tracing import Membrane, Traced, Tracer, numbers
from reverb_fpga.hw.errors import InputError

__all__ = ["handle"]

Run = Callable[[Tracer, Any, Traced], Traced]


def handle(tracer: Tracer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a known layer; NotImplemented where a module is to be looked into."""
    run = _nearest(module)
    if run is not None:
        values = [*args, *kwargs.values()]
        if len(values) != 1 or not isinstance(values[0], Traced) or isinstance(values[0].value, Membrane):
            raise InputError("takes one tensor")
        return run(tracer, module, values[0])
    neuron = neuron_of(module)
    if neuron is not None:
        return _fire(tracer, module, neuron, args, kwargs)
    kind = class_of(module)
    if kind.__module__.startswith("torch.nn.modules.") and not isinstance(
        module, nn.Sequential | nn.ModuleList | nn.ModuleDict
    ):
        supported = ", ".join(name for name in _LAYERS if hasattr(nn, name))
        raise InputError(f"nn.{kind.__name__} has no counterpart on the target; supported are {supported}")
    return NotImplemented


def _nearest(module: nn.Module) -> Run | None:
    """Of a known layer, or of a subclass that keeps its forward: a parametrised one, say."""
    for kind in type(module).__mro__:
        ours = kind.__module__.startswith(("torch.nn.modules.", "spikingjelly."))
        if ours and kind.__name__ in _LAYERS:
            same = all(getattr(kind, name, None) is getattr(type(module), name, None) for name in _COMPUTING)
            return _LAYERS[kind.__name__] if same else None
    return None


_COMPUTING = ("forward", "_forward", "_conv_forward")
"""Methods of a layer, of which a subclass that has one of its own computes something else."""


def _fire(tracer: Tracer, module: Any, neuron: Neuron, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    values = [*args, *kwargs.values()]
    if not values or not isinstance(values[0], Traced) or isinstance(values[0].value, Membrane):
        raise InputError("takes the current as its first tensor")
    (x, *states), name = values, tracer.name_of(module)
    step = tracer.calls().get(name, 0)
    for state in states:
        if isinstance(state, Traced):
            own = isinstance(state.value, Membrane) and (state.value.name, state.value.step) == (name, step - 1)
            if not own:
                raise InputError("is given a membrane that is not its own of the step before")
        elif isinstance(state, Tensor) and bool(state.any()):
            raise InputError("starts with a membrane that is not 0")
        elif isinstance(state, Tensor) and step:
            raise InputError("is given the membrane of its start again; give it that of the step before")
    given = [state.sample if isinstance(state, Traced) else state for state in states]
    result = module.forward(x.sample, *given)
    spikes, *rest = result if isinstance(result, tuple) else (result,)
    fired = tracer.fire(name, spikes, maps.value_of(x), neuron, stateful=True)
    if not isinstance(result, tuple):
        return fired
    return (fired, *(Traced(tracer, state, Membrane(name, step)) for state in rest))


def _weight(module: Any) -> tuple[Tensor, Tensor | None]:
    return module.weight, module.bias


def _conv2d(tracer: Tracer, module: Any, x: Traced) -> Traced:
    if module.padding_mode != "zeros":
        raise InputError(f"padding of {module.padding_mode}; zeros are supported")
    weight, bias = _weight(module)
    padding = module.padding
    if isinstance(padding, str):
        padding = maps.named_padding(padding, module.kernel_size, module.stride, module.dilation)
    value = maps.convolution(
        tracer, maps.value_of(x), (weight, bias), module.stride, padding, module.dilation, module.groups
    )
    return tracer.made(module.forward(x.sample), value)


def _linear(tracer: Tracer, module: Any, x: Traced) -> Traced:
    return tracer.made(module.forward(x.sample), maps.dense(tracer, maps.value_of(x), *_weight(module)))


def _norm(tracer: Tracer, module: Any, x: Traced) -> Traced:
    if module.running_mean is None:
        raise InputError("normalises with the statistics of each batch; track_running_stats=True is supported")
    scale = 1 / np.sqrt(numbers(module.running_var) + module.eps)
    shift = np.zeros_like(scale)
    if module.affine:
        scale, shift = scale * numbers(module.weight), numbers(module.bias)
    return tracer.made(
        module.forward(x.sample), maps.normalised(maps.value_of(x), scale, shift, numbers(module.running_mean))
    )


def _average(tracer: Tracer, module: Any, x: Traced) -> Traced:
    value = maps.average(
        maps.value_of(x), module.kernel_size, module.stride, module.padding, module.ceil_mode,
        module.count_include_pad, module.divisor_override,
    )  # fmt: skip
    return tracer.made(module.forward(x.sample), value)


def _adaptive(tracer: Tracer, module: Any, x: Traced) -> Traced:
    return tracer.made(module.forward(x.sample), maps.adaptive(maps.value_of(x), module.output_size))


def _max(tracer: Tracer, module: Any, x: Traced) -> Traced:
    if module.return_indices:
        raise InputError("returns indices")
    pool = maps.window_of(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    return maps.largest(tracer, tracer.name_of(module), x, module.forward(x.sample), pool)


def _flatten(tracer: Tracer, module: Any, x: Traced) -> Traced:
    return reshaped(tracer, x, module.forward(x.sample))


def _same(tracer: Tracer, module: Any, x: Traced) -> Traced:
    return x


def _relu(tracer: Tracer, module: Any, x: Traced) -> Traced:
    fired = maps.rectified(tracer, tracer.name_of(module), x)
    return x.become(fired) if module.inplace else fired


def _voting(tracer: Tracer, module: Any, x: Traced) -> Traced:
    return tracer.made(module.forward(x.sample), maps.voted(maps.value_of(x), module.voting_size))


_LAYERS: dict[str, Run] = {
    "Conv2d": _conv2d,
    "Linear": _linear,
    "BatchNorm1d": _norm,
    "BatchNorm2d": _norm,
    "AvgPool2d": _average,
    "AdaptiveAvgPool2d": _adaptive,
    "MaxPool2d": _max,
    "Flatten": _flatten,
    "Unflatten": _flatten,
    "ReLU": _relu,
    "Identity": _same,
    "Dropout": _same,
    "Dropout1d": _same,
    "Dropout2d": _same,
    "VotingLayer": _voting,
}
