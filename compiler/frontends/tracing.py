"""Runs somebody's module once on samples and notes what every tensor stands for.

``torch``'s own protocol for tensor-like objects (``__torch_function__``) carries a :class:`Traced` through any forward:
beside the numbers it holds the :class:`~reverb_fpga.compiler.frontends.values.Value` that they stand for. So shapes are
known, loops over time simply run, and only control flow that looks at values is impossible. Layers are taken whole
(:mod:`layers`), functions one by one (:mod:`functions`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reverb_fpga.compiler.frontends.neurons import Neuron
from reverb_fpga.compiler.frontends.running import own_name, told, unwrapped
from reverb_fpga.compiler.frontends.values import (
    EVERY,
    OUTPUT,
    SEQUENCE,
    Largest,
    Shape,
    Time,
    Total,
    Value,
    tensor_value,
)
from reverb_fpga.compiler.geometry import Pool
from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.hw.errors import InputError

__all__ = ["Fired", "Membrane", "Traced", "Tracer", "numbers"]


@dataclasses.dataclass(frozen=True, eq=False)
class Membrane:
    """The state that a neuron hands out to be given back at the next step."""

    name: str
    step: int


@dataclasses.dataclass(frozen=True, eq=False)
class Fired:
    """A layer of neurons: what it receives, and what it is. ``neuron`` None: the largest of a pooling window, which is
    the ``in_pool`` of the current's one term."""

    name: str
    current: Value
    neuron: Neuron | None


def _operator(name: str, swapped: bool = False) -> Any:
    """A method that is the operator of that name."""

    def method(self: Traced, other: Any) -> Any:
        return self.tracer.function(name, (other, self) if swapped else (self, other), {})

    return method


class Traced:
    """A tensor on its way through a module: ``sample``, its numbers for the samples that the trace runs on, and what it
    stands for.
    """

    def __init__(self, tracer: Tracer, sample: Tensor, value: Value | Membrane | Largest) -> None:
        self.tracer, self.sample, self.value = tracer, sample, value

    @property
    def data(self) -> Traced:
        """Of a tensor: itself, without its gradient."""
        return self

    def become(self, other: Traced) -> Traced:
        """Change in place."""
        self.sample, self.value = other.sample, other.value
        return self

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tracer = next(found.tracer for found in _traced((args, kwargs)))
        return tracer.function(getattr(func, "__name__", str(func)), args, dict(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "layout"):
            return getattr(self.sample, name)
        if name in ("dim", "size", "numel", "get_device", "is_floating_point", "__len__"):
            return getattr(self.sample, name)
        if name in ("T", "mT", "H", "mH", "real", "imag", "grad"):
            raise self.tracer.refuse(f"takes .{name} of a tensor, which has no counterpart on the target")
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.tracer.function(name, (self, *args), kwargs)

    def __len__(self) -> int:
        return len(self.sample)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __bool__(self) -> bool:
        raise InputError(f"{self.tracer.where}: its forward decides by values of a tensor, which are not known before")

    __float__ = __int__ = __index__ = __bool__

    def __getitem__(self, index: Any) -> Any:
        return self.tracer.function("getitem", (self, index), {})

    __add__, __iadd__ = _operator("add"), _operator("add_")
    __radd__ = _operator("add", swapped=True)
    __sub__, __isub__ = _operator("sub"), _operator("sub_")
    __rsub__ = _operator("sub", swapped=True)
    __mul__, __imul__ = _operator("mul"), _operator("mul_")
    __rmul__ = _operator("mul", swapped=True)
    __truediv__, __itruediv__ = _operator("div"), _operator("div_")
    __rtruediv__ = _operator("div", swapped=True)
    __matmul__, __rmatmul__ = _operator("matmul"), _operator("matmul", swapped=True)
    __pow__, __rpow__ = _operator("pow"), _operator("pow", swapped=True)
    __floordiv__, __mod__ = _operator("floor_divide"), _operator("remainder")
    __and__, __or__, __xor__ = _operator("bitwise_and"), _operator("bitwise_or"), _operator("bitwise_xor")
    __gt__, __ge__, __lt__, __le__ = _operator("gt"), _operator("ge"), _operator("lt"), _operator("le")
    __eq__, __ne__ = _operator("eq"), _operator("ne")
    __hash__ = object.__hash__

    def __neg__(self) -> Any:
        return self.tracer.function("neg", (self,), {})

    def __abs__(self) -> Any:
        return self.tracer.function("abs", (self,), {})

    def __invert__(self) -> Any:
        return self.tracer.function("bitwise_not", (self,), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        raise self.tracer.refuse("writes into a part of a tensor")


class Tracer:
    """One run of a module.

    Attributes
    ----------
    fired : dict of str to Fired
        Layers of neurons in the order in which they were met.
    timesteps : int
        Of what has state.
    input_shape : (C, H, W)
    """

    def __init__(self, module: nn.Module, shape: Shape) -> None:
        self.fired: dict[str, Fired] = {}
        self.timesteps = 1
        self.input_shape = shape
        self._calls: dict[str, int] = {}
        self._names = {id(part): own_name(name) for name, part in module.named_modules()}
        self._stack: list[str] = []
        self.handlers: list[Callable[[Tracer, nn.Module, tuple[Any, ...], dict[str, Any]], Any]] = []
        self.functions: dict[str, Callable[..., Any]] = {}

    @property
    def part(self) -> str:
        """Name of the module that runs; of the whole it is empty."""
        return self._stack[-1] if self._stack else ""

    @property
    def where(self) -> str:
        """The layer that runs."""
        return f"layer {self.part}" if self.part else "the module itself"

    def name_of(self, module: nn.Module) -> str:
        """Its name in the whole module; the network itself is called by its class."""
        name = self._names.get(id(module)) or type(module).__name__
        return f"{name}_" if name in _TAKEN else name

    def input(self, data: Tensor, time: Time, *, flat: bool) -> Traced:
        """The tensor that the module takes."""
        return Traced(self, data, tensor_value(INPUT, self.input_shape, time, flat=flat, binary=False))

    def made(self, data: Tensor, value: Value | Membrane | Largest) -> Traced:
        """A result."""
        return Traced(self, data, value)

    def refuse(self, what: str) -> InputError:
        """An error that names the layer that runs."""
        return InputError(f"{self.where}: {what}")

    def function(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of torch, or an operator; of one in place, the tensor that it changed."""
        plain = _PLAIN.get(name.strip("_"), name.strip("_"))
        inplace = (name.endswith("_") and not name.startswith("_")) or name.startswith("__i") or kwargs.get("inplace")
        if plain[:1] == "r" and plain[1:] in ("add", "sub", "mul", "div"):
            plain, args = plain[1:], (args[1], args[0])
        run = self.functions.get(plain)
        if run is None:
            hint = f": {_HINTS[plain]}" if plain in _HINTS else ""
            raise self.refuse(f"torch.{plain} has no counterpart on the target{hint}")
        result = self._named(lambda: run(self, *args, **kwargs))
        if not inplace or result is args[0]:
            return result
        if not isinstance(args[0], Traced):
            raise self.refuse(f"torch.{name} writes what was computed into a tensor that was not")
        return args[0].become(result)

    def fire(self, name: str, data: Tensor, current: Value, neuron: Neuron | None, *, stateful: bool) -> Traced:
        """Spikes (the numbers in ``data``) of a layer of neurons that receives ``current``; with state, at its next
        step."""
        if isinstance(current.time, Total):
            raise self.refuse("neurons that read a sum over time")
        time = self._next_step(name, data, current) if stateful else current.time
        binary = neuron is None or neuron.binary
        known = self.fired.get(name)
        if known is None:
            self.fired[name] = Fired(name, current.at(EVERY), neuron)
        elif not known.current.same(current):
            raise self.refuse("is called with one tensor at one time and with another at another")
        spikes = tensor_value(name, current.shape, time, flat=current.flat, binary=binary)
        return self.made(data, spikes if neuron is None else spikes.scaled(neuron.factor))

    def fire_largest(self, name: str, data: Tensor, fired: Value, pool: Pool, shape: Shape) -> Traced:
        """The largest of every window of spikes of 0 and more: an average in form, which the assembly knows better."""
        name = self.unit(name, pooled := fired.pooled(pool, shape), None)
        self.fired.setdefault(name, Fired(name, pooled.at(EVERY), None))
        return self.made(data, tensor_value(name, shape, fired.time, flat=False, binary=fired.binary))

    def unit(self, base: str, current: Value, neuron: Neuron | None) -> str:
        """A name for neurons without state, of which one module may make several: one for each current."""
        count = 1
        while True:
            name = base if count == 1 else f"{base}.{count}"
            known = self.fired.get(name)
            if known is None or (known.neuron is neuron and known.current.same(current)):
                return name
            count += 1

    def _next_step(self, name: str, data: Tensor, current: Value) -> Time:
        step = self._calls.get(name, 0)
        if current.time == SEQUENCE or (current.time == EVERY and data.dim() > _dims(current)):
            if step:
                raise self.refuse("is called twice without a reset of its state")
            self._calls[name] = len(data)
            self.timesteps = max(self.timesteps, len(data))
            return SEQUENCE
        if current.time not in (EVERY, step):
            raise self.refuse(
                f"is called for the {step + 1}. time with a tensor of {_told(current.time)}: neurons with state serve "
                "one layer, once a time step"
            )
        self._calls[name] = step + 1
        self.timesteps = max(self.timesteps, step + 1)
        return step

    def calls(self) -> dict[str, int]:
        """How many steps every layer with state has run."""
        return dict(self._calls)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Modules that are called in this block are seen."""
        plain = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if next(_traced((args, kwargs)), None) is None:
                return plain(module, *args, **kwargs)
            self._stack.append(self.name_of(unwrapped(module)))
            try:
                return self._hooked(unwrapped(module), args, kwargs)
            except InputError:
                raise
            except Exception as error:  # of a forward that does with its tensors what a traced one cannot
                raise self.refuse(f"its forward cannot be followed: {told(error)}") from error
            finally:
                self._stack.pop()

        nn.Module.__call__ = call
        try:
            yield
        finally:
            nn.Module.__call__ = plain

    def _hooked(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call with the hooks that stand around it: pruning, for one, makes its weights in such."""
        for key, before in module._forward_pre_hooks.items():
            if key in module._forward_pre_hooks_with_kwargs:
                args, kwargs = before(module, args, kwargs) or (args, kwargs)
            elif (given := before(module, args)) is not None:
                args = given if isinstance(given, tuple) else (given,)
        result = self._called(module, args, kwargs)
        for key, after in module._forward_hooks.items():
            keyed = key in module._forward_hooks_with_kwargs
            other = after(module, args, kwargs, result) if keyed else after(module, args, result)
            result = result if other is None else other
        return result

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for handler in self.handlers:
            result = self._named(partial(handler, self, module, args, kwargs))
            if result is not NotImplemented:
                return result
        return module.forward(*args, **kwargs)

    def _named(self, run: Callable[[], Any]) -> Any:
        """Errors name the layer."""
        try:
            return run()
        except InputError as error:
            text = str(error)
            raise error if text.startswith(("layer ", "the module itself")) else self.refuse(text) from None


_PLAIN = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "truediv": "div", "true_divide": "div",
    "divide": "div", "multiply": "mul", "subtract": "sub", "rtruediv": "rdiv",
}  # fmt: skip
"""Names that mean the same."""


_TAKEN = (INPUT, OUTPUT)
_LOSS = "leave it to the loss; the largest logit stays the largest"
_DECIDES = "only neurons of a known module compare with a threshold"
_DRAWS = "what is drawn at random is no function of the input; give samples with time (T, N, C, H, W)"
_HINTS = {
    **dict.fromkeys(("softmax", "log_softmax"), _LOSS),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne", "where", "sign", "heaviside"), _DECIDES),
    **dict.fromkeys(("bernoulli", "rand_like", "randn_like", "poisson"), _DRAWS),
}


def _dims(value: Value) -> int:
    """Dimensions of a tensor of one step: batch and features, or batch, channels, rows, columns."""
    return 2 if value.flat else 4


def _told(time: Time) -> str:
    return f"step {time + 1}" if isinstance(time, int) else "several steps"


def _traced(values: Any) -> Iterator[Traced]:
    if isinstance(values, Traced):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _traced(value)
    elif isinstance(values, dict):
        yield from _traced(list(values.values()))


def numbers(tensor: Tensor) -> NDArray[np.float64]:
    """A parameter in numpy, whatever its type."""
    return tensor.detach().cpu().to(torch.float64).numpy()
