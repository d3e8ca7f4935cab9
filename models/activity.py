"""Activity of a network: the measured density of events, and a penalty on the expected one.

After batch normalisation a neuron's current has mean ``beta`` and deviation ``|gamma|``, so the share of neurons that
fire is close to ``Phi((beta - threshold) / |gamma|)``: a penalty on it costs nothing per image. Currents are not quite
normal, and shortcuts add to them, so its level is that of the events of a few images, its slope that of the formula.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reverb_fpga.models.activation import Activation
from reverb_fpga.models.description import DensityOver
from reverb_fpga.models.network import Layer, LayerTrace, Network

__all__ = ["STEEPER", "DensityMeter", "activity_penalty", "expected_density", "set_initial_density"]

STEEPER = 10.0
"""A tenth of density above its target pulls three times as hard as none."""


def expected_density(layer: Layer, tensor: Activation) -> Tensor:
    """Share of non-zero events (scalar) that readers of `tensor` will find, taking the current of `layer` as normal.

    A spike whose code rounds to zero is no event, so half a step of the tensor's codes is a threshold too. Shortcuts
    are not in it. 0 where the current is not normalised, or gated.
    """
    norm, spec = layer.bn, layer.spec
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or not norm.affine or spec.neuron is None or spec.gate:
        return torch.zeros(())
    threshold = torch.full_like(norm.bias, spec.neuron.v_th)
    if tensor.rounds and tensor.scale is not None:
        half = tensor.scale.detach() / 2
        gain = torch.ones_like(threshold) if tensor.alpha is None else tensor.alpha.detach().abs()
        threshold = torch.maximum(threshold, half / gain.clamp_min(1e-6))
    return torch.special.ndtr((norm.bias - threshold) / norm.weight.abs().clamp_min(1e-6)).mean()


def activity_penalty(network: Network, target: float, over: DensityOver = "layer") -> Tensor:
    """``e + STEEPER * e**2``, a scalar; e is the density above `target` (0..1).

    Over ``"layer"``: summed over tensors. Over ``"network"``: of the density of all tensors together, by their neurons,
    so that training finds which layers to make sparse.

    The density is the one last counted (:attr:`Activation.density`), or where none was, the expected one; its gradient
    is that of the expected one. The slope grows with the distance to the target, so that low targets are reached; the
    linear part reaches them wholly.
    """
    known = [
        (tensor.spec.name, density)
        for tensor in network.activations()
        if (density := _density(network.layer(tensor.spec.name), tensor)) is not None
    ]
    if not known:
        return torch.zeros(())
    densities = torch.stack([density.to(network.mean.device) for _, density in known])
    if over == "network":
        neurons = _neurons(network)
        share = torch.tensor([float(neurons[name]) for name, _ in known], device=densities.device)
        densities = (densities * share / share.sum()).sum(0, keepdim=True)
    excess = torch.relu(densities - target)
    return (excess + STEEPER * excess**2).sum()


def _neurons(network: Network) -> dict[str, int]:
    """Of every layer, by name."""
    spec = network.spec
    return {layer.name: math.prod(shapes.out) for layer, shapes in zip(spec.layers, spec.shapes(), strict=True)}


def _density(layer: Layer, tensor: Activation) -> Tensor | None:
    """Of `tensor`, a scalar: as counted, with the gradient of what is expected; None: not known."""
    density = expected_density(layer, tensor)
    if tensor.density is not None:
        return density + (tensor.density - density.detach())
    return None if layer.spec.shortcuts else density  # the formula lacks what they add


@torch.no_grad()
def set_initial_density(network: Network, density: float) -> None:
    """Start every normalised layer where a share `density` of the neurons fires: ``beta = v_th + Phi^-1(density)``."""
    offset = float(torch.special.ndtri(torch.tensor(density, dtype=torch.float64)))
    for layer in network.stages():
        if layer.spec.neuron is not None and layer.spec.bn == "affine":
            assert isinstance(layer.bn, nn.BatchNorm1d | nn.BatchNorm2d)
            layer.bn.bias.fill_(layer.spec.neuron.v_th + offset)


class DensityMeter:
    """Counts the non-zero events of every layer over many batches."""

    def __init__(self) -> None:
        self._live: dict[str, int] = {}
        self._all: dict[str, int] = {}

    def add(self, traces: list[LayerTrace]) -> None:
        """Count one forward pass."""
        for trace in traces:
            if trace.events is not None:
                self._live[trace.name] = self._live.get(trace.name, 0) + int(torch.count_nonzero(trace.events))
                self._all[trace.name] = self._all.get(trace.name, 0) + trace.events.numel()

    def densities(self) -> dict[str, float]:
        """Share of non-zero inputs of every layer that reads spikes, by name."""
        return {name: self._live[name] / total for name, total in self._all.items()}

    def mean(self) -> float:
        """Share over all layers together; 0 before anything was counted."""
        return sum(self._live.values()) / max(1, sum(self._all.values()))
