"""Import: a checkpoint becomes the float graph; what the target cannot express is named here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatNetwork, Norm
from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.models.checkpoint import Checkpoint
from reverb_fpga.models.description import BN_EPS, LayerSpec, NetworkSpec, Shape

__all__ = ["import_checkpoint"]

_SUPPORTED = "supported: conv and linear layers with binary weights or multi-bit weights of 2..8 bits, LIF neurons"

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
    producer = spec.layers[index - 1] if index else None
    prefix = f"layers.{index}."
    integers, scale, kind = _weights(layer, tensors[prefix + "weight"])
    channels = layer.out_channels
    none = np.zeros(channels)
    neuron = layer.neuron
    return FloatLayer(
        name=layer.name,
        weight=_kernel(integers, layer, spec.shapes()[index].read),
        kind=kind,
        bits=layer.weight.bits,
        weight_scale=scale,
        alpha=tensors[prefix + "alpha"].astype(np.float64) if layer.alpha else None,
        code_step=float(tensors[prefix + "in_scale"]) if layer.in_bits is not None else None,
        code_bits=layer.in_bits,
        stride=layer.stride,
        padding=layer.padding,
        in_pool=producer.pool if producer is not None and producer.pool_mode == "spike" else 1,
        out_pool=layer.pool if layer.pool_mode == "current" else 1,
        bias=tensors[prefix + "bias"].astype(np.float64) if neuron is None else none,
        norm=_norm(tensors, prefix) if layer.bn else None,
        tau=neuron.tau if neuron is not None else 1.0,
        v_th=neuron.v_th if neuron is not None else 0.0,
        spiking=neuron is not None,
    )


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
