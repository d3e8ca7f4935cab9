"""What stands before and after the products, compiled by numba: one pass over codes or currents where numpy makes many.

Importing this imports numba and compiles, or reads what was compiled before: see :class:`GoldenModel` for when it pays.
The numbers are those of :mod:`.gather` and :mod:`.neuron`, which compute whatever these kernels do not take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import boolean, float32, float64, int32, uint8, void
from numpy.typing import NDArray

__all__ = ["codes_of", "gather"]

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set: Python itself is no faster way than numpy")


def _kernel(*signature: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A function that computes without Python's lock, kept on disk where numba finds a folder for it."""

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        types = void(*signature)
        try:
            kernel: Callable[..., None] = numba.njit(types, nogil=True, cache=True)(function)
        except (RuntimeError, OSError):  # no folder may be written, or the disk is full
            kernel = numba.njit(types, nogil=True)(function)
        return kernel

    return compiled


@_kernel(uint8[:, ::1], uint8[:, ::1], int32[:, :, ::1], int32[:, ::1], float32[:, :, :, ::1])
def gather(
    memory: NDArray[np.uint8],
    constants: NDArray[np.uint8],
    places: NDArray[np.int32],
    runs: NDArray[np.int32],
    out: NDArray[np.float32],
) -> None:
    """Codes of every window side by side, summed over the pooled positions.

    Parameters
    ----------
    memory : (N, words * banks)
    constants : (2, channels)
        Records that are in no ring: of :data:`NOTHING` and of :data:`PAD`.
    places : (positions, taps, pooled)
        Where a record of step 0 begins in a row of the memory, the next steps behind it; or NOTHING or PAD.
    runs : (positions, taps)
        Taps from this one on that lie one behind the other in the memory, at every pooled position.
    out : (N, T_in, positions, taps * channels)
    """
    images, steps, positions, _ = out.shape
    taps, pooled, channels = places.shape[1], places.shape[2], constants.shape[1]
    for n in range(images):
        for t in range(steps):
            for p in range(positions):
                tap = 0
                while tap < taps:
                    width = runs[p, tap] * channels
                    sums = out[n, t, p, tap * channels : tap * channels + width]
                    for w in range(pooled):
                        place = places[p, tap, w]
                        start = place + t * channels
                        codes = memory[n, start : start + width] if place >= 0 else constants[-1 - place]
                        if w == 0:
                            for c in range(width):
                                sums[c] = codes[c]
                        else:
                            for c in range(width):
                                sums[c] += codes[c]
                    tap += runs[p, tap]


@_kernel(
    float32[:, :, :, ::1], float64[:, ::1], int32[:, :, :, ::1], float64, float64, float64, float64, float64, float64,
    boolean, uint8[:, :, :, ::1],
)  # fmt: skip
def codes_of(
    z: NDArray[np.float32],
    parameters: NDArray[np.float64],
    skip: NDArray[np.int32],
    half: float,
    limit: float,
    unit: float,
    code_max: float,
    tau: float,
    reset: float,
    soft: bool,
    out: NDArray[np.uint8],
) -> None:
    """Section 3 of ``docs/numerics.md`` as it stands there, in numbers of which float64 holds every one.

    Parameters
    ----------
    z : (N, T_in, positions, channels)
    parameters : (3, channels)
        Gain over ``2^r``, bias, threshold.
    skip : (N, T, positions, channels), or of no numbers
    half : float
        What is added before q is rounded down: 1/2, or 0 where r is 0.
    limit : float
        Membranes are below it.
    unit : float
        Codes of a membrane unit, ``2^-F``.
    code_max, tau, reset, soft :
        ``tau_q / 256`` is tau.
    out : (N, T, positions, channels)
    """
    images, steps, positions, channels = out.shape
    gain, bias, threshold = (
        parameters[0],
        parameters[1],
        parameters[2],
    )  # unpacked at once, vectors are not made of them
    low, high, adds = -limit, limit - 1.0, skip.size > 0
    u = np.empty(channels)
    for n in range(images):
        for p in range(positions):
            for t in range(steps):
                current, codes = z[n, min(t, z.shape[1] - 1), p], out[n, t, p]
                for c in range(channels):
                    y = min(high, max(low, np.floor(current[c] * gain[c] + half))) + bias[c]
                    if adds:
                        y += skip[n, t, p, c]
                    y = min(high, max(low, y))
                    v = min(high, max(low, u[c] + y)) if t else y
                    u[c] = v
                    code = np.int32(min(code_max, max(0.0, v * unit + 0.5)))
                    codes[c] = code if v >= threshold[c] else 0
                if t < steps - 1:
                    for c in range(channels):
                        kept = u[c] - reset if soft and u[c] >= 0.0 else 0.0
                        u[c] = np.floor((kept if u[c] >= threshold[c] else u[c]) * tau)
