"""Import: a checkpoint becomes the float graph; what the target cannot express is named here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import NO_POOL, Geometry, Pool
from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.passes.graph import FloatGate, FloatLayer, FloatMap, FloatNetwork, FloatTensor, Norm
from reverb_fpga.compiler.passes.largest import identity, largest
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
        tensors={tensor.name: reader.tensor(tensor.name) for tensor in spec.tensors} | reader.pooled,
        timesteps=spec.timesteps,
        static_input=static_input,
    )


class _Reader:
    """Reads layers of one checkpoint."""

    def __init__(self, spec: NetworkSpec, tensors: Tensors) -> None:
        self._spec = spec
        self._tensors = tensors
        self._shapes = {layer.name: shapes for layer, shapes in zip(spec.layers, spec.shapes(), strict=True)}
        self._names: dict[tuple[str, PoolSpec], str] = {}
        self.pooled: dict[str, FloatTensor] = {}  # what the layers fire that are not in the description

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
        if (pool := self._largest_of_spikes(layer)) is not None:
            return self._max_pool(self._spec.layer(layer.source), layer.source, pool, layer.name)
        before: list[FloatLayer] = []
        legs = [self._shortcut(layer, name, before) for name in layer.shortcuts]
        neuron = layer.neuron
        own = self._map(layer, before)
        after: list[FloatLayer] = []
        name = layer.name
        if layer.pool_after is not None and layer.pool_after.kind == "max":
            name = f"{layer.name}.all"
            after = self._pool_of_currents(layer, layer.pool_after, name)
        return [
            *before,
            FloatLayer(
                name=name,
                maps=(*legs, own),
                tau=neuron.tau if neuron is not None else 1.0,
                v_th=neuron.v_th if neuron is not None else 0.0,
                spiking=neuron is not None,
                binary=self._binary(layer.name),
                timesteps=self._spec.timesteps,
                gate=self._gate(layer),
            ),
            *after,
        ]

    def _largest_of_spikes(self, layer: LayerSpec) -> PoolSpec | None:
        """The pool of a pool layer that fires what is largest of binary spikes, and nothing else is done to it."""
        pool, tensor, neuron = layer.pool_before, self._spec.tensor(layer.name), layer.neuron
        if layer.kind != "pool" or pool is None or pool.kind != "max" or tensor is None or neuron is None:
            return None
        return pool if self._binary(layer.source) and tensor.bits is None and neuron.v_th == 0 else None

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
            return identity(name, layer.out_channels)
        if added.gate is not None:
            raise InputError(f"layer {name}: a gate on a shortcut is not supported; gate the convolution")
        return self._map(added, before)

    def _map(self, layer: LayerSpec, before: list[FloatLayer]) -> FloatMap:
        """The convolution or linear map of a layer."""
        source, pool = layer.source, layer.pool_before
        if pool is not None and pool.kind == "max":
            source, pool = self._pooled_source(layer, pool, before), None
        after = layer.pool_after if layer.pool_after is None or layer.pool_after.kind == "avg" else None
        if layer.kind == "pool":
            return identity(source, layer.out_channels, _pool(pool))
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
        """Name of the max-pooled source; its layers are made for the first reader."""
        key = (layer.source, pool)
        if key not in self._names:
            self._names[key] = f"{layer.source}.max{len(self._names) + 1}"
            before += self._max_pool(self._spec.layer(layer.source), layer.source, pool, self._names[key])
        return self._names[key]

    def _pool_of_currents(self, layer: LayerSpec, pool: PoolSpec, whole: str) -> list[FloatLayer]:
        """Max pooling of a current, of which the layer `whole` fires every position: neurons first, the largest then.

        Exact as long as a larger current never fires less.
        """
        where, neuron = f"layer {layer.name}: max pooling of its current", layer.neuron
        if neuron is None or (self._spec.timesteps > 1 and neuron.tau > 0):
            raise InputError(
                f"{where} is not supported over several time steps with leak: the largest current need not make the "
                "largest membrane; pool the spikes (pool_before of what reads them), or train with one time step"
            )
        if layer.shortcuts or layer.gate is not None:
            raise InputError(f"{where} is not supported with shortcuts or a gate: they are added after pooling")
        norm = self._norm(layer)
        if norm is not None and bool((norm.gamma < 0).any()):
            raise InputError(
                f"{where} is not supported where its normalisation has a negative gamma: the largest becomes the "
                "smallest; pool the spikes"
            )
        self.pooled[whole] = self.tensor(layer.name)
        return self._max_pool(layer, whole, pool, layer.name)

    def _max_pool(self, fires: LayerSpec, source: str, pool: PoolSpec, name: str) -> list[FloatLayer]:
        """Layers whose last, `name`, fires the largest of each window of `source`, which holds what `fires` does.

        Of binary spikes: whether any fired.
        """
        channels, steps = fires.out_channels, self._spec.timesteps
        if self._binary(fires.name):
            own = identity(source, channels, _pool(pool))
            return [FloatLayer(name, (own,), tau=0.0, v_th=0.5 / pool.area, spiking=True, binary=True, timesteps=steps)]
        layers = largest(source, channels, _pool(pool), name, steps)
        alpha = self.tensor(fires.name).alpha
        self.pooled |= {made.name: FloatTensor(alpha=alpha) for made in layers}
        return layers


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
