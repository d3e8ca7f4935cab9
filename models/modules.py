"""Layers for networks of one's own: quantised weights, real-valued spiking neurons, a learned scale per channel.

They go into any ``torch.nn.Module`` beside torch's own layers and train as they are; ``reverb_fpga.compile`` rounds
none of their weights. The trainer's networks (:mod:`~reverb_fpga.models.network`) have the same weights and neurons,
from a description instead of a forward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.layers import WeightSpec
from reverb_fpga.models.neuron import lif
from reverb_fpga.models.quant import effective_weight

__all__ = ["LIF", "QuantConv2d", "QuantLinear", "Scale", "reset"]

_KINDS = ("binary", "scaled", "ternary")


def _spec(weights: str | int) -> WeightSpec:
    """Weights by the name of their kind, or by their number of bits.

    Raises
    ------
    InputError
        For any other.
    """
    if weights == "binary":
        return WeightSpec("binary")
    if weights == "scaled":
        return WeightSpec("scaled")
    if weights == "ternary":
        return WeightSpec("ternary", 2)
    if isinstance(weights, int) and not isinstance(weights, bool) and 2 <= weights <= 8:
        return WeightSpec("multibit", weights)
    raise InputError(f"weights {weights!r}; {', '.join(_KINDS)}, or 2 to 8 bits are supported")


class QuantConv2d(nn.Conv2d):
    """A convolution with quantised weights, whose latent weights learn straight through.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in torch.
    weights : str or int
        ``binary`` -1 and 1; ``scaled``, those times the mean size of the latent weights of each output channel;
        ``ternary`` -1, 0 and 1; or the bits (2..8) of integers with a scale per output channel.

    Raises
    ------
    InputError
        For other weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        weights: str | int = "binary",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.spec = _spec(weights)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C_out, H_out, W_out)."""
        weight = effective_weight(self.weight, self.spec)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class QuantLinear(nn.Linear):
    """A linear layer with quantised weights; as :class:`QuantConv2d`."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, weights: str | int = 4) -> None:
        super().__init__(in_features, out_features, bias)
        self.spec = _spec(weights)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features) to (N, out_features)."""
        return F.linear(x, effective_weight(self.weight, self.spec), self.bias)


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons with hard reset, one time step a call, with real-valued spikes.

    ``U = tau * U * (not fired) + x``; fires ``U`` where ``U >= v_th``, or 1 with ``binary``; else 0. Its gradient is
    that of :func:`reverb_fpga.models.neuron.lif`.

    Parameters
    ----------
    tau : float
        Leak, 0..1.
    v_th : float
        Threshold, at least 0, and above 0 where spikes are binary.
    binary : bool

    Raises
    ------
    InputError
        For another leak or threshold.
    """

    def __init__(self, tau: float = 0.25, v_th: float = 0.0, binary: bool = False) -> None:
        super().__init__()
        if not 0 <= tau <= 1 or v_th < 0 or (binary and v_th == 0):
            raise InputError(
                f"tau {tau}, v_th {v_th}; tau from 0 to 1 and v_th at least 0 are supported, above 0 for binary spikes"
            )
        self.tau, self.v_th, self.binary = tau, v_th, binary
        self.membrane: Tensor | None = None

    def reset(self) -> None:
        """Forget the membrane, before the first step of the next input."""
        self.membrane = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step, of the shape of the current `x`."""
        u = x if self.membrane is None else torch.add(x, self.membrane, alpha=self.tau)
        self.membrane = u * (u < self.v_th)
        return lif(u.unsqueeze(0), 1, self.tau, self.v_th, self.binary).squeeze(0)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, v_th={self.v_th}, binary={self.binary}"


class Scale(nn.Module):
    """A learned factor per channel: the alpha of learnable ReverB, on the spikes that a convolution reads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) times alpha (C,)."""
        return x * self.alpha.reshape(-1, *([1] * (x.dim() - 2)))


def reset(network: nn.Module) -> nn.Module:
    """Forget the membranes of all :class:`LIF` of a network."""
    for part in network.modules():
        if isinstance(part, LIF):
            part.reset()
    return network
