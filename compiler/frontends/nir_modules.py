"""NIR graphs as torch modules of one time step, which are then imported as any other.

NIR's neurons are differential equations; a step is one of Euler's method of length `dt`, from a membrane of 0, and a
neuron fires where its membrane is above the threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverb_fpga.hw.errors import InputError

__all__ = ["EulerLIF", "NirModule"]


class EulerLIF(nn.Module):
    """``v = tau*v + gain*x``; fires 1 where ``v > v_th`` and is set to 0.

    Parameters
    ----------
    tau, gain, v_th : Tensor
        One for all, or one per neuron.
    """

    def __init__(self, tau: Tensor, gain: Tensor, v_th: Tensor) -> None:
        super().__init__()
        self.register_buffer("tau", tau)
        self.register_buffer("gain", gain)
        self.register_buffer("v_th", v_th)
        self.v: Tensor | None = None

    def reset(self) -> None:
        """Forget the membrane."""
        self.v = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step."""
        self.v = self.gain * x if self.v is None else self.tau * self.v + self.gain * x
        fired = (self.v > self.v_th).to(x.dtype)
        self.v = self.v * (1 - fired)
        return fired


class NirModule(nn.Module):
    """One time step of a ``nir.NIRGraph`` with one input and one output.

    Raises
    ------
    InputError
        A node that has no counterpart, or a graph that is none of feed-forward layers; names the node.
    """

    def __init__(self, graph: Any, dt: float) -> None:
        super().__init__()
        self._sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self._sources[target].append(source)
        kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
        self._ends = [[name for name, kind in kinds.items() if kind == end] for end in ("Input", "Output")]
        if any(len(end) != 1 for end in self._ends):
            raise InputError("a NIR graph with one input and one output is wanted")
        self._order = self._sorted()
        for name in self._order:
            if kinds[name] not in ("Input", "Output"):
                try:
                    self._modules[_key(name)] = _module(graph.nodes[name], kinds[name], dt)  # under any name
                except InputError as error:
                    raise InputError(f"layer {name}: {error}") from None

    def forward(self, x: Tensor) -> Tensor:
        """What the output node receives."""
        found = {self._ends[0][0]: x}
        for name in self._order:
            sources = self._sources[name]
            if not sources:
                continue
            total = found[sources[0]]
            for source in sources[1:]:
                total = total + found[source]
            part = self._modules.get(_key(name))
            found[name] = total if part is None else part(total)
        return found[self._ends[1][0]]

    def _sorted(self) -> list[str]:
        """Every node after those that it reads."""
        order: list[str] = []
        waiting = dict(self._sources)
        while waiting:
            ready = [name for name, sources in waiting.items() if all(source in order for source in sources)]
            if not ready:
                raise InputError(f"layer {next(iter(waiting))}: a recurrent connection; only feed-forward graphs are")
            order += ready
            waiting = {name: sources for name, sources in waiting.items() if name not in ready}
        return order


def _key(name: str) -> str:
    return name.replace(".", "_")


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).copy())


def _pair(values: Any) -> tuple[int, int]:
    sides = np.broadcast_to(np.asarray(values), 2)
    return int(sides[0]), int(sides[1])


def _module(node: Any, kind: str, dt: float) -> nn.Module:
    if kind in ("Linear", "Affine"):
        return _linear(node)
    if kind == "Conv2d":
        return _conv2d(node)
    if kind == "Flatten":
        return nn.Flatten()
    if kind in ("AvgPool2d", "SumPool2d"):
        divisor = 1 if kind == "SumPool2d" else None
        window, stride, padding = (_pair(value) for value in (node.kernel_size, node.stride, node.padding))
        return nn.AvgPool2d(window, stride, padding, divisor_override=divisor)
    if kind in ("IF", "LIF"):
        return _neurons(node, kind, dt)
    raise InputError(
        f"{kind} nodes have no counterpart; supported are Linear, Affine, Conv2d, Flatten, AvgPool2d, SumPool2d, IF "
        "and LIF"
    )


def _linear(node: Any) -> nn.Linear:
    weight, bias = _tensor(node.weight), getattr(node, "bias", None)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = _tensor(bias)
    return layer


def _conv2d(node: Any) -> nn.Conv2d:
    weight = _tensor(node.weight)
    out, own, *kernel = weight.shape
    padding = node.padding if isinstance(node.padding, str) else _pair(node.padding)
    groups = int(node.groups)
    layer = nn.Conv2d(
        own * groups, out, (kernel[0], kernel[1]), _pair(node.stride), padding, _pair(node.dilation), groups
    )
    layer.weight.data, bias = weight, _tensor(node.bias).reshape(-1)
    assert layer.bias is not None
    layer.bias.data = bias.expand(out).clone()
    return layer


def _neurons(node: Any, kind: str, dt: float) -> EulerLIF:
    if np.any(np.asarray(node.v_reset) != 0) or np.any(np.asarray(getattr(node, "v_leak", 0)) != 0):
        raise InputError("v_reset or v_leak other than 0")
    resistance, threshold = _tensor(node.r), _tensor(node.v_threshold)
    if kind == "IF":
        return EulerLIF(torch.ones(1), _one(resistance * dt), threshold)
    rate = dt / _tensor(node.tau)
    return EulerLIF(_one(1 - rate), _one(rate * resistance), threshold)


def _one(values: Tensor) -> Tensor:
    """One number where all are the same."""
    return values.flatten()[:1] if bool((values == values.flatten()[0]).all()) else values
