"""Evaluation of the folded form in floating point: calibration, and the proof that folding changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.passes.graph import FoldedLayer, FoldedNetwork
from reverb_fpga.hw.errors import EnvironmentMissing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Observer", "evaluate_folded"]

Observer = Callable[[int, NDArray[np.floating]], None]


def evaluate_folded(
    network: FoldedNetwork,
    pixels: NDArray[np.uint8],
    observer: Observer | None = None,
    *,
    double: bool = True,
) -> NDArray[np.float64]:
    """Logits (N, classes), the mean over T.

    Parameters
    ----------
    pixels : uint8 array (N, C, H, W), or (N, T, C, H, W) where the input is not static
    observer : callable, optional
        Called with each spiking layer's index and what it fires, (N, C, H, W) per step, not rounded.
    double : bool
        64-bit arithmetic; else 32-bit, faster.
    """
    try:
        import torch
    except ImportError:
        raise EnvironmentMissing(
            "torch is not installed, calibration needs it: pip install 'reverb-fpga[train]'"
        ) from None
    dtype = torch.float64 if double else torch.float32
    codes = torch.from_numpy(pixels).to(dtype)
    source = network.input
    codes = codes * torch.from_numpy(source.scale).to(dtype)[:, None, None]
    codes = codes + torch.from_numpy(source.offset).to(dtype)[:, None, None]
    steps = [codes] if codes.dim() == 4 else list(codes.unbind(1))
    with torch.no_grad():
        for index, layer in enumerate(network.layers):
            border = torch.from_numpy(source.zero).to(dtype) if index == 0 else None
            currents = [_current(layer, x, border) for x in steps]
            if len(currents) < network.timesteps:
                currents *= network.timesteps
            if not layer.spiking:
                return torch.stack(currents).mean(dim=0).flatten(1).double().numpy()
            steps = _fire(layer, currents)
            if observer is not None:
                for fired in steps:
                    observer(index, fired.numpy())
    raise ValueError("the last layer must not spike")


def _current(layer: FoldedLayer, x: Tensor, border: Tensor | None) -> Tensor:
    """(N, C_out, H, W): gain * z + bias."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - its customary name

    if layer.padding and border is not None:  # the first layer reads codes: outside the image is the code of zero
        x = F.pad(x - border[:, None, None], (layer.padding * layer.in_pool,) * 4) + border[:, None, None]
    if layer.in_pool > 1:
        x = F.avg_pool2d(x, layer.in_pool, divisor_override=1)
    z = F.conv2d(
        x,
        torch.from_numpy(layer.weight).to(x.dtype),
        stride=layer.stride,
        padding=0 if border is not None else layer.padding,
    )
    if layer.out_pool > 1:
        z = F.avg_pool2d(z, layer.out_pool, divisor_override=1)
    gain, bias = (torch.from_numpy(values).to(x.dtype)[:, None, None] for values in (layer.gain, layer.bias))
    return z * gain + bias


def _fire(layer: FoldedLayer, currents: list[Tensor]) -> list[Tensor]:
    import torch

    threshold = torch.from_numpy(layer.threshold).to(currents[0].dtype)[:, None, None]
    membrane = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        u = membrane + current
        fired = u >= threshold
        spikes.append(u * fired)
        membrane = torch.where(fired, 0.0, u) * layer.tau
    return spikes
