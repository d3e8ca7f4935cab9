"""Where a layer reads: the walk of ``docs/numerics.md`` section 1, and tensor shapes in records and words."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntLayer, IntMap, IntNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["Axis", "Tensor", "Walk", "tensors_of", "walks_of"]

_LARGEST_STEP = 63  # y_step and x_step of a LAYER descriptor
_LOWEST_ORIGIN = -2048  # iy0 and ix0


@dataclasses.dataclass(frozen=True)
class Axis:
    """One dimension of the walk: source coordinate ``o*step + p*pool + k*tap + origin``.

    Parameters
    ----------
    out : int
        Output positions.
    bound : int
        Source coordinates lie in ``0 .. bound-1``; whole pooling windows only.
    only : int or None
        The one output that reads anything; the step leads all others past the source.
    """

    out: int
    step: int
    pool: int
    tap: int
    n_pool: int
    n_tap: int
    origin: int
    bound: int
    only: int | None = None

    @property
    def reading(self) -> int:
        """Outputs that read anything."""
        return self.out if self.only is None else 1

    @property
    def reach(self) -> int:
        """Distance from the first to the last coordinate that one output position reads."""
        return (self.n_pool - 1) * self.pool + (self.n_tap - 1) * self.tap

    def low(self, out: int) -> int:
        """First source coordinate that output ``out`` or a later one reads, inside the image."""
        if self.only is not None:
            if out > self.only:
                return self.bound
            out = self.only
        return min(max(out * self.step + self.origin, 0), self.bound - 1)

    def high(self, out: int) -> int:
        """Last source coordinate that output ``out`` or one before it reads, inside the image; -1 if none."""
        if self.only is not None:
            if out < self.only:
                return -1
            out = self.only
        return min(max(out * self.step + self.origin + self.reach, 0), self.bound - 1)

    @property
    def window(self) -> int:
        """Source rows a ring must hold at least."""
        return max(self.high(out) - self.low(out) + 1 for out in range(self.out))


@dataclasses.dataclass(frozen=True)
class Walk:
    """Both axes of one map."""

    y: Axis
    x: Axis

    def without_sources(self, single: bool) -> Walk:
        """A walk of the same outputs, or of a ``single`` one, that reads nothing: all of it lies below the image."""
        y, x = (
            Axis(1 if single else axis.out, step=0, pool=0, tap=0, n_pool=1, n_tap=1, origin=0, bound=axis.bound)
            for axis in (self.y, self.x)
        )
        return Walk(dataclasses.replace(y, origin=y.bound), x)

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


def _axis(where: str, geometry: Geometry, size: int, kernel: int, axis: int) -> Axis:
    """The walk of one dimension. Both poolings are windows of source coordinates that share a tap.

    Output o covers convolution outputs ``o*ops + jo``; each reads pooled sources ``(.)*s - p + k*d``; pooled source i
    covers ``i*ips - ipp + ji``.
    """
    before, after, part = geometry.in_pool, geometry.out_pool, geometry.beyond[axis]
    s, p, d = geometry.stride[axis], geometry.padding[axis], geometry.dilation[axis]
    iw, ips, ipp = before.window[axis], before.stride[axis], before.padding[axis]
    ow, ops, opp = geometry.positions(axis), after.stride[axis], after.padding[axis]
    if opp and not geometry.continued:
        raise InputError(f"{where}: pooling of its current with padding was not split into what a walk can gather")
    if (p or opp) and iw > ips:
        raise InputError(
            f"{where}: overlapping pooling windows ({iw} wide, stride {ips}) in front of a padded convolution are not "
            "supported; make the pooling a layer of its own"
        )
    pooled, _, out = geometry.sides(size, kernel, axis)
    bound = min(size, (pooled - 1) * ips - ipp + iw)
    first = -opp if part is None else part.first
    step, tap, origin = ops * s * ips, d * ips, (first * s - p) * ips - ipp
    if ow == 1:
        pool, n_pool = 1, iw
    elif iw == 1:
        pool, n_pool = s * ips, ow
    elif s == 1 and iw == ips:
        pool, n_pool = 1, ow * iw  # window of windows: neighbouring sources share a tap
    else:
        raise InputError(
            f"{where}: pooling before and after a convolution is only supported with stride 1 and windows that do not "
            "overlap; pool once, or make the pooling a layer of its own"
        )
    found = Axis(out, step, pool, tap, n_pool, kernel, origin, bound)
    return found if part is None else _single(where, found, part.window)


def _single(where: str, axis: Axis, only: int) -> Axis:
    """An axis, given as output ``only`` reads it, in which no other output reads anything."""
    after = axis.bound - axis.origin if only < axis.out - 1 else 1
    step = max(after, axis.origin + axis.reach + 1 if only > 0 else 1)
    origin = axis.origin - only * step
    if step > _LARGEST_STEP or origin < _LOWEST_ORIGIN:
        raise InputError(
            f"{where}: pooling of its current with padding is not supported for {axis.out} windows over a side of "
            f"{axis.bound}: at the border a walk steps over the whole side, at most {_LARGEST_STEP} positions, and "
            f"begins at {_LOWEST_ORIGIN} at the lowest; pool the spikes, or pad the convolution"
        )
    return dataclasses.replace(axis, step=step, origin=origin, only=only)


def _walk(layer: IntLayer, leg: IntMap, height: int, width: int) -> Walk:
    where = f"layer {layer.name}"
    leg.geometry.out_shape(where, (height, width), leg.kernel)
    return Walk(
        _axis(where, leg.geometry, height, leg.kernel[0], 0), _axis(where, leg.geometry, width, leg.kernel[1], 1)
    )


def walks_of(network: IntNetwork) -> tuple[tuple[Walk, ...], ...]:
    """The walks of every layer, one per map.

    Raises InputError where a layer cannot be walked, or its maps do not have one shape.
    """
    sides = {INPUT: (network.input.height, network.input.width)}
    found = []
    for layer in network.layers:
        walks = tuple(_walk(layer, leg, *sides[leg.source]) for leg in layer.maps)
        shapes = {(walk.y.out, walk.x.out) for walk in walks}
        if len(shapes) > 1:
            raise InputError(f"layer {layer.name}: its shortcut has another shape than its convolution")
        found.append(walks)
        sides[layer.name] = shapes.pop()
    return tuple(found)


def tensors_of(network: IntNetwork, walks: tuple[tuple[Walk, ...], ...], config: Config) -> tuple[Tensor, ...]:
    """The input and the output of every layer, in order."""
    source = network.input
    tensors = [
        Tensor(
            INPUT,
            source.channels,
            source.height,
            source.width,
            network.input_steps,
            -(-source.channels // config.banks),
        )
    ]
    for layer, legs in zip(network.layers, walks, strict=True):
        tensors.append(
            Tensor(
                layer.name,
                layer.channels,
                legs[-1].y.out,
                legs[-1].x.out,
                layer.timesteps,
                -(-layer.channels // config.banks),
                stored=layer.spiking,
            )
        )
    return tuple(tensors)
