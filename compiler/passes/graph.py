"""What the front end's passes hand on: the float graph, then its folded form."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import WeightKind

__all__ = ["FloatLayer", "FloatNetwork", "FoldedInput", "FoldedLayer", "FoldedNetwork", "Norm"]

Reals = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """Batch normalisation in evaluation: ``gamma * (c - mean) / sigma + beta``; all (C_out,), sigma > 0."""

    gamma: Reals
    beta: Reals
    mean: Reals
    sigma: Reals


@dataclasses.dataclass(frozen=True, eq=False)
class FloatLayer:
    """A layer as trained. The order of its steps is that of ``models/description.py``.

    Parameters
    ----------
    weight : int64 array (C_out, C_in, K_h, K_w)
        Signs, or multi-bit integers; a linear layer's kernel covers its input.
    weight_scale : float64 array (C_out,)
        Real weight of one integer.
    alpha : float64 array (C_in,) or None
        Scale of each input channel.
    code_step, code_bits : float and int, or None
        The scale and bits with which training rounded this layer's input.
    in_pool, out_pool : int
        Average pooling of the input (the producer's spikes) and of the current.
    bias : float64 array (C_out,)
        Added after pooling the current, before normalisation.
    """

    name: str
    weight: Ints
    kind: WeightKind
    bits: int
    weight_scale: Reals
    alpha: Reals | None
    code_step: float | None
    code_bits: int | None
    stride: int
    padding: int
    in_pool: int
    out_pool: int
    bias: Reals
    norm: Norm | None
    tau: float
    v_th: float
    spiking: bool


@dataclasses.dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A trained network; its input is ``(pixel - mean) / std`` per channel."""

    height: int
    width: int
    mean: tuple[int, ...]
    std: tuple[float, ...]
    layers: tuple[FloatLayer, ...]
    timesteps: int
    static_input: bool


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedInput:
    """Codes of the input, real-valued until rounded: ``code = pixel * scale + offset``, per channel.

    Parameters
    ----------
    zero : int64 array (C,)
        The code of a normalised 0, 0..255: exact, because ``offset`` makes it an integer.
    """

    height: int
    width: int
    scale: Reals
    offset: Reals
    zero: Ints


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedLayer:
    """``y = gain * z + bias`` with ``z`` the plain sum of integer weights times what the source holds.

    Real numbers are per output channel and gains are not negative: signs are in the weights; pooling divisors,
    normalisation and weight scale in ``gain`` and ``bias``; the next layer's ``|alpha|`` in gain, bias and threshold.

    Parameters
    ----------
    code_step, code_bits : float and int, or None
        Value of one code of this layer's input, where training fixed it.
    """

    name: str
    weight: Ints
    kind: WeightKind
    bits: int
    stride: int
    padding: int
    in_pool: int
    out_pool: int
    gain: Reals
    bias: Reals
    threshold: Reals
    tau: float
    spiking: bool
    code_step: float | None
    code_bits: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """The network in folded form; logits are the mean over T of the last layer's ``y``."""

    input: FoldedInput
    layers: tuple[FoldedLayer, ...]
    timesteps: int
    static_input: bool
