"""The quantised network: integers and shapes only, before tiling, allocation and scheduling.

The front end (folding, calibration) produces it from a trained network, random tests produce it directly, the
back end lowers it to a program. Its meaning is ``docs/numerics.md``; a direct reference is ``compiler/reference.py``.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray

__all__ = ["IntInput", "IntLayer", "IntNetwork", "WeightKind"]


class WeightKind(enum.Enum):
    """How integer weights become binary planes."""

    BINARY = "binary"  # -1, +1: one plane, z = 2P - S
    TERNARY = "ternary"  # -1, 0, +1: two planes
    MULTIBIT = "multibit"  # two's complement of `bits` planes


@dataclasses.dataclass(frozen=True, eq=False)
class IntInput:
    """Input tensor: unsigned codes.

    Parameters
    ----------
    channels, height, width : int
    pad_codes : uint8 array (channels,)
        The code outside the image, per channel (0: no event).
    """

    channels: int
    height: int
    width: int
    pad_codes: NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class IntLayer:
    """A convolution (a linear layer is one whose kernel covers its input) with its neurons.

    Parameters
    ----------
    weight : int array (C_out, C_in, K_h, K_w)
    kind, bits : how the weights are stored; ``bits`` only for MULTIBIT
    stride, padding : int
        Of the convolution, in pooled input coordinates. Padding is zeros, or the input's pad codes in the first layer.
    in_pool : int
        The sum over in_pool x in_pool windows of the input codes is what is convolved (1: none).
    out_pool : int
        The current is summed over out_pool x out_pool windows of the convolution's output (1: none).
        Windows that do not fit are dropped, as in torch.
    gain : uint16-valued int array (C_out,); r_shift : int
    bias, threshold : int24-valued array (C_out,)
    tau_q : int, 0..256
    code_max : int, 1..255
    spiking : bool
        False only in the last layer.
    """

    name: str
    weight: NDArray[np.int64]
    kind: WeightKind
    bits: int
    stride: int
    padding: int
    in_pool: int
    out_pool: int
    gain: NDArray[np.int64]
    r_shift: int
    bias: NDArray[np.int64]
    threshold: NDArray[np.int64]
    tau_q: int
    code_max: int
    spiking: bool


@dataclasses.dataclass(frozen=True, eq=False)
class IntNetwork:
    """A sequential network of T time steps; ``static_input``: every step sees the same image."""

    input: IntInput
    layers: tuple[IntLayer, ...]
    timesteps: int
    static_input: bool
