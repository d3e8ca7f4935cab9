"""Import: a checkpoint becomes the float graph; what the target cannot express is named here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatNetwork, Norm
from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.models.checkpoint import Checkpoint
from reverb_fpga.models.description import BN_EPS, INPUT, LayerSpec, NetworkSpec, Pair, PoolSpec, Shape

__all__ = ["import_checkpoint"]

_SUPPORTED = (
    "supported: chains of conv and linear layers with binary weights or multi-bit weights of 2..8 bits, LIF neurons"
)

Reals = NDArray[np.float64]


def import_checkpoint(checkpoint: Checkpoint, static_input: bool = True) -> FloatNetwork:
    """The float graph of a checkpoint.

    Parameters
    ----------
    static_input : bool
        Every time step sees the same image.

    Raises
    ------
    InputError
        Names the first layer that is not supported, and what is.
    """
    spec = checkpoint.spec
    return FloatNetwork(
        height=spec.input.height,
        width=spec.input.width,
        mean=spec.input.mean,
        std=spec.input.std,
        layers=tuple(_layer(spec, index, checkpoint.tensors) for index in range(len(spec.layers))),
        timesteps=spec.timesteps,
        static_input=static_input,
    )


def _layer(spec: NetworkSpec, index: int, tensors: Mapping[str, NDArray[np.float32]]) -> FloatLayer:
    layer = spec.layers[index]
    _check_chain(spec, index)
    source = spec.tensor(layer.source)
    prefix, read = f"layers.{layer.name}.", f"tensors.{layer.source}."
    integers, scale, kind = _weights(layer, tensors[prefix + "weight"])
    channels = layer.out_channels
    neuron = layer.neuron
    return FloatLayer(
        name=layer.name,
        weight=_kernel(integers, layer, spec.shapes()[index].read),
        kind=kind,
        bits=layer.weight.bits,
        weight_scale=scale,
        alpha=tensors[read + "alpha"].astype(np.float64) if source is not None and source.alpha else None,
        code_step=float(tensors[read + "scale"]) if source is not None and source.learned_step else None,
        code_bits=source.bits if source is not None else None,
        stride=_side(layer, "stride", layer.stride),
        padding=_side(layer, "padding", layer.padding),
        in_pool=_pool(layer, layer.pool_before),
        out_pool=_pool(layer, layer.pool_after),
        bias=tensors[prefix + "bias"].astype(np.float64) if layer.bias else np.zeros(channels),
        norm=_norm(tensors, prefix) if layer.bn != "none" else None,
        tau=neuron.tau if neuron is not None else 1.0,
        v_th=neuron.v_th if neuron is not None else 0.0,
        spiking=neuron is not None,
    )


def _check_chain(spec: NetworkSpec, index: int) -> None:
    """Only chains of layers with real-valued spikes compile so far."""
    layer = spec.layers[index]
    before = spec.layers[index - 1].name if index else INPUT
    fired = spec.tensor(layer.name)
    for wrong, what in (
        (layer.source != before, f"reads {layer.source!r} and not the layer before it"),
        (bool(layer.shortcuts), "shortcuts are"),
        (layer.kind == "pool", "pool layers are"),
        (layer.gate is not None, "gates are"),
        (layer.dilation != (1, 1), "dilation is"),
        (layer.bn == "plain", "normalisation without gamma and beta is"),
        (layer.neuron is None and index + 1 < len(spec.layers), "layers without neuron are"),
        (fired is not None and fired.binary, "binary spikes are"),
    ):
        if wrong:
            tail = f"; {_SUPPORTED}" if what.startswith("reads") else f" not supported; {_SUPPORTED}"
            raise InputError(f"layer {layer.name}: {what}{tail}")


def _side(layer: LayerSpec, what: str, sides: Pair) -> int:
    if sides[0] != sides[1]:
        raise InputError(f"layer {layer.name}: {what} {sides[0]}x{sides[1]} is not square; {_SUPPORTED}")
    return sides[0]


def _pool(layer: LayerSpec, pool: PoolSpec | None) -> int:
    if pool is None:
        return 1
    if pool.kind != "avg" or pool.stride != pool.window or pool.padding != (0, 0):
        raise InputError(f"layer {layer.name}: only average pools that do not overlap are supported; {_SUPPORTED}")
    return _side(layer, "pool", pool.window)


def _norm(tensors: Mapping[str, NDArray[np.float32]], prefix: str) -> Norm:
    gamma, beta, mean, variance = (
        tensors[f"{prefix}bn.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return Norm(gamma, beta, mean, np.sqrt(variance + BN_EPS))


def _weights(layer: LayerSpec, latent: NDArray[np.float32]) -> tuple[NDArray[np.int64], Reals, WeightKind]:
    """Integers, the real value of one per output channel, and their kind."""
    if layer.weight.kind == "binary":
        signs = np.where(latent >= 0, 1, -1).astype(np.int64)
        return signs, np.ones(layer.out_channels), WeightKind.BINARY
    if layer.weight.kind == "multibit":
        try:
            import torch

            from reverb_fpga.models.quant import quantise_multibit
        except ImportError:
            raise EnvironmentMissing(
                "torch is not installed, multi-bit weights need it: pip install 'reverb-fpga[train]'"
            ) from None
        # the trainer's own quantiser in the trainer's own precision: not one weight may differ
        integers, scale = quantise_multibit(torch.from_numpy(latent.copy()), layer.weight.bits)
        return integers.numpy().astype(np.int64), scale.numpy().astype(np.float64), WeightKind.MULTIBIT
    raise InputError(f"layer {layer.name}: {layer.weight.kind} weights are not supported; {_SUPPORTED}")


def _kernel(integers: NDArray[np.int64], layer: LayerSpec, read: Shape) -> NDArray[np.int64]:
    """(C_out, C_in, K_h, K_w); a linear layer flattened C, H, W in that order."""
    return integers.reshape(layer.out_channels, *read) if layer.kind == "linear" else integers
