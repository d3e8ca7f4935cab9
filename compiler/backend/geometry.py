"""Where a layer reads: the walk of ``docs/numerics.md`` section 1, and tensor shapes in records and words."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.intnet import IntLayer, IntNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["Axis", "Tensor", "Walk", "tensors_of", "walks_of"]


@dataclasses.dataclass(frozen=True)
class Axis:
    """One dimension of the walk: source coordinate ``o*step + p*pool + k*tap + origin``.

    Parameters
    ----------
    out : int
        Output positions.
    bound : int
        Source coordinates lie in ``0 .. bound-1``; whole pooling windows only.
    """

    out: int
    step: int
    pool: int
    tap: int
    n_pool: int
    n_tap: int
    origin: int
    bound: int

    @property
    def reach(self) -> int:
        """Distance from the first to the last coordinate that one output position reads."""
        return (self.n_pool - 1) * self.pool + (self.n_tap - 1) * self.tap

    def low(self, out: int) -> int:
        """First source coordinate that output ``out`` reads, inside the image."""
        return min(max(out * self.step + self.origin, 0), self.bound - 1)

    def high(self, out: int) -> int:
        """Last source coordinate that output ``out`` reads, inside the image."""
        return min(max(out * self.step + self.origin + self.reach, 0), self.bound - 1)

    @property
    def window(self) -> int:
        """Source rows a ring must hold at least."""
        return max(self.high(out) - self.low(out) + 1 for out in range(self.out))


@dataclasses.dataclass(frozen=True)
class Walk:
    """Both axes of one layer."""

    y: Axis
    x: Axis

    @property
    def pooled(self) -> int:
        """Source positions that share one tap."""
        return self.y.n_pool * self.x.n_pool

    @property
    def taps(self) -> int:
        """Weight positions."""
        return self.y.n_tap * self.x.n_tap

    @property
    def window(self) -> int:
        """Source records one output position may gather."""
        return self.pooled * self.taps


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor between layers as it lies in activation memory; sizes are per bank.

    Parameters
    ----------
    name : str
        Of the layer that produces it, for messages.
    slots : int
        Words of one record.
    stored : bool
        False for the output layer, whose records are empty and need no words.
    """

    name: str
    channels: int
    height: int
    width: int
    timesteps: int
    slots: int
    stored: bool = True

    @property
    def row_records(self) -> int:
        """Records of one row."""
        return self.width * self.timesteps

    @property
    def row_words(self) -> int:
        """Words of one row in each bank."""
        return self.row_records * self.slots if self.stored else 0


def _axis(layer: IntLayer, size: int, kernel: int) -> Axis:
    pooled_in = size // layer.in_pool
    conv = (pooled_in + 2 * layer.padding - kernel) // layer.stride + 1
    out = conv // layer.out_pool
    if pooled_in < 1 or pooled_in + 2 * layer.padding < kernel or out < 1:
        raise InputError(
            f"layer {layer.name}: its input of {size} rows or columns is too small for its kernel and pooling"
        )
    bound = pooled_in * layer.in_pool
    step = layer.out_pool * layer.stride * layer.in_pool
    origin = -layer.padding * layer.in_pool
    if layer.out_pool > 1 and layer.in_pool > 1:
        if layer.stride != 1:
            raise InputError(
                f"layer {layer.name}: pooling before and after a convolution of stride {layer.stride} is not "
                "supported; use stride 1 or pool once"
            )
        # window of windows: out_pool*in_pool neighbouring sources share a tap
        return Axis(out, step, 1, layer.in_pool, layer.out_pool * layer.in_pool, kernel, origin, bound)
    if layer.in_pool > 1:
        return Axis(out, step, 1, layer.in_pool, layer.in_pool, kernel, origin, bound)
    return Axis(out, step, layer.stride, 1, layer.out_pool, kernel, origin, bound)


def walks_of(network: IntNetwork) -> tuple[Walk, ...]:
    """The walk of every layer. Raises InputError where a layer cannot be walked."""
    height, width = network.input.height, network.input.width
    walks = []
    for layer in network.layers:
        walk = Walk(_axis(layer, height, layer.weight.shape[2]), _axis(layer, width, layer.weight.shape[3]))
        walks.append(walk)
        height, width = walk.y.out, walk.x.out
    return tuple(walks)


def tensors_of(network: IntNetwork, walks: tuple[Walk, ...], config: Config) -> tuple[Tensor, ...]:
    """The input and the output of every layer, in order."""
    source = network.input
    steps = 1 if network.static_input else network.timesteps
    tensors = [
        Tensor("input", source.channels, source.height, source.width, steps, -(-source.channels // config.banks))
    ]
    for layer, walk in zip(network.layers, walks, strict=True):
        channels = layer.weight.shape[0]
        tensors.append(
            Tensor(
                layer.name,
                channels,
                walk.y.out,
                walk.x.out,
                network.timesteps,
                -(-channels // config.banks),
                stored=layer.spiking,
            )
        )
    return tuple(tensors)
