"""Precision that is left in each layer: bits that sums can need, and how far the images use the activation codes."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.golden.dataflow import check_dataflow

__all__ = ["LayerPrecision", "layer_precision"]


@dataclasses.dataclass(frozen=True)
class LayerPrecision:
    """One layer.

    Parameters
    ----------
    z_bits : int
        Bits that its current can need for any input, sign included, of all its legs the widest.
    z_width : int
        Bits that the gateware has.
    code_max : int
        Largest activation code; 0 of the output layer.
    largest : int
        Largest code over the images.
    clipped : float or None
        Share of the events that have the largest code there is, 0..1; None without events, and of binary spikes.
    fired : float
        Share of its neurons' outputs that are events, 0..1.
    codes : tuple of int
        How many outputs have which code, 0 to ``code_max``.
    """

    name: str
    z_bits: int
    z_width: int
    code_max: int
    largest: int
    clipped: float | None
    fired: float
    codes: tuple[int, ...]


def layer_precision(
    program: Program, golden: GoldenModel, outputs: list[NDArray[np.uint8]], config: Config
) -> tuple[LayerPrecision, ...]:
    """Of every layer; ``outputs`` are those of :meth:`GoldenModel.run_layers`."""
    bits: dict[int, int] = {}
    maximum: dict[int, int] = {}
    _, largest = check_dataflow(golden.schedule, config)
    for strip, code in zip(golden.schedule.strips, largest, strict=True):
        layer = strip.fields["layer"]
        reach = strip.weights.z_gain * code * strip.fields["n_pool_y"] * strip.fields["n_pool_x"]
        bits[layer] = max(bits.get(layer, 0), reach.bit_length() + 1)
        maximum[layer] = max(maximum.get(layer, 0), strip.max_code)
    found = []
    for index, info in enumerate(program.layers):
        codes = np.bincount(outputs[index].ravel(), minlength=maximum[index] + 1)
        events, most = int(codes[1:].sum()), maximum[index]
        found.append(
            LayerPrecision(
                name=info.name,
                z_bits=bits[index],
                z_width=config.z_width,
                code_max=most,
                largest=int(np.flatnonzero(codes)[-1]),
                clipped=int(codes[most]) / events if events and most > 1 else None,
                fired=events / outputs[index].size,
                codes=tuple(int(number) for number in codes) if most else (),
            )
        )
    return tuple(found)
