"""The quantised network: integers and shapes only, before tiling, allocation and scheduling.

The front end (folding, calibration) produces it from a trained network, random tests produce it directly, the
back end lowers it to a program. Its meaning is ``docs/numerics.md``; a direct reference is ``compiler/reference.py``.

A network is a graph: every layer fires one tensor, which any later layer may read. A chain is the special case.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Geometry, Pair
from reverb_fpga.hw.contract import Gate

__all__ = ["INPUT", "IntGate", "IntInput", "IntLayer", "IntMap", "IntNetwork", "Leg", "WeightKind"]

INPUT = "input"
"""Name of the image's tensor."""


class WeightKind(enum.Enum):
    """How integer weights become binary planes."""

    BINARY = "binary"  # -1, +1: one plane, z = 2P - S
    TERNARY = "ternary"  # -1, 0, +1: two planes
    MULTIBIT = "multibit"  # two's complement of `bits` planes
    UNIT = "unit"  # 0, 1: one plane, z = P; identity shortcuts and pooling without weights


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
class IntMap:
    """One summand of a layer's current: a convolution (a linear map is one whose kernel covers its source).

    Parameters
    ----------
    source : str
        The tensor that is read: :data:`INPUT` or the name of an earlier layer.
    weight : int array (C_out, C_in, K_h, K_w)
    kind, bits : how the weights are stored; ``bits`` only for MULTIBIT
    geometry : Geometry
    gain : uint16-valued int array (C_out,); r_shift : int
    bias : int24-valued array (C_out,)
    """

    source: str
    weight: NDArray[np.int64]
    kind: WeightKind
    bits: int
    geometry: Geometry
    gain: NDArray[np.int64]
    r_shift: int
    bias: NDArray[np.int64]

    @property
    def kernel(self) -> Pair:
        """Rows and columns of the kernel."""
        return self.weight.shape[2], self.weight.shape[3]


@dataclasses.dataclass(frozen=True, eq=False)
class IntGate:
    """A sigmoid of the mean over all positions, by which a layer's own current is multiplied, per channel and step.

    Parameters
    ----------
    gain, bias : int array (C_out,); r_shift : int
        As those of the layer's last map, in units of the sum over the positions.
    factor : int18-valued array (T,)
        Of the sum, by step; ``factor * sum / 2**20`` is the sigmoid's argument in sixteenths.
    """

    gain: NDArray[np.int64]
    r_shift: int
    bias: NDArray[np.int64]
    factor: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Leg:
    """One descriptor of a strip. ``position``: of its map; None where it gathers nothing."""

    gate: Gate
    position: int | None

    @property
    def once(self) -> bool:
        """It runs before the first strip and not again: what it does concerns the whole map."""
        return self.gate in (Gate.SUM, Gate.SIGMOID)


@dataclasses.dataclass(frozen=True, eq=False)
class IntLayer:
    """Neurons and the maps that feed them.

    Parameters
    ----------
    maps : tuple of IntMap
        Their currents are added in this order (``docs/numerics.md`` section 3): shortcuts first, last the one that
        fires. All of one output shape.
    threshold : int24-valued array (C_out,)
    tau_q : int, 0..256
    code_max : int, 1..255
    spiking : bool
        False only in the last layer.
    timesteps : int
        Steps that its records hold: the network's, or 1 if every step is the same.
    gate : IntGate or None
        Multiplies the current of the last map before the others are added.
    reset : uint23-valued int or None
        What the membrane of a neuron that fires is lowered by, before it leaks; None: it is set to 0.
    order : tuple of int (C_out,) or None
        For every channel which one it is of the network that was compiled; None: the same.
    """

    name: str
    maps: tuple[IntMap, ...]
    threshold: NDArray[np.int64]
    tau_q: int
    code_max: int
    spiking: bool
    timesteps: int
    gate: IntGate | None = None
    reset: int | None = None
    order: tuple[int, ...] | None = None

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.maps[-1].weight.shape[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """Tensors that it reads, one per map."""
        return tuple(leg.source for leg in self.maps)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """Descriptors of a strip, in order; the last one fires. Those that run once come first."""
        own = len(self.maps) - 1
        if self.gate is None:
            return tuple(Leg(Gate.NONE, position) for position in range(len(self.maps)))
        # what fires must be a leg that is not gated; without a shortcut it gathers nothing
        rest: tuple[int | None, ...] = tuple(range(own)) or (None,)
        gated = (Leg(Gate.SUM, own), Leg(Gate.SIGMOID, None), Leg(Gate.APPLY, own))
        return (*gated, *(Leg(Gate.NONE, position) for position in rest))

    def map_of(self, leg: Leg) -> IntMap:
        """Its map; for a leg that gathers nothing the layer's own, whose source it names."""
        return self.maps[-1 if leg.position is None else leg.position]


@dataclasses.dataclass(frozen=True, eq=False)
class IntNetwork:
    """A network of T time steps, its layers in an order in which they can be computed.

    ``static_input``: every step sees the same image.
    """

    input: IntInput
    layers: tuple[IntLayer, ...]
    timesteps: int
    static_input: bool

    @property
    def input_steps(self) -> int:
        """Steps that the input's records hold."""
        return 1 if self.static_input else self.timesteps

    def index(self, name: str) -> int:
        """Position of the layer that fires a tensor; -1 for the input. Raises KeyError if there is none."""
        if name == INPUT:
            return -1
        for position, layer in enumerate(self.layers):
            if layer.name == name:
                return position
        raise KeyError(name)

    def steps_of(self, name: str) -> int:
        """Steps that a tensor's records hold."""
        position = self.index(name)
        return self.input_steps if position < 0 else self.layers[position].timesteps

    def top_of(self, name: str) -> int:
        """Largest code of a tensor; an input pixel may have any 8-bit code."""
        position = self.index(name)
        return 255 if position < 0 else self.layers[position].code_max
