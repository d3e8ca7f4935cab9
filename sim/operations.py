"""Synaptic operations and estimated energy of a program, per layer and image, counted by the golden model.

A synaptic operation is one addition that an event causes in one neuron. The energy is an estimate as papers on spiking
networks make it, not a measurement of this accelerator: 77 fJ per synaptic operation, taken from neuromorphic chips,
and 12.5 pJ per FLOP of the first layer, whose input is no spikes; one FLOP is one product with its addition. Memory
traffic, the clock and leakage are in neither figure.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config

from .golden import GoldenModel

__all__ = ["LayerOperations", "Operations", "count_operations"]

JOULES_PER_OPERATION = 77e-15
JOULES_PER_FLOP = 12.5e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """One layer, mean per image.

    Attributes
    ----------
    name : str
    dense : int
        Additions if every input were an event.
    additions : float
        Synaptic operations; for the first layer, its FLOPs.
    """

    name: str
    dense: int
    additions: float

    @property
    def density(self) -> float:
        """Share of the dense additions that events cause, 0..1."""
        return self.additions / self.dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operations:
    """One model, mean per image. `energy` is in joules: the first layer's FLOPs and all others' synaptic operations."""

    model: str
    timesteps: int
    images: int
    layers: tuple[LayerOperations, ...]

    @property
    def additions(self) -> float:
        """Synaptic operations of all layers but the first."""
        return sum(layer.additions for layer in self.layers[1:])

    @property
    def first_energy(self) -> float:
        """Joules of the first layer."""
        return self.layers[0].additions * JOULES_PER_FLOP

    @property
    def energy(self) -> float:
        """Joules of one image."""
        return self.first_energy + self.additions * JOULES_PER_OPERATION

    def as_dict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return dataclasses.asdict(self) | {
            "additions": self.additions,
            "first_layer_joules": self.first_energy,
            "joules": self.energy,
            "densities": {layer.name: layer.density for layer in self.layers[1:]},
        }


def count_operations(program: Program, config: Config, codes: NDArray[np.uint8]) -> Operations:
    """Count over input codes (N, H, W, C) or (N, T_in, H, W, C)."""
    golden = GoldenModel(program, config)
    events = dict.fromkeys((descriptor for info in program.layers for descriptor, _, _ in info.strips), 0.0)
    steps = dict.fromkeys(events, 1)
    for start in range(0, len(codes), golden.batch):
        for found in golden.statistics(codes[start : start + golden.batch]):
            events[found.index] += float(found.gathered.sum())
            steps[found.index] = found.gathered.shape[1]
    layers = []
    for index, info in enumerate(program.layers):
        dense = info.additions * steps[info.strips[0][0]]
        gathered = sum(events[descriptor] for descriptor, _, _ in info.strips)
        additions = gathered / len(codes) * info.shape[0] if index else float(dense)
        layers.append(LayerOperations(name=info.name, dense=dense, additions=additions))
    return Operations(model=program.name, timesteps=program.timesteps, images=len(codes), layers=tuple(layers))
