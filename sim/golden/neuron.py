"""Section 3 of ``docs/numerics.md``: gain, bias, leak, threshold, reset and code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config

from .schedule import Strip

__all__ = ["update"]


def update(strip: Strip, config: Config, z: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Codes (N, T, positions, C) and final membranes (N, C) from currents z (N, T_in, positions, C).

    The membranes are those of the last position, which is what the membrane memory holds when the layer is done.
    """
    fields = strip.fields
    steps = fields["timesteps"]
    y = _input(strip, config, z)
    codes = np.zeros((z.shape[0], steps, *z.shape[2:]), dtype=np.uint8)
    half = 1 << (config.fraction_bits - 1)
    v: NDArray[np.int64] | None = None
    for t in range(steps):
        y_t = y[:, t if y.shape[1] > 1 else 0]
        u = y_t if v is None else _saturate(v + y_t, config)
        if not fields["spiking"]:
            v = (u * fields["tau_q"]) >> 8
            continue
        fired = u >= strip.threshold
        rounded = (u + half) >> config.fraction_bits
        np.clip(rounded, 0, fields["code_max"], out=rounded)
        rounded *= fired
        codes[:, t] = rounded
        last = t == steps - 1
        kept = u[:, -1:] if last else u  # after the last step only the last position's membrane can still be seen
        v = (np.where(fired[:, -1:] if last else fired, 0, kept) * fields["tau_q"]) >> 8
    assert v is not None  # steps >= 1 is checked when the strip is decoded
    return codes, v[:, -1]


def _input(strip: Strip, config: Config, z: NDArray[np.int64]) -> NDArray[np.int64]:
    """y, the membrane input of a step."""
    shift = strip.fields["r_shift"]
    y = z * strip.gain
    if shift:
        y += 1 << (shift - 1)
        y >>= shift
    np.clip(y, -(1 << (config.membrane_width - 1)), (1 << (config.membrane_width - 1)) - 1, out=y)
    y += strip.bias
    return _saturate(y, config)


def _saturate(values: NDArray[np.int64], config: Config) -> NDArray[np.int64]:
    limit = 1 << (config.membrane_width - 1)
    return np.clip(values, -limit, limit - 1, out=values)
