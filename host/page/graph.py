"""What a compiled program is made of, layer by layer: shapes, weights, widths and what reads what."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.program import LayerInfo, Program
from reverb_fpga.hw.contract import Gate
from reverb_fpga.sim.golden.schedule import Schedule, Strip

__all__ = ["LayerFacts", "Leg", "layer_facts"]


@dataclasses.dataclass(frozen=True)
class Leg:
    """One summand of a layer's current.

    Parameters
    ----------
    source : int
        The layer whose tensor it reads; -1 is the image.
    what : str
        Kernel, pooling and weights, for people.
    kind : str
        Of its weights: ``binary``, ``ternary``, ``identity`` or ``N bit``.
    gate : bool
        It makes a gate, or is multiplied by one.
    """

    source: int
    what: str
    kind: str
    gate: bool


@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """One layer.

    Parameters
    ----------
    shape : (C, H, W) of its output
    timesteps : int
        That its output holds.
    code_bits : int
        Width of an activation code; 0 of the output layer, which has logits.
    legs : tuple of Leg
        The layer's own map is the last.
    strips : int
        In how many pieces its rows are computed.
    """

    name: str
    shape: tuple[int, int, int]
    timesteps: int
    code_bits: int
    legs: tuple[Leg, ...]
    strips: int


def layer_facts(program: Program, schedule: Schedule) -> tuple[LayerFacts, ...]:
    """Every layer of a program, as its descriptors and weight planes have it."""
    strips = {strip.index: strip for strip in schedule.strips}
    return tuple(
        LayerFacts(
            name=info.name,
            shape=info.shape,
            timesteps=info.timesteps,
            code_bits=strips[info.strips[0][0]].max_code.bit_length(),
            legs=_legs(info, strips),
            strips=len(info.strips),
        )
        for info in program.layers
    )


def _legs(info: LayerInfo, strips: dict[int, Strip]) -> tuple[Leg, ...]:
    legs = []
    for position, leg in enumerate(info.maps):
        strip = strips[info.descriptors_of(position)[0]]
        if leg.gate == Gate.SIGMOID or not leg.additions:
            continue  # it gathers nothing
        kind = _kind(strip)
        row = ", by rows" if strip.fields["row_passes"] else ""
        legs.append(Leg(leg.source, f"{_window(strip)}, {kind}{row}", kind, leg.gate != Gate.NONE))
    return tuple(legs)


def _window(strip: Strip) -> str:
    f = strip.fields
    kernel = f"{f['n_tap_y']}x{f['n_tap_x']}"
    pool = f"{f['n_pool_y']}x{f['n_pool_x']}"
    return kernel if pool == "1x1" else f"{kernel} of sums over {pool}"


def _kind(strip: Strip) -> str:
    """Of a leg's weights, by the planes that store them."""
    first = strip.weights.entries[0].group
    planes = [entry for entry in strip.weights.entries if entry.group == first]
    if len(planes) == 1:
        return "binary" if planes[0].subtract_s else "identity"
    if len(planes) == 2 and not any(entry.shift for entry in planes):
        return "ternary"
    return f"{len(planes)} bit"
