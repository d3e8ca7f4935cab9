"""Section 3 of ``docs/numerics.md``: gain, bias, leak, threshold, reset and code.

All of it in floating point that holds every number exactly, which vector units do several times as fast as 64-bit
integers: an int28 current times a uint16 gain has 44 bits and float64 holds 53; powers of two only move the exponent; a
membrane has 24 bits and the sum of two has 25 with its sign, which is what float32 holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import TAU_ONE

from .schedule import Strip

__all__ = ["current", "summands", "update"]

_FLOAT32_BITS, _FLOAT64_BITS = 24, 53


def update(
    strip: Strip, config: Config, z: NDArray[Any], skip: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Codes (N, T, positions, C) and final membranes (N, C) from currents z (N, T_in, positions, C).

    The membranes are those of the last position, which is what the membrane memory holds when the layer is done. ``z``
    holds integers, in any type that is exact; ``skip`` (N, T, positions, C) is added to the current.
    """
    if skip is not None or not _at_once(strip, config):
        return _step_by_step(strip, config, current(strip, config, z, skip))
    _, membrane = _step_by_step(strip, config, current(strip, config, z[:, :, -1:]))
    return _codes_at_once(strip, config, z), membrane


def _at_once(strip: Strip, config: Config) -> bool:
    """Whether the code of a single step is one rounding of ``z*m`` and a constant.

    Nested floors of divisions are one floor; and with biases and thresholds below half of what a membrane holds,
    whatever would have saturated is a code of 0 or of ``code_max`` with and without saturation.
    """
    fields, half = strip.fields, 1 << (config.membrane_width - 2)
    largest = max(np.abs(strip.bias).max(), np.abs(strip.threshold).max(), fields["code_max"] << config.fraction_bits)
    exact = max(config.z_width + config.gain_width, fields["r_shift"] + config.membrane_width) < _FLOAT64_BITS
    return bool(fields["spiking"] and fields["timesteps"] == 1 and largest < half and exact)


def _codes_at_once(strip: Strip, config: Config, z: NDArray[Any]) -> NDArray[np.uint8]:
    """Codes (N, 1, positions, C): everything in units of one code."""
    shift, fraction = strip.fields["r_shift"], config.fraction_bits
    half = 1 << (fraction - 1)
    constant = ((strip.bias + half) << shift) + (1 << shift >> 1)
    codes = np.multiply(z, np.ldexp(strip.gain.astype(np.float64), -shift - fraction), dtype=np.float64)
    codes += np.ldexp(constant.astype(np.float64), -shift - fraction)
    if strip.threshold.max() > half:  # below it the code is 0 without being asked
        codes *= codes >= (strip.threshold + half) / (1 << fraction)
    np.clip(codes, 0, strip.fields["code_max"], out=codes)
    return codes.astype(np.uint8)  # cuts off, and nothing is negative: the floor


def _step_by_step(strip: Strip, config: Config, y: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Codes and final membranes from membrane inputs y (N, T_in, positions, C)."""
    fields = strip.fields
    steps = fields["timesteps"]
    codes = np.zeros((y.shape[0], steps, *y.shape[2:]), dtype=np.uint8)
    half = 1 << (config.fraction_bits - 1)
    threshold = strip.threshold.astype(y.dtype)
    v: NDArray[Any] | None = None
    for t in range(steps):
        y_t = y[:, t if y.shape[1] > 1 else 0]
        u = y_t if v is None else _saturate(v + y_t, config)
        if not fields["spiking"]:
            v = _leak(u, fields["tau_q"])
            continue
        silent = u < threshold
        rounded = u + half
        rounded *= 1 / (1 << config.fraction_bits)
        np.clip(rounded, 0, fields["code_max"], out=rounded)
        rounded *= ~silent
        codes[:, t] = rounded  # cuts off: the floor
        last = t == steps - 1
        kept = u[:, -1:] if last else u  # after the last step only the last position's membrane can still be seen
        v = _leak(_after(kept, silent[:, -1:] if last else silent, fields), fields["tau_q"])
    assert v is not None  # steps >= 1 is checked when the strip is decoded
    return codes, v[:, -1].astype(np.int64)


def _after(u: NDArray[Any], silent: NDArray[np.bool_], fields: dict[str, int]) -> NDArray[Any]:
    """Membranes after the reset of those that fired."""
    if not fields["soft_reset"]:
        return u * silent
    return np.where(silent, u, np.where(u >= 0, u - u.dtype.type(fields["reset"]), 0))


def _leak(u: NDArray[Any], tau_q: int) -> NDArray[Any]:
    """``(u * tau_q) >> 8``."""
    if tau_q == TAU_ONE:
        return u
    power_of_two = tau_q & (tau_q - 1) == 0
    product = np.multiply(u, tau_q / TAU_ONE, dtype=u.dtype if power_of_two else np.float64)
    return np.floor(product, out=product).astype(u.dtype, copy=False)


def current(strip: Strip, config: Config, z: NDArray[Any], skip: NDArray[np.int32] | None = None) -> NDArray[Any]:
    """y (N, T_in or T, positions, C), the membrane input, as float32 where its sum with a membrane is exact in that."""
    y = summands(strip, config, z)
    if skip is not None:
        y = y + skip
    _saturate(y, config)
    return y.astype(np.float32) if config.membrane_width <= _FLOAT32_BITS else y


def summands(strip: Strip, config: Config, z: NDArray[Any]) -> NDArray[Any]:
    """``q + b`` (N, T_in, positions, C), as float64."""
    shift = strip.fields["r_shift"]
    y = np.multiply(z, np.ldexp(strip.gain.astype(np.float64), -shift), dtype=np.float64)
    if shift:
        y += 0.5
        np.floor(y, out=y)
    _saturate(y, config)
    return y + strip.bias


def _saturate(values: NDArray[Any], config: Config) -> NDArray[Any]:
    limit = 1 << (config.membrane_width - 1)
    return np.clip(values, -limit, limit - 1, out=values)
