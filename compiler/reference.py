"""Direct evaluation of a quantised network: ``docs/numerics.md`` by dense convolution, layer by layer.

Slow and plain on purpose. The back end (through the golden model) and the golden model are checked against it; it knows
nothing of passes, records, strips or memories.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError

from .intnet import IntLayer, IntNetwork

__all__ = ["Reference", "evaluate"]

Tensor = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Result of :func:`evaluate`.

    Parameters
    ----------
    codes : tuple of int64 array (N, T, H, W, C), one per layer
        Activation codes; all zero for a layer that does not spike.
    currents : tuple of int64 array, same shapes
        ``z`` of every layer.
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
    network: IntNetwork, codes: NDArray[np.uint8], *, fraction_bits: int = 8, membrane_width: int = 24
) -> Reference:
    """Evaluate ``network`` on input codes (N, T_in, H, W, C); T_in is 1 if the input is static, else T.

    Raises
    ------
    InputError
        If the codes do not have the network's input shape, or a kernel is larger than its input.
    """
    steps = 1 if network.static_input else network.timesteps
    shape = (steps, network.input.height, network.input.width, network.input.channels)
    if codes.shape[1:] != shape:
        raise InputError(f"input codes have shape {codes.shape[1:]} per image, the network takes {shape}")
    tensor = codes.astype(np.int64)
    pad = network.input.pad_codes.astype(np.int64)
    all_codes, currents = [], []
    membrane = tensor[:, 0]
    for layer in network.layers:
        z = _current(layer, tensor, pad)
        z = np.repeat(z, network.timesteps // z.shape[1], axis=1)
        tensor, membrane = _neurons(layer, z, fraction_bits, membrane_width)
        pad = np.zeros(tensor.shape[-1], dtype=np.int64)
        all_codes.append(tensor)
        currents.append(z)
    return Reference(tuple(all_codes), tuple(currents), membrane)


def _window_sum(tensor: Tensor, size: int) -> Tensor:
    """Sum over size x size windows of axes 2, 3; what does not fill a window is dropped."""
    n, steps, height, width, channels = tensor.shape
    rows, cols = height // size, width // size
    windows = tensor[:, :, : rows * size, : cols * size].reshape(n, steps, rows, size, cols, size, channels)
    return windows.sum(axis=(3, 5))


def _current(layer: IntLayer, tensor: Tensor, pad: Tensor) -> Tensor:
    """z (N, T, H_out, W_out, C_out)."""
    pooled = _window_sum(tensor, layer.in_pool)
    n, steps, height, width, channels = pooled.shape
    border = layer.padding
    padded = np.empty((n, steps, height + 2 * border, width + 2 * border, channels), dtype=np.int64)
    padded[...] = pad * layer.in_pool**2  # a pooled position outside the image is in_pool^2 pad records
    padded[:, :, border : border + height, border : border + width] = pooled
    _, _, kernel_y, kernel_x = layer.weight.shape
    rows = (padded.shape[2] - kernel_y) // layer.stride + 1
    cols = (padded.shape[3] - kernel_x) // layer.stride + 1
    if rows < 1 or cols < 1:
        raise InputError(f"layer {layer.name}: the kernel {kernel_y} x {kernel_x} is larger than its padded input")
    z = np.zeros((n, steps, rows, cols, layer.weight.shape[0]), dtype=np.int64)
    for ky in range(kernel_y):
        for kx in range(kernel_x):
            stop_y, stop_x = ky + (rows - 1) * layer.stride + 1, kx + (cols - 1) * layer.stride + 1
            source = padded[:, :, ky : stop_y : layer.stride, kx : stop_x : layer.stride]
            z += source @ layer.weight[:, :, ky, kx].T.astype(np.int64)
    return _window_sum(z, layer.out_pool)


def _neurons(layer: IntLayer, z: Tensor, fraction_bits: int, membrane_width: int) -> tuple[Tensor, Tensor]:
    """Codes (N, T, H, W, C) and the membrane (N, H, W, C) after the last step."""
    low, high = -(1 << (membrane_width - 1)), (1 << (membrane_width - 1)) - 1
    half = 1 << (layer.r_shift - 1) if layer.r_shift > 0 else 0
    codes = np.zeros_like(z)
    v = np.zeros_like(z[:, 0])
    for t in range(z.shape[1]):
        q = np.clip((z[:, t] * layer.gain + half) >> layer.r_shift, low, high)
        y = np.clip(q + layer.bias, low, high)
        u = np.clip(v + y, low, high)
        fired = (u >= layer.threshold) & layer.spiking
        rounded = (u + (1 << (fraction_bits - 1))) >> fraction_bits
        codes[:, t] = np.where(fired, np.clip(rounded, 0, layer.code_max), 0)
        v = (np.where(fired, 0, u) * layer.tau_q) >> 8
    return codes, v
