"""Import: a checkpoint becomes the float graph; what the target cannot express is named here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import NO_POOL, Geometry, Pool
from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.passes.graph import FloatGate, FloatLayer, FloatMap, FloatNetwork, FloatTensor, Norm
from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.models.checkpoint import Checkpoint
from reverb_fpga.models.description import BN_EPS, LayerSpec, NetworkSpec, PoolSpec, Shape

__all__ = ["import_checkpoint"]

Reals = NDArray[np.float64]
Ints = NDArray[np.int64]
Tensors = Mapping[str, NDArray[np.float32]]


def import_checkpoint(checkpoint: Checkpoint, static_input: bool = True) -> FloatNetwork:
    """The float graph of a checkpoint: currents without neurons become maps of the layers that add them.

    Parameters
    ----------
    static_input : bool
        Every time step sees the same image.

    Raises
    ------
    InputError
        Names the first layer that is not supported, why, and what is.
    """
    spec = checkpoint.spec
    reader = _Reader(spec, checkpoint.tensors)
    layers: list[FloatLayer] = []
    for position, layer in enumerate(spec.layers):
        if layer.neuron is not None or position == len(spec.layers) - 1:
            layers += reader.layer(layer)
    return FloatNetwork(
        height=spec.input.height,
        width=spec.input.width,
        mean=spec.input.mean,
        std=spec.input.std,
        layers=tuple(layers),
        tensors={tensor.name: reader.tensor(tensor.name) for tensor in spec.tensors},
        timesteps=spec.timesteps,
        static_input=static_input,
    )


class _Reader:
    """Reads layers of one checkpoint."""

    def __init__(self, spec: NetworkSpec, tensors: Tensors) -> None:
        self._spec = spec
        self._tensors = tensors
        self._shapes = {layer.name: shapes for layer, shapes in zip(spec.layers, spec.shapes(), strict=True)}
        self._pooled: dict[tuple[str, PoolSpec], str] = {}

    def tensor(self, name: str) -> FloatTensor:
        """Alpha and codes of what a layer fires."""
        tensor = self._spec.tensor(name)
        if tensor is None:
            return FloatTensor()
        prefix = f"tensors.{name}."
        return FloatTensor(
            alpha=self._tensors[prefix + "alpha"].astype(np.float64) if tensor.alpha else None,
            code_step=float(self._tensors[prefix + "scale"]) if tensor.learned_step else None,
            code_bits=tensor.bits if tensor.learned_step else None,
        )

    def layer(self, layer: LayerSpec) -> list[FloatLayer]:
        """A layer with neurons, or the last; before it, the poolings that need neurons of their own."""
        before: list[FloatLayer] = []
        legs = [self._shortcut(layer, name, before) for name in layer.shortcuts]
        neuron = layer.neuron
        if layer.kind == "pool" and layer.pool_before is not None and layer.pool_before.kind == "max":
            return [self._max_pool(layer.name, layer.source, layer.pool_before, layer.name)]
        own = self._map(layer, before)
        return [
            *before,
            FloatLayer(
                name=layer.name,
                maps=(*legs, own),
                tau=neuron.tau if neuron is not None else 1.0,
                v_th=neuron.v_th if neuron is not None else 0.0,
                spiking=neuron is not None,
                binary=self._binary(layer.name),
                timesteps=self._spec.timesteps,
                gate=self._gate(layer),
            ),
        ]

    def _gate(self, layer: LayerSpec) -> FloatGate | None:
        if layer.gate is None:
            return None
        if layer.gate.mean != "channel":
            raise InputError(
                f"layer {layer.name}: a gate whose mean runs over the whole layer is not supported: sums are kept per "
                "channel; train with the mean over each channel"
            )
        if layer.neuron is None:
            raise InputError(f"layer {layer.name}: a gate on the logits is not supported; gate layers that spike")
        factor = self._tensors[f"layers.{layer.name}.gate"].astype(np.float64)
        _, rows, columns = self._shapes[layer.name].out
        return FloatGate(factor, rows * columns)

    def _binary(self, name: str) -> bool:
        tensor = self._spec.tensor(name)
        return tensor is not None and tensor.binary

    def _shortcut(self, layer: LayerSpec, name: str, before: list[FloatLayer]) -> FloatMap:
        """What a shortcut adds: the spikes of a tensor, or the current of a layer without neuron."""
        added = self._spec.layer(name)
        if added.neuron is not None:
            return _identity(name, layer.out_channels, NO_POOL)
        if added.gate is not None:
            raise InputError(f"layer {name}: a gate on a shortcut is not supported; gate the convolution")
        return self._map(added, before)

    def _map(self, layer: LayerSpec, before: list[FloatLayer]) -> FloatMap:
        """The convolution or linear map of a layer."""
        source, pool = layer.source, layer.pool_before
        if pool is not None and pool.kind == "max":
            source, pool = self._pooled_source(layer, pool, before), None
        after = layer.pool_after
        if after is not None and after.kind == "max":
            raise InputError(
                f"layer {layer.name}: max pooling of the current is not supported: the gather adds; use average "
                "pooling, or max pooling of binary spikes"
            )
        if layer.kind == "pool":
            return _identity(source, layer.out_channels, _pool(pool))
        integers, scale, kind = _weights(layer, self._tensors[f"layers.{layer.name}.weight"])
        bias = self._tensors[f"layers.{layer.name}.bias"].astype(np.float64) if layer.bias else None
        return FloatMap(
            source=source,
            weight=_kernel(integers, layer, self._shapes[layer.name].read),
            kind=kind,
            bits=layer.weight.bits if kind is WeightKind.MULTIBIT else 1,
            weight_scale=scale,
            scaled=True,
            geometry=Geometry(layer.stride, layer.padding, layer.dilation, _pool(pool), _pool(after)),
            bias=np.zeros(layer.out_channels) if bias is None else bias,
            norm=self._norm(layer),
        )

    def _norm(self, layer: LayerSpec) -> Norm | None:
        if layer.bn == "none":
            return None
        parts = ("running_mean", "running_var", *(("weight", "bias") if layer.bn == "affine" else ()))
        found = {part: self._tensors[f"layers.{layer.name}.bn.{part}"].astype(np.float64) for part in parts}
        channels = layer.out_channels
        return Norm(
            gamma=found.get("weight", np.ones(channels)),
            beta=found.get("bias", np.zeros(channels)),
            mean=found["running_mean"],
            sigma=np.sqrt(found["running_var"] + BN_EPS),
        )

    def _pooled_source(self, layer: LayerSpec, pool: PoolSpec, before: list[FloatLayer]) -> str:
        """Name of the max-pooled source; its layer is made for the first reader."""
        key = (layer.source, pool)
        if key not in self._pooled:
            self._pooled[key] = f"{layer.source}.max{len(self._pooled) + 1}"
            before.append(self._max_pool(layer.name, layer.source, pool, self._pooled[key]))
        return self._pooled[key]

    def _max_pool(self, where: str, source: str, pool: PoolSpec, name: str) -> FloatLayer:
        """The largest of binary spikes: one fires if any of its window did."""
        if not self._binary(source):
            raise InputError(
                f"layer {where}: max pooling of real-valued spikes is not supported: the gather adds; use average "
                "pooling (supported: max pooling of binary spikes)"
            )
        channels = self._shapes[source].out[0]
        return FloatLayer(
            name=name,
            maps=(_identity(source, channels, _pool(pool)),),
            tau=0.0,
            v_th=0.5 / pool.area,
            spiking=True,
            binary=True,
            timesteps=self._spec.timesteps,
        )


def _identity(source: str, channels: int, pool: Pool) -> FloatMap:
    """Every channel as it is, averaged over windows."""
    return FloatMap(
        source=source,
        weight=np.eye(channels, dtype=np.int64)[:, :, None, None],
        kind=WeightKind.UNIT,
        bits=1,
        weight_scale=np.ones(channels),
        scaled=False,
        geometry=Geometry(in_pool=pool),
        bias=np.zeros(channels),
        norm=None,
    )


def _pool(pool: PoolSpec | None) -> Pool:
    return NO_POOL if pool is None else Pool(pool.window, pool.stride, pool.padding)


def _weights(layer: LayerSpec, latent: NDArray[np.float32]) -> tuple[Ints, Reals, WeightKind]:
    """Integers, the real value of one per output channel, and their kind."""
    kind = layer.weight.kind
    if kind in ("binary", "scaled"):
        signs = np.where(latent >= 0, 1, -1).astype(np.int64)
        if kind == "binary":
            return signs, np.ones(layer.out_channels), WeightKind.BINARY
        scale = np.abs(latent.astype(np.float64)).reshape(layer.out_channels, -1).mean(axis=1)
        return signs, np.maximum(scale, np.finfo(np.float64).tiny), WeightKind.BINARY
    if kind not in ("multibit", "ternary"):
        raise InputError(
            f"layer {layer.name}: {kind} weights are not supported; supported: binary, ternary and multi-bit weights "
            "of 2..8 bits"
        )
    try:
        import torch

        from reverb_fpga.models import quant
    except ImportError:
        raise EnvironmentMissing(
            f"torch is not installed, {kind} weights need it: pip install 'reverb-fpga[train]'"
        ) from None
    # the trainer's own quantiser in the trainer's own precision: not one weight may differ
    given = torch.from_numpy(latent.copy())
    if kind == "ternary":
        return quant.quantise_ternary(given).numpy().astype(np.int64), np.ones(layer.out_channels), WeightKind.TERNARY
    integers, scale = quant.quantise_multibit(given, layer.weight.bits)
    return integers.numpy().astype(np.int64), scale.numpy().astype(np.float64), WeightKind.MULTIBIT


def _kernel(integers: Ints, layer: LayerSpec, read: Shape) -> Ints:
    """(C_out, C_in, K_h, K_w); a linear layer flattened C, H, W in that order."""
    return integers.reshape(layer.out_channels, *read) if layer.kind == "linear" else integers
