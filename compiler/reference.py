"""Direct evaluation of a quantised network: ``docs/numerics.md`` by dense convolution, layer by layer.

Slow and plain on purpose. The back end (through the golden model) and the golden model are checked against it; it knows
nothing of passes, records, strips or memories.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Geometry, Pair, Pool
from reverb_fpga.compiler.intnet import INPUT, IntGate, IntLayer, IntMap, IntNetwork
from reverb_fpga.hw.errors import InputError

__all__ = ["Reference", "evaluate", "gates"]

Tensor = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Result of :func:`evaluate`.

    Parameters
    ----------
    codes : tuple of int64 array (N, T, H, W, C), one per layer, T its own steps
        Activation codes; all zero for a layer that does not spike.
    currents : tuple of int64 array, same shapes
        ``z`` of every layer's last map.
    membrane : int64 array (N, H, W, C)
        Of the last layer after the last step.
    """

    codes: tuple[Tensor, ...]
    currents: tuple[Tensor, ...]
    membrane: Tensor

    @property
    def logits(self) -> Tensor:
        """int64 array (N, outputs). Raises InputError if the last layer has more than one position."""
        _, height, width, _ = self.membrane.shape
        if (height, width) != (1, 1):
            raise InputError(f"the last layer has {height} x {width} positions instead of one")
        return self.membrane[:, 0, 0]


def evaluate(
    network: IntNetwork,
    codes: NDArray[np.uint8],
    *,
    fraction_bits: int = 8,
    membrane_width: int = 24,
    skip_width: int = 18,
) -> Reference:
    """Evaluate ``network`` on input codes (N, T_in, H, W, C); T_in is 1 if the input is static, else T.

    Raises
    ------
    InputError
        If the codes do not have the network's input shape, or a kernel is larger than its input.
    """
    shape = (network.input_steps, network.input.height, network.input.width, network.input.channels)
    if codes.shape[1:] != shape:
        raise InputError(f"input codes have shape {codes.shape[1:]} per image, the network takes {shape}")
    widths = _Widths(fraction_bits, membrane_width, skip_width)
    tensors = {INPUT: codes.astype(np.int64)}
    all_codes, currents = [], []
    membrane = tensors[INPUT][:, 0]
    for layer in network.layers:
        z = [_current(layer, leg, tensors[leg.source], _pad(network, leg)) for leg in layer.maps]
        fired, membrane = _neurons(layer, z, widths)
        tensors[layer.name] = fired
        all_codes.append(fired)
        currents.append(np.repeat(z[-1], layer.timesteps // z[-1].shape[1], axis=1))
    return Reference(tuple(all_codes), tuple(currents), membrane)


@dataclasses.dataclass(frozen=True)
class _Widths:
    fraction: int
    membrane: int
    skip: int


def _pad(network: IntNetwork, leg: IntMap) -> Tensor:
    """Codes outside the source, per channel."""
    if leg.source == INPUT:
        return network.input.pad_codes.astype(np.int64)
    return np.zeros(leg.weight.shape[1], dtype=np.int64)


def _window_sum(tensor: Tensor, pool: Pool, pad: Tensor) -> Tensor:
    """Sum over windows of axes 2, 3; what does not fill a window is dropped, the border holds ``pad``."""
    tensor = _bordered(tensor, pool.padding, pad)
    rows, cols = ((tensor.shape[2 + axis] - pool.window[axis]) // pool.stride[axis] + 1 for axis in range(2))
    total = np.zeros((*tensor.shape[:2], max(rows, 0), max(cols, 0), tensor.shape[-1]), dtype=np.int64)
    for y in range(pool.window[0]):
        for x in range(pool.window[1]):
            total += _strided(tensor, (y, x), (rows, cols), pool.stride)
    return total


def _bordered(tensor: Tensor, border: Pair, pad: Tensor) -> Tensor:
    n, steps, height, width, channels = tensor.shape
    padded = np.empty((n, steps, height + 2 * border[0], width + 2 * border[1], channels), dtype=np.int64)
    padded[...] = pad
    padded[:, :, border[0] : border[0] + height, border[1] : border[1] + width] = tensor
    return padded


def _strided(tensor: Tensor, first: Pair, count: Pair, stride: Pair) -> Tensor:
    """``count`` positions from ``first`` on, every ``stride``-th."""
    rows, cols = (
        slice(at, at + (number - 1) * step + 1, step) for at, number, step in zip(first, count, stride, strict=True)
    )
    return tensor[:, :, rows, cols]


def _current(layer: IntLayer, leg: IntMap, tensor: Tensor, pad: Tensor) -> Tensor:
    """z (N, T_in, H_out, W_out, C_out) of one map."""
    geometry = leg.geometry
    geometry.out_shape(f"layer {layer.name}", (tensor.shape[2], tensor.shape[3]), leg.kernel)
    pooled = _window_sum(tensor, geometry.in_pool, pad)
    pad = pad * geometry.in_pool.size  # a pooled position outside the image is a window of pad records
    if geometry.continued:
        return _continued(leg, pooled, pad)
    padded = _bordered(pooled, geometry.padding, pad)
    rows, cols = (geometry.sides(tensor.shape[2 + axis], leg.kernel[axis], axis)[1] for axis in range(2))
    n, steps = padded.shape[:2]
    z = np.zeros((n, steps, rows, cols, leg.weight.shape[0]), dtype=np.int64)
    for ky in range(leg.kernel[0]):
        for kx in range(leg.kernel[1]):
            first = (ky * geometry.dilation[0], kx * geometry.dilation[1])
            source = _strided(padded, first, (rows, cols), geometry.stride)
            z += source @ leg.weight[:, :, ky, kx].T.astype(np.int64)
    return _window_sum(z, geometry.out_pool, np.zeros(z.shape[-1], dtype=np.int64))


def _continued(leg: IntMap, pooled: Tensor, pad: Tensor) -> Tensor:
    """z of a map whose convolution goes on beyond its border, summed over what it takes of every window."""
    geometry, rows = leg.geometry, []
    reach = [(leg.kernel[axis] - 1) * geometry.dilation[axis] for axis in range(2)]
    # so many positions more on each side that the first of them reads nothing but pad
    more = [geometry.out_pool.padding[axis] + reach[axis] // geometry.stride[axis] + 1 for axis in range(2)]
    border = (more[0] * geometry.stride[0] + geometry.padding[0], more[1] * geometry.stride[1] + geometry.padding[1])
    tensor = np.asarray(_bordered(pooled, border, pad))
    for axis in range(2):
        convolved = (pooled.shape[2 + axis] + 2 * geometry.padding[axis] - reach[axis] - 1) // geometry.stride[axis] + 1
        rows.append(_taken(geometry, axis, convolved, more[axis]))
    count = tuple((tensor.shape[2 + axis] - reach[axis] - 1) // geometry.stride[axis] + 1 for axis in range(2))
    z = np.zeros((*tensor.shape[:2], *count, leg.weight.shape[0]), dtype=np.int64)
    for ky in range(leg.kernel[0]):
        for kx in range(leg.kernel[1]):
            first = (ky * geometry.dilation[0], kx * geometry.dilation[1])
            source = _strided(tensor, first, (count[0], count[1]), geometry.stride)
            z += source @ leg.weight[:, :, ky, kx].T.astype(np.int64)
    return z[:, :, rows[0]].sum(axis=3)[:, :, :, rows[1]].sum(axis=4)


def _taken(geometry: Geometry, axis: int, convolved: int, more: int) -> NDArray[np.int64]:
    """Positions (windows, positions of each) of a current of `convolved` positions and `more` on each side."""
    pool, part = geometry.out_pool, geometry.beyond[axis]
    windows = np.arange(pool.out(convolved, axis))[:, None]
    if part is None:
        return windows * pool.stride[axis] - pool.padding[axis] + np.arange(pool.window[axis]) + more
    own = part.first + np.arange(part.number) + more
    return np.where(windows == part.window, own, 0)  # position 0 reads nothing but pad


def _clip(values: Tensor, width: int) -> Tensor:
    return np.clip(values, -(1 << (width - 1)), (1 << (width - 1)) - 1)


def _input_of(leg: IntMap, z: Tensor, skip: Tensor | None, widths: _Widths) -> Tensor:
    """y of one map at one step: scaled, biased, and what the maps before it left added."""
    half = 1 << (leg.r_shift - 1) if leg.r_shift > 0 else 0
    q = _clip((z * leg.gain + half) >> leg.r_shift, widths.membrane)
    return _clip(q + leg.bias + (0 if skip is None else skip), widths.membrane)


def gates(gate: IntGate, z: Tensor, step: int) -> Tensor:
    """Gates (N, C), 0..256, of currents z (N, H, W, C) of one step, in the usual widths."""
    return _gates(gate, z, step, _Widths(8, 24, 18))


def _gates(gate: IntGate, z: Tensor, step: int, widths: _Widths) -> Tensor:
    """Gates (N, C), 0..256, of one step: position after position, as the sum is made."""
    n, height, width, channels = z.shape
    half = 1 << (gate.r_shift - 1) if gate.r_shift > 0 else 0
    q = _clip((z * gate.gain + half) >> gate.r_shift, widths.membrane).reshape(n, height * width, channels)
    total = np.zeros((n, channels), dtype=np.int64)
    for position in range(height * width):
        total = _clip(_clip(q[:, position] + gate.bias + total, widths.membrane), widths.skip)
    argument = np.clip((total * int(gate.factor[step])) >> 20, -128, 127)
    return np.floor(256 / (1 + np.exp(-(argument + 0.5) / 16)) + 0.5).astype(np.int64)


def _neurons(layer: IntLayer, z: list[Tensor], widths: _Widths) -> tuple[Tensor, Tensor]:
    """Codes (N, T, H, W, C) and the membrane (N, H, W, C) after the last step."""
    n, _, *shape = z[-1].shape
    codes = np.zeros((n, layer.timesteps, *shape), dtype=np.int64)
    v = np.zeros((n, *shape), dtype=np.int64)
    for t in range(layer.timesteps):
        legs = list(zip(layer.maps, (current[:, t % current.shape[1]] for current in z), strict=True))
        skip: Tensor | None = None
        if layer.gate is not None:
            own, current = legs.pop()
            gates = _gates(layer.gate, current, t, widths)[:, None, None]
            skip = _clip((_input_of(own, current, None, widths) * gates) >> 8, widths.skip)
        for leg, current in legs[:-1]:
            skip = _clip(_input_of(leg, current, skip, widths), widths.skip)
        y = _input_of(*legs[-1], skip, widths) if legs else skip
        assert y is not None  # a layer has a map: it is among the legs, or gated
        u = _clip(v + y, widths.membrane)
        fired = (u >= layer.threshold) & layer.spiking
        rounded = (u + (1 << (widths.fraction - 1))) >> widths.fraction
        codes[:, t] = np.where(fired, np.clip(rounded, 0, layer.code_max), 0)
        lowered = np.where(u >= 0, u - layer.reset, 0) if layer.reset is not None else 0
        v = (np.where(fired, lowered, u) * layer.tau_q) >> 8
    return codes, v
