"""Evaluation of the folded form in floating point: calibration, and the proof that folding changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Pool
from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.compiler.passes.graph import FoldedGate, FoldedLayer, FoldedMap, FoldedNetwork
from reverb_fpga.hw.errors import EnvironmentMissing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Observer", "evaluate_folded"]

Observer = Callable[[str, NDArray[np.floating]], None]


def evaluate_folded(
    network: FoldedNetwork,
    pixels: NDArray[np.uint8] | NDArray[np.float64],
    observer: Observer | None = None,
    *,
    double: bool = True,
) -> NDArray[np.float64]:
    """Logits (N, classes), the mean over T.

    Parameters
    ----------
    pixels : array (N, C, H, W), or (N, T, C, H, W) where the input is not static
        uint8; or real-valued, to leave out their rounding.
    observer : callable, optional
        Called with each spiking layer's name and what it fires, (N, C, H, W) per step, not rounded.
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
    tensors = {INPUT: [codes] if codes.dim() == 4 else list(codes.unbind(1))}
    border = torch.from_numpy(source.zero).to(dtype)
    with torch.no_grad():
        for layer in network.layers:
            currents = _currents(layer, tensors, border)
            if not layer.spiking:
                return torch.stack(currents).mean(dim=0).flatten(1).double().numpy()
            tensors[layer.name] = _fire(layer, currents)
            if observer is not None:
                for fired in tensors[layer.name]:
                    observer(layer.name, fired.numpy())
    raise ValueError("the last layer must not spike")


def _currents(layer: FoldedLayer, tensors: dict[str, list[Tensor]], border: Tensor) -> list[Tensor]:
    """The sum of a layer's maps at each of its steps."""
    found = []
    for leg in layer.maps:
        steps = [_current(leg, x, border if leg.source == INPUT else None) for x in tensors[leg.source]]
        found.append(steps * layer.timesteps if len(steps) < layer.timesteps else steps)
    if layer.gate is not None:
        found[-1] = [_gated(layer.gate, step, current) for step, current in enumerate(found[-1])]
    return [sum(step[1:], step[0]) for step in zip(*found, strict=True)]


def _gated(gate: FoldedGate, step: int, current: Tensor) -> Tensor:
    import torch

    mean = current.mean(dim=(2, 3), keepdim=True) * torch.from_numpy(gate.scale).to(current.dtype)[:, None, None]
    return current * torch.sigmoid(float(gate.factor[step]) * mean)


def _current(leg: FoldedMap, x: Tensor, border: Tensor | None) -> Tensor:
    """(N, C_out, H, W): gain * z + bias of one map."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - its customary name

    geometry = leg.geometry
    zero = 0.0 if border is None else border[:, None, None]  # the image is read as codes: outside is the code of zero
    x = _sums(x - zero, geometry.in_pool)
    z = F.conv2d(
        x,
        torch.from_numpy(leg.weight).to(x.dtype),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )
    z = _sums(z, geometry.out_pool)
    gain, bias = (torch.from_numpy(values).to(x.dtype)[:, None, None] for values in (leg.gain, leg.bias))
    if border is not None:
        z = z + torch.einsum("oikl,i->o", torch.from_numpy(leg.weight).to(x.dtype), border)[:, None, None] * (
            geometry.pooled
        )
    return z * gain + bias


def _sums(x: Tensor, pool: Pool) -> Tensor:
    import torch.nn.functional as F  # noqa: N812 - its customary name

    if pool.size == 1 and pool.stride == (1, 1):
        return x
    return F.avg_pool2d(x, pool.window, pool.stride, pool.padding, divisor_override=1)


def _fire(layer: FoldedLayer, currents: list[Tensor]) -> list[Tensor]:
    import torch

    threshold = torch.from_numpy(layer.threshold).to(currents[0].dtype)[:, None, None]
    membrane = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        u = membrane + current
        fired = u > threshold if layer.strict else u >= threshold
        spikes.append(fired.to(u.dtype) if layer.binary else u * fired)
        after = torch.zeros_like(u) if layer.reset is None else u - layer.reset
        membrane = torch.where(fired, after, u) * layer.tau
    return spikes
