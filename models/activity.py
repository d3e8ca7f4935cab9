"""Activity of a network: the measured density of events, and a penalty on the expected one.

After batch normalisation a neuron's current has mean ``beta`` and deviation ``|gamma|``, so the share of neurons that
fire is close to ``Phi((beta - threshold) / |gamma|)``: a penalty on it costs nothing per image.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from reverb_fpga.models.network import Layer, LayerTrace, Network

__all__ = ["DensityMeter", "activity_penalty", "expected_density", "set_initial_density"]


def expected_density(layer: Layer, consumer: Layer) -> Tensor:
    """Share of non-zero events (scalar) that `consumer` will read from `layer`, taking the current as normal.

    A spike whose code rounds to zero is no event, so half a step of the consumer's scale is a threshold too.
    """
    norm, neuron = layer.bn, layer.spec.neuron
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or neuron is None:
        return torch.zeros(())
    threshold = torch.full_like(norm.bias, neuron.v_th)
    if consumer.in_scale is not None and consumer.quantised:
        half = consumer.in_scale.detach() / 2
        gain = torch.ones_like(threshold) if consumer.alpha is None else consumer.alpha.detach().abs()
        threshold = torch.maximum(threshold, half / gain.clamp_min(1e-6))
    return torch.special.ndtr((norm.bias - threshold) / norm.weight.abs().clamp_min(1e-6)).mean()


def activity_penalty(network: Network, target: float) -> Tensor:
    """Sum over layers of the expected density above `target` (0..1), differentiable; a scalar."""
    layers = network.stages()
    total = torch.zeros(())
    for layer, consumer in pairwise(layers):
        total = total + torch.relu(expected_density(layer, consumer) - target)
    return total


@torch.no_grad()
def set_initial_density(network: Network, density: float) -> None:
    """Start every normalised layer where a share `density` of the neurons fires: ``beta = v_th + Phi^-1(density)``."""
    offset = float(torch.special.ndtri(torch.tensor(density, dtype=torch.float64)))
    for layer in network.stages():
        if layer.spec.neuron is not None and isinstance(layer.bn, nn.BatchNorm1d | nn.BatchNorm2d):
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
        """Share of non-zero inputs of every layer but the first, by name."""
        return {name: self._live[name] / total for name, total in self._all.items()}

    def mean(self) -> float:
        """Share over all layers together; 0 before anything was counted."""
        return sum(self._live.values()) / max(1, sum(self._all.values()))
