"""Proof from intervals that no accumulator of a layer overflows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.tiling import Plane, planes_of
from reverb_fpga.compiler.intnet import IntMap, IntNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["current_bounds", "prove_widths", "source_max"]

Ints = NDArray[np.int64]


def source_max(network: IntNetwork, leg: IntMap) -> Ints:
    """Largest code of every source channel of a map."""
    return np.full(leg.weight.shape[1], network.top_of(leg.source), dtype=np.int64)


def current_bounds(weight: Ints, pooled: int, top: Ints) -> tuple[Ints, Ints]:
    """Smallest and largest z of every output channel, int64 (C_out,).

    ``pooled`` source positions share a tap; ``top`` (C_in,) bounds the source codes.
    """
    low = np.einsum("oikl,i->o", np.minimum(weight, 0), top) * pooled
    high = np.einsum("oikl,i->o", np.maximum(weight, 0), top) * pooled
    return low, high


def _require(where: str, what: str, value: int, limit: int, width: int) -> None:
    if value > limit:
        raise InputError(
            f"{where}: {what} may reach {value}, which {width} bits do not hold (largest {limit}); "
            "its fan-in, codes or weights are too large for the target"
        )


def _partial_weights(weight: Ints, planes: tuple[Plane, ...]) -> list[Ints]:
    """Weights as accumulated after each plane."""
    partial = np.zeros_like(weight)
    result = []
    for plane in planes:
        value = plane.bits.astype(np.int64) << plane.shift
        # 2P - S counts +1 where the bit is set and -1 elsewhere
        partial = partial + (-value if plane.negate else value) - (1 if plane.subtract_s else 0)
        result.append(partial)
    return result


def prove_widths(where: str, leg: IntMap, top: Ints, config: Config) -> None:
    """Check P, S, P << shift and every partial z of a map against the configuration's widths.

    Raises
    ------
    InputError
        If a width is not provably sufficient; names the place, the quantity, its bound and the width.
    """
    pooled = leg.geometry.pooled
    planes = planes_of(leg)
    taps = leg.weight.shape[2] * leg.weight.shape[3]
    p_limit, z_limit = (1 << config.acc_width) - 1, (1 << (config.z_width - 1)) - 1
    _require(where, "the sum S", int(top.sum()) * taps * pooled, p_limit, config.acc_width)
    for plane in planes:
        largest = int(np.einsum("oikl,i->o", plane.bits.astype(np.int64), top).max()) * pooled
        _require(where, "the masked sum P", largest, p_limit, config.acc_width)
        _require(where, "P << shift", largest << plane.shift, z_limit, config.z_width)
    for partial in _partial_weights(leg.weight.astype(np.int64), planes):
        low = np.einsum("oikl,i->o", np.minimum(partial, 0), top)
        high = np.einsum("oikl,i->o", np.maximum(partial, 0), top)
        _require(where, "the current |z|", int(max(-low.min(), high.max())) * pooled, z_limit, config.z_width)
