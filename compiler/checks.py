"""Verifiers between the compiler's stages; each raises InputError naming the layer and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reverb_fpga.compiler.intnet import IntLayer, IntNetwork, WeightKind
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatNetwork, FoldedLayer, FoldedNetwork
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import TAU_ONE
from reverb_fpga.hw.errors import InputError

__all__ = ["check_float", "check_folded", "check_network"]


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise InputError(f"{where}: {what}")


def check_float(network: FloatNetwork) -> None:
    """The imported graph: channels follow each other, every number is finite, scales and deviations are positive."""
    channels = len(network.mean)
    _require(min(network.std) > 0, "input", "its deviation must be positive")
    for layer in network.layers:
        where = f"layer {layer.name}"
        _require(layer.weight.shape[1] == channels, where, f"does not read {channels} channels")
        channels = layer.weight.shape[0]
        numbers = [layer.weight_scale, layer.bias]
        if layer.norm is not None:
            numbers += [layer.norm.gamma, layer.norm.beta, layer.norm.mean, layer.norm.sigma]
            _require(bool(np.all(layer.norm.sigma > 0)), where, "its normalisation divides by zero")
        for values in numbers:
            _require(values.shape == (channels,) and bool(np.isfinite(values).all()), where, "a number is not finite")
        _require(layer.alpha is None or layer.alpha.shape == layer.weight.shape[1:2], where, "one alpha per channel")
        _require(layer.code_step is None or layer.code_step > 0, where, "the scale of its codes must be positive")
        _require(bool(np.all(layer.weight_scale > 0)), where, "its weight scale must be positive")
        _check_weights(layer, where)


def check_folded(network: FoldedNetwork) -> None:
    """The folded form: gains are not negative, every number is finite, weights are still of their kind."""
    zero = network.input.zero
    _require(bool(np.all((zero >= 0) & (zero <= 255))), "input", "the code of zero is not 0..255")
    for layer in network.layers:
        where = f"layer {layer.name}"
        _require(bool(np.all(layer.gain >= 0)), where, "a gain is negative after folding")
        for values in (layer.gain, layer.bias, layer.threshold):
            _require(bool(np.isfinite(values).all()), where, "a folded number is not finite")
        _check_weights(layer, where)


def check_network(network: IntNetwork, config: Config) -> None:
    """Shapes, kinds and ranges of a quantised network against the number formats of ``docs/numerics.md``."""
    source = network.input
    _require(len(network.layers) > 0, "network", "has no layers")
    _require(len(network.layers) <= 256, "network", f"has {len(network.layers)} layers, at most 256 are possible")
    _require(min(source.channels, source.height, source.width) >= 1, "input", "is empty")
    _require(source.pad_codes.shape == (source.channels,), "input", "needs one pad code per channel")
    _require(bool(np.all((source.pad_codes >= 0) & (source.pad_codes <= 255))), "input", "a pad code is not 0..255")
    _require(network.timesteps >= 1, "network", f"has {network.timesteps} time steps")
    channels = source.channels
    for layer in network.layers:
        _check_layer(layer, channels, config)
        channels = layer.weight.shape[0]
    _check_roles(network.layers)


def _check_roles(layers: Sequence[IntLayer]) -> None:
    for layer in layers[:-1]:
        _require(layer.spiking, f"layer {layer.name}", "only the last layer may be without firing")
    last = layers[-1]
    _require(not last.spiking and last.tau_q == TAU_ONE, f"layer {last.name}", "the last layer must sum, not fire")


def _check_layer(layer: IntLayer, channels: int, config: Config) -> None:
    where = f"layer {layer.name}"
    _require(layer.weight.ndim == 4 and min(layer.weight.shape) >= 1, where, "weights must be (out, in, height, width)")
    _require(
        layer.weight.shape[1] == channels,
        where,
        f"weights expect {layer.weight.shape[1]} channels, its input has {channels}",
    )
    _require(min(layer.stride, layer.in_pool, layer.out_pool) >= 1, where, "stride and pooling must be at least 1")
    _require(0 <= layer.padding < min(layer.weight.shape[2:]) or layer.padding == 0, where, "padding beyond the kernel")
    _check_weights(layer, where)
    limit = 1 << (config.membrane_width - 1)
    for name, values, low, high in (
        ("gain", layer.gain, 0, (1 << config.gain_width) - 1),
        ("bias", layer.bias, -limit, limit - 1),
        ("threshold", layer.threshold, -limit, limit - 1),
    ):
        _require(values.shape == layer.weight.shape[:1], where, f"needs one {name} per output channel")
        worst = int(values.max()) if values.max() > high else int(values.min())
        _require(low <= worst <= high, where, f"{name} {worst} is not in {low}..{high}")
    _require(0 <= layer.r_shift <= 63, where, f"shift {layer.r_shift} is not in 0..63")
    _require(0 <= layer.tau_q <= TAU_ONE, where, f"tau_q {layer.tau_q} is not in 0..{TAU_ONE}")
    _require(1 <= layer.code_max <= 255, where, f"code_max {layer.code_max} is not in 1..255")


def _check_weights(layer: FloatLayer | FoldedLayer | IntLayer, where: str) -> None:
    weight = layer.weight
    if layer.kind is WeightKind.BINARY:
        _require(bool(np.all(np.abs(weight) == 1)), where, "a binary weight is neither -1 nor +1")
    elif layer.kind is WeightKind.TERNARY:
        _require(bool(np.all(np.abs(weight) <= 1)), where, "a ternary weight is not -1, 0 or +1")
    else:
        _require(2 <= layer.bits <= 8, where, f"{layer.bits} weight bits, 2..8 are possible")
        limit = 1 << (layer.bits - 1)
        ok = bool(weight.min() >= -limit and weight.max() < limit)
        _require(ok, where, f"a weight does not fit {layer.bits} bits")
