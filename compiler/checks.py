"""Verifiers between the compiler's stages; each raises InputError naming the layer and what is wrong with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.passes.graph import FloatMap, FloatNetwork, FoldedMap, FoldedNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import FACTOR_BITS, TAU_ONE
from reverb_fpga.hw.errors import InputError

__all__ = ["check_float", "check_folded", "check_network"]


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise InputError(f"{where}: {what}")


def check_float(network: FloatNetwork) -> None:
    """The imported graph: channels fit, every number is finite, scales and deviations are positive."""
    _require(min(network.std) > 0, INPUT, "its deviation must be positive")
    channels = {INPUT: len(network.mean)}
    for layer in network.layers:
        where = f"layer {layer.name}"
        out = layer.maps[-1].weight.shape[0]
        for leg in layer.maps:
            _require(leg.source in channels, where, f"reads {leg.source!r} before it is computed")
            _require(
                leg.weight.shape[1] == channels[leg.source], where, f"does not read {channels[leg.source]} channels"
            )
            _require(leg.weight.shape[0] == out, where, "its shortcut has other channels than its convolution")
            _check_float_map(leg, out, where)
        tensor = network.tensors.get(layer.name)
        if tensor is not None:
            _require(tensor.alpha is None or tensor.alpha.shape == (out,), where, "one alpha per channel")
            _require(tensor.code_step is None or tensor.code_step > 0, where, "the scale of its codes must be positive")
        if layer.reset is not None:
            _require(bool(np.isfinite(layer.reset)) and layer.reset >= 0, where, "a soft reset must not raise")
            _require(tensor is None or tensor.alpha is None, where, "a soft reset goes with no alpha")
        channels[layer.name] = out


def _check_float_map(leg: FloatMap, channels: int, where: str) -> None:
    numbers = [leg.weight_scale, leg.bias]
    if leg.norm is not None:
        numbers += [leg.norm.gamma, leg.norm.beta, leg.norm.mean, leg.norm.sigma]
        _require(bool(np.all(leg.norm.sigma > 0)), where, "its normalisation divides by zero")
    for values in numbers:
        _require(values.shape == (channels,) and bool(np.isfinite(values).all()), where, "a number is not finite")
    _require(bool(np.all(leg.weight_scale > 0)), where, "its weight scale must be positive")
    _check_weights(leg, where)


_FAR = (
    "the code of zero is not 0..255: its numbers lie so far from 0 that a border of zeros is none of their levels; "
    "give it numbers nearer 0, or no padding"
)


def check_folded(network: FoldedNetwork) -> None:
    """The folded form: gains are not negative, every number is finite, weights are still of their kind."""
    zero = network.input.zero
    _require(bool(np.all((zero >= 0) & (zero <= 255))), INPUT, _FAR)
    for layer in network.layers:
        where = f"layer {layer.name}"
        _require(bool(np.isfinite(layer.threshold).all()), where, "a folded number is not finite")
        for leg in layer.maps:
            _require(bool(np.all(leg.gain >= 0)), where, "a gain is negative after folding")
            finite = bool(np.isfinite(leg.gain).all() and np.isfinite(leg.bias).all())
            _require(finite, where, "a folded number is not finite")
            _check_weights(leg, where)


def check_network(network: IntNetwork, config: Config) -> None:
    """Shapes, kinds and ranges of a quantised network against the number formats of ``docs/numerics.md``."""
    source = network.input
    _require(len(network.layers) > 0, "network", "has no layers")
    _require(len(network.layers) <= 256, "network", f"has {len(network.layers)} layers, at most 256 are possible")
    _require(min(source.channels, source.height, source.width) >= 1, "input", "is empty")
    _require(source.pad_codes.shape == (source.channels,), "input", "needs one pad code per channel")
    _require(bool(np.all((source.pad_codes >= 0) & (source.pad_codes <= 255))), "input", "a pad code is not 0..255")
    _require(network.timesteps >= 1, "network", f"has {network.timesteps} time steps")
    for position in range(len(network.layers)):
        _check_layer(network, position, config)
    _check_roles(network)


def _check_roles(network: IntNetwork) -> None:
    layers = network.layers
    names = [INPUT, *(layer.name for layer in layers)]
    _require(len(set(names)) == len(names), "network", "two tensors have the same name")
    for layer in layers[:-1]:
        _require(layer.spiking, f"layer {layer.name}", "only the last layer may be without firing")
    last = layers[-1]
    _require(not last.spiking and last.tau_q == TAU_ONE, f"layer {last.name}", "the last layer must sum, not fire")
    read = {name for layer in layers for name in layer.sources}
    for name in names[:-1]:
        _require(name in read, f"layer {name}" if name != INPUT else INPUT, "nothing reads what it fires")


def _check_layer(network: IntNetwork, position: int, config: Config) -> None:
    layer = network.layers[position]
    where = f"layer {layer.name}"
    _require(len(layer.maps) >= 1, where, "has no maps")
    _require(layer.timesteps in (1, network.timesteps), where, f"has {layer.timesteps} time steps")
    limit = 1 << (config.membrane_width - 1)
    for leg in layer.maps:
        _require(leg.source in (INPUT, *(other.name for other in network.layers[:position])), where,
                 f"reads {leg.source!r}, which is neither the input nor an earlier layer")  # fmt: skip
        channels = network.input.channels
        if leg.source != INPUT:
            channels = network.layers[network.index(leg.source)].channels
        _require(
            leg.weight.ndim == 4 and min(leg.weight.shape) >= 1,
            where,
            "weights must be (out, in, height, width), none 0",
        )
        _require(leg.weight.shape[0] == layer.channels, where, "its maps have different output channels")
        _require(
            leg.weight.shape[1] == channels,
            where,
            f"weights expect {leg.weight.shape[1]} channels, its input has {channels}",
        )
        _require(
            network.steps_of(leg.source) in (1, layer.timesteps), where, "its source has more time steps than it has"
        )
        _check_geometry(leg.geometry, where)
        _check_weights(leg, where)
        for name, values, low, high in (
            ("gain", leg.gain, 0, (1 << config.gain_width) - 1),
            ("bias", leg.bias, -limit, limit - 1),
        ):
            _check_values(layer, name, values, (low, high))
        _require(0 <= leg.r_shift <= 63, where, f"shift {leg.r_shift} is not in 0..63")
    _check_values(layer, "threshold", layer.threshold, (-limit, limit - 1))
    if layer.gate is not None:
        _check_values(layer, "gain", layer.gate.gain, (0, (1 << config.gain_width) - 1))
        _check_values(layer, "bias", layer.gate.bias, (-limit, limit - 1))
        _require(0 <= layer.gate.r_shift <= 63, where, f"shift {layer.gate.r_shift} is not in 0..63")
        reach = 1 << (FACTOR_BITS - 1)
        factor = layer.gate.factor
        _require(factor.shape == (layer.timesteps,), where, "its gate needs one factor per time step")
        _require(
            bool(np.all((factor >= -reach) & (factor < reach))), where, f"a factor has more than {FACTOR_BITS} bits"
        )
    _require(layer.reset is None or 0 <= layer.reset < limit, where, f"reset {layer.reset} is not in 0..{limit - 1}")
    _require(0 <= layer.tau_q <= TAU_ONE, where, f"tau_q {layer.tau_q} is not in 0..{TAU_ONE}")
    _require(1 <= layer.code_max <= 255, where, f"code_max {layer.code_max} is not in 1..255")


def _check_values(layer: IntLayer, name: str, values: NDArray[np.int64], allowed: tuple[int, int]) -> None:
    where, (low, high) = f"layer {layer.name}", allowed
    _require(values.shape == (layer.channels,), where, f"needs one {name} per output channel")
    worst = int(values.max()) if values.max() > high else int(values.min())
    _require(low <= worst <= high, where, f"{name} {worst} is not in {low}..{high}")


def _check_geometry(geometry: Geometry, where: str) -> None:
    pools = (geometry.in_pool, geometry.out_pool)
    positive = [
        *geometry.stride,
        *geometry.dilation,
        *(side for pool in pools for side in (*pool.window, *pool.stride)),
    ]
    _require(min(positive) >= 1, where, "stride, dilation and pooling must be at least 1")
    _require(min(geometry.padding) >= 0, where, "padding must not be negative")
    for pool in pools:
        ok = all(0 <= 2 * border <= side for border, side in zip(pool.padding, pool.window, strict=True))
        _require(ok, where, "pooling is padded by more than half its window")
    parts = [part for part in geometry.beyond if part is not None]
    _require(geometry.continued or not parts, where, "a part beyond the border of a current that ends there")
    _require(all(part.number >= 1 for part in parts), where, "a part beyond the border is empty")


def _check_weights(leg: FloatMap | FoldedMap | IntMap, where: str) -> None:
    weight = leg.weight
    if leg.kind is WeightKind.BINARY:
        _require(bool(np.all(np.abs(weight) == 1)), where, "a binary weight is neither -1 nor +1")
    elif leg.kind is WeightKind.UNIT:
        _require(
            bool(np.all((weight == 0) | (weight == 1))), where, "a weight of a shortcut or pooling is neither 0 nor 1"
        )
    elif leg.kind is WeightKind.TERNARY:
        _require(bool(np.all(np.abs(weight) <= 1)), where, "a ternary weight is not -1, 0 or +1")
    else:
        _require(2 <= leg.bits <= 8, where, f"{leg.bits} weight bits, 2..8 are possible")
        limit = 1 << (leg.bits - 1)
        ok = bool(weight.min() >= -limit and weight.max() < limit)
        _require(ok, where, f"a weight does not fit {leg.bits} bits")
