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

from reverb_fpga.compiler.program import INPUT_TENSOR, LayerInfo, Program
from reverb_fpga.hw.config import Config

from .golden import GoldenModel

__all__ = ["LayerOperations", "MapOperations", "Operations", "count_operations"]

JOULES_PER_OPERATION = 77e-15
JOULES_PER_FLOP = 12.5e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOperations:
    """One leg of a layer; fields as those of the layer."""

    dense: int
    additions: float


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
    maps : tuple of MapOperations
        Its parts, one per leg.
    """

    name: str
    dense: int
    additions: float
    maps: tuple[MapOperations, ...] = ()

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
    gathered = dict.fromkeys(range(1, program.n_descriptors - 1), 0.0)
    steps = dict.fromkeys(gathered, 1)
    for start in range(0, len(codes), golden.batch):
        for found in golden.statistics(codes[start : start + golden.batch]):
            gathered[found.index] += float(found.gathered.sum()) / len(codes)
            steps[found.index] = found.gathered.shape[1]
    layers = []
    for info in program.layers:
        legs = []
        for position, leg in enumerate(info.maps):
            strips = info.descriptors_of(position)
            whole = leg.additions * steps[strips[0]]
            found_here: float = whole
            if leg.source != INPUT_TENSOR:
                found_here = sum(gathered[strip] for strip in strips) * _additions_per_event(program, info, position)
            legs.append(MapOperations(dense=whole, additions=found_here))
        dense, additions = sum(leg.dense for leg in legs), sum(leg.additions for leg in legs)
        layers.append(LayerOperations(name=info.name, dense=dense, additions=additions, maps=tuple(legs)))
    return Operations(model=program.name, timesteps=program.timesteps, images=len(codes), layers=tuple(layers))


def _additions_per_event(program: Program, info: LayerInfo, position: int) -> float:
    """What a gathered event adds to: every output channel, or through an identity one."""
    _, fields = program.descriptor(info.descriptors_of(position)[0])
    window = fields["n_pool_y"] * fields["n_pool_x"] * fields["n_tap_y"] * fields["n_tap_x"]
    channels = program.layers[info.maps[position].source].shape[0]
    return info.maps[position].additions / (window * channels * info.shape[1] * info.shape[2])
