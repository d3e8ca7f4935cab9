"""What the front end's passes hand on: the float graph, then its folded form.

Both are graphs of layers: a layer's neurons receive the sum of its maps, and fire a tensor of the layer's name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import WeightKind

__all__ = [
    "FloatGate",
    "FloatLayer",
    "FloatMap",
    "FloatNetwork",
    "FloatTensor",
    "FoldedGate",
    "FoldedInput",
    "FoldedLayer",
    "FoldedMap",
    "FoldedNetwork",
    "Norm",
]

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
class FloatTensor:
    """What training knows of a tensor between layers.

    Parameters
    ----------
    alpha : float64 array (C,) or None
        Scale of each channel, seen by every convolution that reads it, and by its quantiser; shortcuts do not see it.
    code_step, code_bits : float and int, or None
        The scale and bits with which training rounded ``abs(alpha) * x``.
    """

    alpha: Reals | None = None
    code_step: float | None = None
    code_bits: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class FloatMap:
    """One summand of a layer's current. The order of its steps is that of ``models/description.py``.

    Parameters
    ----------
    source : str
        The tensor it reads.
    weight : int64 array (C_out, C_in, K_h, K_w)
        Numbers that are no integers only in networks that are evaluated in floating point and not compiled.
        Signs, or multi-bit integers; a linear layer's kernel covers its input; an identity is {0, 1}.
    weight_scale : float64 array (C_out,)
        Real value of one integer.
    scaled : bool
        Whether it sees the tensor's alpha; an identity does not.
    geometry : Geometry
        Its poolings are averages here.
    bias : float64 array (C_out,)
        Added after pooling the current, before normalisation.
    """

    source: str
    weight: Ints | Reals
    kind: WeightKind
    bits: int
    weight_scale: Reals
    scaled: bool
    geometry: Geometry
    bias: Reals
    norm: Norm | None


@dataclasses.dataclass(frozen=True, eq=False)
class FloatGate:
    """The current of a layer's own map times ``sigmoid(factor[t] * mean over the positions)``.

    Parameters
    ----------
    factor : float64 array (T,)
    positions : int
        Rows times columns of the current.
    """

    factor: Reals
    positions: int


@dataclasses.dataclass(frozen=True, eq=False)
class FloatLayer:
    """Neurons as trained.

    Parameters
    ----------
    maps : tuple of FloatMap
        Shortcuts first, the layer's own last.
    binary : bool
        Spikes of 1 instead of the membrane potential.
    timesteps : int
        Steps that are computed: 1 where every step is proven to be the same.
    gate : FloatGate or None
        Of the last map, before the others are added.
    reset : float or None
        Soft reset: what the membrane of a neuron that fires is lowered by, before it leaks; None: it is set to 0.
    strict : bool
        Fires where the membrane is above ``v_th``, not where it equals it.
    codes_of : str or None
        The tensor whose codes it fires, scale and width alike; None: codes of its own.
    """

    name: str
    maps: tuple[FloatMap, ...]
    tau: float
    v_th: float
    spiking: bool
    binary: bool
    timesteps: int
    gate: FloatGate | None = None
    reset: float | None = None
    strict: bool = False
    codes_of: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Tensors that it reads, one per map."""
        return tuple(leg.source for leg in self.maps)


@dataclasses.dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A trained network; its input is ``(pixel - mean) / std`` per channel. ``tensors``: by the name of their layer."""

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[FloatLayer, ...]
    tensors: Mapping[str, FloatTensor]
    timesteps: int
    static_input: bool


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedInput:
    """Codes of the input, real-valued until rounded: ``code = pixel * scale + offset``, per channel.

    Parameters
    ----------
    zero : int64 array (C,)
        The code outside the image, 0..255: that of a normalised 0, or the nearest.
    centre : float64 array (C,)
        The code of a normalised 0. ``offset`` makes it an integer where channels are scaled; else as it was given.
    """

    height: int
    width: int
    scale: Reals
    offset: Reals
    zero: Ints
    centre: Reals


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedMap:
    """``gain * z + bias`` with ``z`` the plain sum of integer weights times what the source holds.

    Real numbers are per output channel and gains are not negative: signs are in the weights; pooling divisors,
    normalisation, weight scale and the ``abs(alpha)`` of what the layer fires are in ``gain`` and ``bias``.
    """

    source: str
    weight: Ints
    kind: WeightKind
    bits: int
    geometry: Geometry
    gain: Reals
    bias: Reals


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedGate:
    """The gate of a current that carries ``abs(alpha)``.

    Parameters
    ----------
    factor : float64 array (T,)
    scale : float64 array (C_out,)
        Makes the mean what it was without ``abs(alpha)``; 0 where that is 0, and the current with it.
    positions : int
    reach : float or None
        The largest mean that its normalisation lets one expect; None without normalisation.
    usual, deviation : float64 array (C_out,) or None
        Mean and deviation of the current that its normalisation lets one expect, with ``abs(alpha)``.
    """

    factor: Reals
    scale: Reals
    positions: int
    reach: float | None = None
    usual: Reals | None = None
    deviation: Reals | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedLayer:
    """Neurons that fire what their readers' quantiser sees: ``abs(alpha) * x`` (threshold scaled alike).

    Parameters
    ----------
    code_step, code_bits : float and int, or None
        Value of one code of what it fires, where training fixed it.
    codes_of : str or None
        The tensor that has the same codes.
    """

    name: str
    maps: tuple[FoldedMap, ...]
    threshold: Reals
    tau: float
    spiking: bool
    binary: bool
    timesteps: int
    code_step: float | None
    code_bits: int | None
    gate: FoldedGate | None = None
    reset: float | None = None
    strict: bool = False
    codes_of: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """The network in folded form; logits are the mean over T of the last layer's current."""

    input: FoldedInput
    layers: tuple[FoldedLayer, ...]
    timesteps: int
    static_input: bool
