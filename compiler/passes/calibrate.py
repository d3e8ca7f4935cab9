"""Calibrate: what one activation code is worth, where training did not fix it."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.passes.evaluate import evaluate_folded
from reverb_fpga.compiler.passes.graph import FloatNetwork, FoldedNetwork
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
        ``training``, ``calibration`` or ``statistics``.
    """

    step: float
    bits: int
    origin: str

    @property
    def code_max(self) -> int:
        """Largest code."""
        return (1 << self.bits) - 1


def calibrate(network: FloatNetwork, folded: FoldedNetwork, images: NDArray[np.uint8] | None) -> tuple[Step, ...]:
    """The codes of every tensor between two layers, in order.

    Scales learned in training are taken as they are. Others minimise the squared error of rounding and clipping over
    ``images`` (N, C, H, W), or, without images, cover four deviations of the normalised current.

    Raises
    ------
    InputError
        If images do not have the network's shape, or a tensor can be scaled in no way.
    """
    missing = [index for index, layer in enumerate(folded.layers[1:]) if layer.code_step is None]
    steps = {
        index: Step(layer.code_step, layer.code_bits, "training")
        for index, layer in enumerate(folded.layers[1:])
        if layer.code_step is not None and layer.code_bits is not None
    }
    if missing and images is not None:
        samples = _collect(folded, images)
        steps |= {index: _best_step(samples[index]) for index in missing}
    elif missing:
        steps |= {index: _from_statistics(network, index) for index in missing}
    return tuple(steps[index] for index in range(len(folded.layers) - 1))


def _collect(folded: FoldedNetwork, images: NDArray[np.uint8]) -> list[Reals]:
    """Positive values of every tensor between layers."""
    shape = (len(folded.input.scale), folded.input.height, folded.input.width)
    if images.shape[-3:] != shape or len(images) == 0:
        raise InputError(f"calibration images have shape {images.shape[1:]}, the network takes {shape}")
    kept: list[list[Reals]] = [[] for _ in folded.layers]
    share = max(1, _SAMPLES * _BATCH // len(images))

    def observe(index: int, fired: NDArray[np.floating]) -> None:
        live = fired[fired > 0]
        kept[index].append(live[:: max(1, len(live) // share)].astype(np.float64))

    for start in range(0, len(images), _BATCH):
        evaluate_folded(folded, images[start : start + _BATCH], observe, double=False)
    return [np.concatenate(parts) if parts else np.zeros(0) for parts in kept]


def _best_step(values: Reals) -> Step:
    """Clip where the squared error of 8-bit codes is least."""
    top = (1 << EVENT_VALUE_BITS) - 1
    if len(values) == 0 or values.max() <= 0:
        return Step(1.0, EVENT_VALUE_BITS, "calibration")  # nothing ever fires: any scale is right
    candidates = values.max() * np.linspace(0.2, 1.0, 33) / top
    errors = [np.square(np.clip(np.floor(values / step + 0.5), 0, top) * step - values).mean() for step in candidates]
    return Step(float(candidates[int(np.argmin(errors))]), EVENT_VALUE_BITS, "calibration")


def _from_statistics(network: FloatNetwork, index: int) -> Step:
    """Batch normalisation says how far the current of a channel reaches: mean beta, deviation gamma."""
    norm, alpha = network.layers[index].norm, network.layers[index + 1].alpha
    if norm is None:
        raise InputError(
            f"layer {network.layers[index].name}: no normalisation and no learned scale, so its codes need calibration "
            "images: give --dataset and --data-dir"
        )
    currents = norm.beta + _SIGMAS * np.abs(norm.gamma)
    reach = float((currents if alpha is None else currents * np.abs(alpha)).max())
    top = (1 << EVENT_VALUE_BITS) - 1
    return Step(reach / top if reach > 0 else 1.0, EVENT_VALUE_BITS, "statistics")
