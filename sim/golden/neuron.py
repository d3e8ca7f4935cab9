"""Section 3 of ``docs/numerics.md``: gain, bias, leak, threshold, reset and code.

All of it in floating point that holds every number exactly, which vector units do several times as fast as 64-bit
integers: an int28 current times a uint16 gain has 44 bits and float64 holds 53; powers of two only move the exponent; a
membrane has 24 bits and the sum of two has 25 with its sign, which is what float32 holds.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import TAU_ONE

from .schedule import Strip
from .workspace import Calls, Workspace

__all__ = ["NeuronUpdate", "current", "summands"]

_FLOAT32_BITS, _FLOAT64_BITS = 24, 53
_NONE = np.empty((0, 0, 0, 0), dtype=np.int32)
_RUN = 4096
"""Numbers that an inner loop of numpy should have: parameters are repeated for as many positions."""


class NeuronUpdate:
    """The neurons of one strip.

    Parameters
    ----------
    strip : Strip
    config : Config
    reach : array (channels,) or None
        Largest magnitude of their currents; None: what currents can hold.
    """

    def __init__(self, strip: Strip, config: Config, reach: NDArray[np.int64] | None = None) -> None:
        self._strip, self._config = strip, config
        self._tiles: dict[tuple[str, int], NDArray[Any]] = {}
        if strip.gain.ndim > 1:  # a leg that makes gates: no neurons
            return
        fields = strip.fields
        limit = float(1 << (config.membrane_width - 1)) - 1
        current = np.full(len(strip.gain), 1 << (config.z_width - 1)) if reach is None else reach
        current = np.minimum(current, 1 << (config.z_width - 1)).astype(np.float64)
        scaled = np.ldexp(current * strip.gain, -fields["r_shift"]) + 1
        self._sum_fits = bool(scaled.max() < limit)
        inputs = np.minimum(scaled, limit) + np.abs(strip.bias)
        self._input_fits = bool(inputs.max() < limit)
        self._membrane_fits = self._input_fits and bool(_largest_membrane(inputs, fields).max() < limit)
        wide = max(config.z_width + config.gain_width, fields["r_shift"] + config.membrane_width) + 1
        self._exact = wide <= _FLOAT64_BITS
        self._at_once = bool(fields["spiking"] and fields["timesteps"] == 1 and self._exact and self._codes_hold())

    def _codes_hold(self) -> bool:
        """Whether the code of a single step is one rounding of ``z*m`` and a constant.

        Nested floors of divisions are one floor. With biases and thresholds below half of what a membrane holds,
        whatever would have saturated is a code of 0 or of ``code_max`` with and without saturation.
        """
        strip, config = self._strip, self._config
        code_max = strip.fields["code_max"] << config.fraction_bits
        largest = max(np.abs(strip.bias).max(), np.abs(strip.threshold).max(), code_max)
        return bool(largest < 1 << (config.membrane_width - 2)) or self._input_fits

    def update(
        self,
        calls: Calls,
        z: NDArray[Any],
        space: Workspace,
        skip: NDArray[np.int32] | None = None,
        kernels: ModuleType | None = None,
    ) -> NDArray[np.uint8]:
        """Where calls put the codes (N, T, positions, C) of currents z (N, T_in, positions, C).

        ``z`` holds integers, in any type that is exact; ``skip`` (N, T, positions, C) is added to the current.
        ``kernels`` (:mod:`.compiled`) compute it in one pass, from currents in float32.
        """
        if kernels and z.dtype == np.float32 and self._strip.fields["spiking"]:
            return self._in_one_pass(kernels, calls, z, space, skip)
        if skip is None and self._at_once:
            return self._codes_at_once(calls, z, space)
        return self._step_by_step(calls, self._inputs(calls, z, space, skip), space, skip is None)[0]

    def _in_one_pass(
        self, kernels: ModuleType, calls: Calls, z: NDArray[Any], space: Workspace, skip: NDArray[np.int32] | None
    ) -> NDArray[np.uint8]:
        config, fields = self._config, self._strip.fields
        limit, unit = float(1 << (config.membrane_width - 1)), 1 / (1 << config.fraction_bits)
        scalars = (0.5 if fields["r_shift"] else 0.0, limit, unit, float(fields["code_max"]))
        state = (fields["tau_q"] / TAU_ONE, float(fields["reset"]), bool(fields["soft_reset"]))
        codes = space.array("codes", (len(z), fields["timesteps"], *z.shape[2:]), np.uint8)
        calls.add(kernels.codes_of, z, self._parameters, _NONE if skip is None else skip, *scalars, *state, codes)
        return codes

    @functools.cached_property
    def _parameters(self) -> NDArray[np.float64]:
        """Gain over ``2^r``, bias and threshold: (3, channels)."""
        strip = self._strip
        gain = np.ldexp(strip.gain.astype(np.float64), -strip.fields["r_shift"])
        return np.array([gain, strip.bias, strip.threshold])

    def membranes(
        self, calls: Calls, z: NDArray[Any], space: Workspace, skip: NDArray[np.int32] | None = None
    ) -> NDArray[Any]:
        """Where calls put the membranes (N, C) of the last position: what the membrane memory holds in the end."""
        skip = None if skip is None else skip[:, :, -1:]
        inputs = self._inputs(calls, z[:, :, -1:], space, skip)
        return self._step_by_step(calls, inputs, space, skip is None)[1]

    def _tiled(self, name: str, values: NDArray[Any], positions: int, dtype: Any = np.float64) -> NDArray[Any]:
        """A parameter of the channels, repeated for as many positions as divide ``positions`` and make a good run."""
        key = (name, positions)
        if key not in self._tiles:
            most = min(max(1, _RUN // len(values)), positions)
            repeats = max(number for number in range(1, most + 1) if positions % number == 0)
            self._tiles[key] = np.tile(values.astype(dtype), repeats)
        return self._tiles[key]

    def _codes_at_once(self, calls: Calls, z: NDArray[Any], space: Workspace) -> NDArray[np.uint8]:
        """Codes (N, 1, positions, C): everything in units of one code."""
        strip, config, positions = self._strip, self._config, z.shape[2]
        shift, fraction = strip.fields["r_shift"], config.fraction_bits
        half = 1 << (fraction - 1)
        gain = self._tiled("code gain", np.ldexp(strip.gain.astype(np.float64), -shift - fraction), positions)
        constant = ((strip.bias + half) << shift) + (1 << shift >> 1)
        constant = self._tiled("constant", np.ldexp(constant.astype(np.float64), -shift - fraction), positions)
        wide = space.array("wide", z.shape, np.float64)
        flat = wide.reshape(-1, len(gain))
        calls.add(np.copyto, wide, z)
        calls.add(np.multiply, flat, gain, flat)
        calls.add(np.add, flat, constant, flat)
        if strip.threshold.max() > half:  # below it the code is 0 without being asked
            edge = self._tiled("threshold code", (strip.threshold + half) / (1 << fraction), positions)
            calls.add(np.greater_equal, flat, edge, space.array("fired", flat.shape, np.bool_))
        codes = space.array("codes", z.shape, np.uint8)
        self._cut(calls, wide, codes)
        if strip.threshold.max() > half:
            calls.add(np.multiply, codes, space.array("fired", z.shape, np.uint8), codes)
        return codes

    def _cut(self, calls: Calls, codes: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Floor and limits of what is in units of one code; ``codes`` is lost."""
        calls.add(codes.clip, 0, self._strip.fields["code_max"], codes)
        calls.add(np.copyto, out, codes, "unsafe")  # cuts off, and nothing is negative: the floor

    def _inputs(self, calls: Calls, z: NDArray[Any], space: Workspace, skip: NDArray[np.int32] | None) -> NDArray[Any]:
        """Membrane inputs y (N, T_in or T, positions, C), as float32 where their sum with a membrane is exact in it."""
        strip, config, positions = self._strip, self._config, z.shape[2]
        shift = strip.fields["r_shift"]
        gain = self._tiled("gain", np.ldexp(strip.gain.astype(np.float64), -shift), positions)
        y = space.array("wide", z.shape, np.float64)
        flat = y.reshape(-1, len(gain))
        calls.add(np.copyto, y, z)
        calls.add(np.multiply, flat, gain, flat)
        together = self._sum_fits and self._exact and shift > 0
        if together:
            calls.add(np.add, flat, self._tiled("bias and half", strip.bias + 0.5, positions), flat)
        elif shift:
            calls.add(np.add, flat, 0.5, flat)
        if shift:
            calls.add(np.floor, flat, flat)
        if not together:
            if not self._sum_fits:
                calls.add(_saturate, flat, config)
            calls.add(np.add, flat, self._tiled("bias", strip.bias, positions), flat)
        if skip is not None:
            total = space.array("with skip", skip.shape, np.float64)
            calls.add(np.add, y, skip, total)
            y = total
        if skip is not None or not self._input_fits:
            calls.add(_saturate, y, config)
        if config.membrane_width > _FLOAT32_BITS:
            return y
        narrow = space.array("inputs", y.shape, np.float32)
        calls.add(np.copyto, narrow, y, "same_kind")
        return narrow

    def _step_by_step(
        self, calls: Calls, y: NDArray[Any], space: Workspace, bounded: bool
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Codes and final membranes of inputs y (N, T_in, positions, C); bounded: those of currents alone."""
        strip, config, fields = self._strip, self._config, self._strip.fields
        steps, n, shape = fields["timesteps"], len(y), y.shape[2:]
        codes = space.array("codes", (n, steps, *shape), np.uint8)
        half = 1 << (config.fraction_bits - 1)
        threshold = self._tiled("threshold", strip.threshold, shape[0], y.dtype)
        u, scaled = (space.array(name, (n, *shape), y.dtype) for name in ("membranes", "scaled"))
        fired = space.array("fired", (n, *shape), np.bool_)
        flat, scale = (-1, len(threshold)), y.dtype.type(1 / (1 << config.fraction_bits))
        for t in range(steps):
            y_t = y[:, t if y.shape[1] > 1 else 0]
            if t == 0:
                calls.add(np.copyto, u, y_t)
            else:
                calls.add(np.add, u, y_t, u)
                if not (bounded and self._membrane_fits):
                    calls.add(_saturate, u, config)
            if fields["spiking"]:
                calls.add(np.greater_equal, u.reshape(flat), threshold, fired.reshape(flat))
                calls.add(np.multiply, u, scale, scaled)
                calls.add(np.add, scaled, y.dtype.type(0.5), scaled)
                self._cut(calls, scaled, codes[:, t])
                if strip.threshold.max() > half:  # below it the code is 0 without being asked
                    calls.add(np.multiply, codes[:, t], fired.view(np.uint8), codes[:, t])
            if t == steps - 1:  # only the last position's membrane can still be seen
                u, fired = u[:, -1:], fired[:, -1:]
            if fields["spiking"]:
                calls.add(_reset, u, fired, fields)
            calls.add(_leak, u, fields["tau_q"])
        if not fields["spiking"]:
            calls.add(np.copyto, codes, 0)
        return codes, u[:, -1]


def _largest_membrane(inputs: NDArray[np.float64], fields: dict[str, int]) -> NDArray[np.float64]:
    """Bound of a membrane with its input, after any step, from a bound of the inputs."""
    leak = fields["tau_q"] / TAU_ONE
    membrane = inputs
    for _ in range(1, fields["timesteps"]):
        membrane = inputs + leak * np.maximum(membrane, fields["reset"]) + 1
    return membrane


def _reset(u: NDArray[Any], fired: NDArray[np.bool_], fields: dict[str, int]) -> None:
    """Membranes after the reset of those that fired, in place."""
    if fields["soft_reset"]:
        below = u < 0
        u -= (fired & ~below) * u.dtype.type(fields["reset"])
        fired = fired & below
    u *= ~fired


def _leak(u: NDArray[Any], tau_q: int) -> None:
    """``(u * tau_q) >> 8``, in place."""
    if tau_q == TAU_ONE:
        return
    if tau_q & (tau_q - 1) == 0:
        u *= u.dtype.type(tau_q / TAU_ONE)
        np.floor(u, out=u)
    else:
        u[...] = np.floor(np.multiply(u, tau_q / TAU_ONE, dtype=np.float64))


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
