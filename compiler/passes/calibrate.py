"""Calibrate: what one activation code is worth, where training did not fix it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.passes.evaluate import evaluate_folded
from reverb_fpga.compiler.passes.graph import FloatNetwork, FoldedLayer, FoldedNetwork
from reverb_fpga.hw.contract import EVENT_VALUE_BITS
from reverb_fpga.hw.errors import InputError

__all__ = ["Step", "calibrate"]

_SAMPLES = 1 << 18  # values kept per tensor
_BATCH = 32
_SIGMAS = 4.0

Reals = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Step:
    """Codes of one tensor between layers.

    Parameters
    ----------
    step : float
        Value of one code, in what the consumer reads.
    bits : int
        Codes are ``0 .. 2**bits - 1``.
    origin : str
        ``training``, ``calibration``, ``statistics``, ``binary`` for spikes of 1, or ``sums`` for averages of those.
    """

    step: float
    bits: int
    origin: str

    @property
    def code_max(self) -> int:
        """Largest code."""
        return (1 << self.bits) - 1


def calibrate(network: FloatNetwork, folded: FoldedNetwork, images: NDArray[np.uint8] | None) -> dict[str, Step]:
    """The codes of every tensor that a layer fires, by the layer's name.

    Scales learned in training are taken as they are; a binary spike is one code. Others minimise the squared error of
    rounding and clipping over ``images`` (N, C, H, W), or, without images, cover four deviations of the normalised
    current.

    Raises
    ------
    InputError
        If images do not have the network's shape, or a tensor can be scaled in no way.
    """
    steps: dict[str, Step] = {}
    missing = []
    for layer in folded.layers:
        if not layer.spiking:
            continue
        if layer.binary:
            steps[layer.name] = Step(1.0, 1, "binary")
        elif layer.code_step is not None and layer.code_bits is not None:
            steps[layer.name] = Step(layer.code_step, layer.code_bits, "training")
        elif (counted := _counted(layer, steps)) is not None:
            steps[layer.name] = counted
        elif layer.codes_of is None:
            missing.append(layer.name)
    if missing and images is not None:
        samples = _collect(folded, images, missing)
        steps |= {name: _best_step(samples[name]) for name in missing}
    elif missing:
        _add_statistics(network, folded, steps)
    for layer in folded.layers:
        if layer.codes_of is not None:
            steps[layer.name] = steps[layer.codes_of]
    return steps


def _counted(layer: FoldedLayer, steps: dict[str, Step]) -> Step | None:
    """Averages of spikes of 0 and 1 are sums of them, over the window's places: codes that round nothing."""
    if len(layer.maps) > 1:
        return None
    (leg,) = layer.maps
    source, gain = steps.get(leg.source), float(leg.gain[0])
    if source is None or source.origin != "binary" or leg.kind is not WeightKind.UNIT or leg.bias.any():
        return None
    if gain <= 0 or (leg.gain != gain).any() or leg.geometry.pooled >= 1 << EVENT_VALUE_BITS:
        return None
    return Step(gain, EVENT_VALUE_BITS, "sums")


def _collect(folded: FoldedNetwork, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, Reals]:
    """Positive values of some tensors."""
    shape = (len(folded.input.scale), folded.input.height, folded.input.width)
    if images.shape[-3:] != shape or len(images) == 0:
        raise InputError(f"calibration images have shape {images.shape[1:]}, the network takes {shape}")
    kept: dict[str, list[Reals]] = {name: [] for name in names}
    share = max(1, _SAMPLES * _BATCH // len(images))

    def observe(name: str, fired: NDArray[np.floating]) -> None:
        if name in kept:
            live = fired[fired > 0]
            kept[name].append(live[:: max(1, len(live) // share)].astype(np.float64))

    for start in range(0, len(images), _BATCH):
        evaluate_folded(folded, images[start : start + _BATCH], observe, double=False)
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in kept.items()}


def _best_step(values: Reals) -> Step:
    """Clip where the squared error of 8-bit codes is least."""
    top = (1 << EVENT_VALUE_BITS) - 1
    if len(values) == 0 or values.max() <= 0:
        return Step(1.0, EVENT_VALUE_BITS, "calibration")  # nothing ever fires: any scale is right
    candidates = values.max() * np.linspace(0.2, 1.0, 33) / top
    errors = [np.square(np.clip(np.floor(values / step + 0.5), 0, top) * step - values).mean() for step in candidates]
    return Step(float(candidates[int(np.argmin(errors))]), EVENT_VALUE_BITS, "calibration")


def _add_statistics(network: FloatNetwork, folded: FoldedNetwork, steps: dict[str, Step]) -> None:
    """Batch normalisation says how far a current reaches: mean beta, deviation gamma; an identity, what it reads."""
    for layer, done in zip(network.layers, folded.layers, strict=True):
        if not layer.spiking or layer.name in steps:
            continue
        if layer.codes_of is not None:
            steps[layer.name] = steps[layer.codes_of]
            continue
        reach = np.zeros(len(done.threshold))
        for leg, folded_leg in zip(layer.maps, done.maps, strict=True):
            if leg.norm is not None:
                reach += leg.norm.beta + _SIGMAS * np.abs(leg.norm.gamma)
            elif leg.kind is WeightKind.UNIT and leg.source in steps:
                top = steps[leg.source].step * steps[leg.source].code_max * leg.geometry.pooled
                scale = _scale_of(network, layer.name, len(reach))
                reach += folded_leg.gain * top / np.maximum(scale, np.finfo(np.float64).tiny)
            else:
                raise InputError(
                    f"layer {layer.name}: no normalisation and no learned scale, so its codes need calibration "
                    "images: give --dataset and --data-dir"
                )
        top = (1 << EVENT_VALUE_BITS) - 1
        largest = float((reach * _scale_of(network, layer.name, len(reach))).max())
        steps[layer.name] = Step(largest / top if largest > 0 else 1.0, EVENT_VALUE_BITS, "statistics")


def _scale_of(network: FloatNetwork, name: str, channels: int) -> Reals:
    """What multiplies the spikes of a layer before they become codes."""
    alpha = network.tensors[name].alpha if name in network.tensors else None
    if alpha is None:
        return np.ones(channels)
    return np.abs(alpha)
