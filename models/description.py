"""What a trained network is, without its weights: frozen dataclasses and their JSON form.

The description travels in a checkpoint's metadata, so it may come from a stranger: every field is checked for
presence, type, range and consistency with its neighbours, and the first thing that is wrong raises
:class:`~reverb_fpga.hw.errors.InputError` with the path of the field. Nothing here imports torch or numpy.

A network is a graph: layers in an order in which every one follows what it reads. A layer with a neuron fires a
*tensor* of its own name. What readers see of a tensor ``x`` belongs to the tensor:

* ``x`` times ``|alpha_c|`` per channel, where it has ``alpha``;
* where ``bits`` is set (2..8), ``s * clip(floor(x / s + 0.5), 0, 2**bits - 1)`` of that, one learned step ``s``;
* with ``bits = 1`` the neuron's spikes are 1 instead of the membrane potential, and neither of the two applies.

Semantics of a layer, in the order in which it is computed:

1. ``pool_before`` pools the source tensor as above;
2. the map: convolution or linear map with ``w(W) * sign(alpha_c)`` of the source's alpha, ``sign(0) = +1``, where ``w``
   is the sign, the ternary value, or ``integers * scale_o`` (``models/quant.py``); a pool layer passes its source,
   divided by ``|alpha_c|`` (0 where alpha is 0);
3. ``pool_after`` pools the result; then ``bias`` is added;
4. batch normalisation (``eps = 1e-5``): ``affine``, or ``plain`` without gamma and beta;
5. the gate: times ``sigmoid(a[t] * mean(y[t]))``;
6. shortcuts are added: a tensor as its readers see it, divided by ``|alpha_c|`` (0 where alpha is 0), or the current of
   a layer without neuron;
7. the LIF neuron, except for a layer whose current is a shortcut and for the last layer, whose mean over time is the
   logits.

In training ``|alpha|`` of a tensor that is also divided by it (identity shortcut, pool layer) is kept within a factor
``ALPHA_RATIO`` of its largest, so that the shortcut keeps its resolution.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.fields import choice, integer, require, table, text, tuple_of
from reverb_fpga.models.layers import (
    INPUT,
    GateSpec,
    InputSpec,
    LayerSpec,
    NeuronSpec,
    Pair,
    PoolSpec,
    Shape,
    TensorSpec,
    WeightSpec,
)

__all__ = [
    "ALPHA_RATIO",
    "BINARY_SPIKES",
    "BN_EPS",
    "DENSITY_OVER",
    "EVENTS",
    "FLOAT",
    "FORMAT_VERSION",
    "INPUT",
    "SYSTEMS",
    "DensityOver",
    "GateSpec",
    "InputSpec",
    "LayerShapes",
    "LayerSpec",
    "NetworkSpec",
    "NeuronSpec",
    "Pair",
    "PoolSpec",
    "Shape",
    "System",
    "TensorSpec",
    "WeightSpec",
]

FORMAT_VERSION = 2
BN_EPS = 1e-5
ALPHA_RATIO = 16.0

System = Literal["reverb", "reverb-learnable", "ternary", "snn", "bsnn", "agmm-bsnn", "float"]
SYSTEMS = ("reverb", "reverb-learnable", "ternary", "snn", "bsnn", "agmm-bsnn")
BINARY_SPIKES = ("snn", "bsnn", "agmm-bsnn")
"""Systems whose neurons fire 0 or 1."""
DensityOver = Literal["layer", "network"]
DENSITY_OVER: tuple[DensityOver, ...] = ("layer", "network")
"""What a density is of: of every layer by itself, or of all neurons of the network."""
FLOAT = "float"
"""Real weights and real-valued spikes: an ordinary network with ReLU, a teacher for the others. Does not compile."""

EVENTS = "events"
"""Name of the data set whose samples have a frame of their own for every time step."""

_MAX_LAYERS = 256
_KEYS = ("format", "arch", "system", "dataset", "labels", "input", "timesteps", "tensors", "layers")


@dataclass(frozen=True)
class LayerShapes:
    """Shapes around one layer: its source tensor, that after `pool_before`, after the map, and of its current."""

    source: Shape
    read: Shape
    mapped: Shape
    out: Shape


@dataclass(frozen=True)
class NetworkSpec:
    """A network.

    Attributes
    ----------
    arch, dataset : str
        Names, for people and for `info`.
    labels : tuple of str
        One per logit.
    timesteps : int
        T; the logits are the mean over T.
    tensors : tuple of TensorSpec
        One for every layer with a neuron, in their order.
    layers : tuple of LayerSpec
        Each after what it reads. The last one is linear and has no neuron.
    """

    arch: str
    system: System
    dataset: str
    labels: tuple[str, ...]
    input: InputSpec
    timesteps: int
    tensors: tuple[TensorSpec, ...]
    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        text(self.arch, "arch", 64)
        text(self.dataset, "dataset", 64)
        choice(self.system, "system", (*SYSTEMS, FLOAT))
        integer(self.timesteps, "timesteps", 1, 64)
        for label in self.labels:
            text(label, "labels")
        require(1 <= len(self.layers) <= _MAX_LAYERS, "layers", f"expected 1..{_MAX_LAYERS} layers")
        doubled = [name for name, count in Counter(layer.name for layer in self.layers).items() if count > 1]
        require(not doubled, "layers", f"two layers have the same name {doubled[:1]}")
        firing = [layer.name for layer in self.layers if layer.neuron is not None]
        named = [tensor.name for tensor in self.tensors]
        require(named == firing, "tensors", "expected one for every layer with a neuron, in their order")
        self._check_graph()
        self._check_system()
        classes = self.shapes()[-1].out[0]
        require(len(self.labels) == classes, "labels", f"{len(self.labels)} labels for {classes} output channels")

    def _check_graph(self) -> None:
        last, where = self.layers[-1], f"layer {self.layers[-1].name!r}"
        require(last.kind == "linear", where, "the last layer must be linear")
        require(last.neuron is None, where, "the last layer has no neuron: its current is the logits")
        fired, currents = {INPUT}, set[str]()
        for layer in self.layers:
            where = f"layer {layer.name!r}"
            require(layer.source in fired, where, f"its source {layer.source!r} is no tensor before it")
            for name in layer.shortcuts:
                require(name != INPUT, where, "the image cannot be a shortcut: its codes are pixels, not spikes")
                require(name in fired | currents, where, f"its shortcut {name!r} is no layer before it")
            if layer.neuron is None:
                require(not layer.shortcuts, where, "a layer without neuron takes no shortcuts")
            (currents if layer.neuron is None else fired).add(layer.name)
        read = {layer.source for layer in self.layers} | {name for layer in self.layers for name in layer.shortcuts}
        for layer in self.layers[:-1]:
            require(layer.name in read, f"layer {layer.name!r}", "no layer reads it")
        for layer in self.layers:
            pooled = layer.source == INPUT and layer.pool_before is not None and layer.pool_before.kind == "max"
            require(not pooled, f"layer {layer.name!r}", "the image cannot be max-pooled: its values are signed")
            whole = layer.source != INPUT or layer.kind != "pool"
            require(whole, f"layer {layer.name!r}", "a pool layer pools spikes, not the image")

    def _check_system(self) -> None:
        for layer in self.layers:
            real = layer.weight.kind == "real"
            require(
                not real or self.system in ("snn", FLOAT),
                f"layer {layer.name!r}",
                f"real weights in system {self.system!r}",
            )
        learns = self.system in ("reverb-learnable", "ternary")
        for tensor in self.tensors:
            where = f"tensor {tensor.name!r}"
            require(learns or not tensor.alpha, where, f"system {self.system!r} has no alpha")

    @cached_property
    def _by_name(self) -> dict[str, tuple[LayerSpec, TensorSpec | None]]:
        tensors = {tensor.name: tensor for tensor in self.tensors}
        return {layer.name: (layer, tensors.get(layer.name)) for layer in self.layers}

    @property
    def static_input(self) -> bool:
        """Whether every time step sees the same image."""
        return self.dataset != EVENTS

    def layer(self, name: str) -> LayerSpec:
        """The layer of that name."""
        return self._by_name[name][0]

    def tensor(self, name: str) -> TensorSpec | None:
        """The tensor of that name; None for ``input`` and for a layer without neuron."""
        return self._by_name[name][1] if name in self._by_name else None

    def readers(self, name: str) -> tuple[LayerSpec, ...]:
        """Layers whose map reads the tensor `name`."""
        return tuple(layer for layer in self.layers if layer.source == name)

    def adders(self, name: str) -> tuple[LayerSpec, ...]:
        """Layers that have `name` among their shortcuts."""
        return tuple(layer for layer in self.layers if name in layer.shortcuts)

    def divided(self, name: str) -> bool:
        """Whether some reader of the tensor `name` takes it without alpha: identity shortcut or pool layer."""
        return bool(self.adders(name)) or any(layer.kind == "pool" for layer in self.readers(name))

    def grid(self, name: str) -> float | None:
        """What the values of the tensor `name` are multiples of, if it holds averages of spikes of 0 and 1 that its
        codes can count."""
        layer, tensor = self._by_name[name]
        source, pool = self.tensor(layer.source), layer.pool_before
        if layer.kind != "pool" or layer.shortcuts or pool is None or pool.kind != "avg":
            return None
        if source is None or not source.binary or tensor is None or tensor.alpha or tensor.bits is None:
            return None
        places = pool.window[0] * pool.window[1]
        return 1 / places if places < 2**tensor.bits else None

    @property
    def rounds(self) -> bool:
        """Whether rounding changes anything: of activations, or of gates."""
        gates = (layer.gate for layer in self.layers if layer.gate is not None)
        return any(tensor.learned_step for tensor in self.tensors) or any(gate.rounds for gate in gates)

    def shapes(self) -> tuple[LayerShapes, ...]:
        """Shapes around every layer; raises InputError naming the layer that does not fit what it reads."""
        return self._shapes

    @cached_property
    def _shapes(self) -> tuple[LayerShapes, ...]:
        outs: dict[str, Shape] = {INPUT: self.input.shape}
        result = []
        for layer in self.layers:
            where, source = f"layer {layer.name!r}", outs[layer.source]
            read = source if layer.pool_before is None else layer.pool_before.shape(source)
            features = read[0] * read[1] * read[2] if layer.kind == "linear" else read[0]
            unit = "features" if layer.kind == "linear" else "channels"
            fits = layer.in_channels == features
            require(min(read) >= 1, where, f"its input {source} is too small for it")
            require(fits, where, f"in_channels is {layer.in_channels}, its input has {features} {unit}")
            mapped = layer.map_shape(read)
            require(min(mapped) >= 1, where, f"its input {read} is too small for it")
            out = mapped if layer.pool_after is None else layer.pool_after.shape(mapped)
            require(min(out) >= 1, where, f"its input {read} is too small for it")
            for name in layer.shortcuts:
                require(outs[name] == out, where, f"its current is {out}, its shortcut {name!r} is {outs[name]}")
            result.append(LayerShapes(source, read, mapped, out))
            outs[layer.name] = out
        return tuple(result)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of every tensor of a checkpoint; all are float32.

        ``layers.NAME.weight`` (latent, real; not of pool layers), ``.bias``, ``.bn.weight`` (gamma), ``.bn.bias``
        (beta), ``.bn.running_mean``, ``.bn.running_var`` (>= 0), ``.gate`` (T,); ``tensors.NAME.alpha`` (channels),
        ``.scale`` (scalar, > 0; where ``bits`` is 2..8).
        """
        result: dict[str, tuple[int, ...]] = {}
        for layer, shapes in zip(self.layers, self.shapes(), strict=True):
            result |= {f"layers.{layer.name}.{part}": shape for part, shape in self._layer_tensors(layer).items()}
            tensor = self.tensor(layer.name)
            if tensor is not None and tensor.alpha:
                result[f"tensors.{layer.name}.alpha"] = (shapes.out[0],)
            if tensor is not None and tensor.learned_step:
                result[f"tensors.{layer.name}.scale"] = ()
        return result

    def _layer_tensors(self, layer: LayerSpec) -> dict[str, tuple[int, ...]]:
        channels = (layer.out_channels,)
        norm = {"affine": ("weight", "bias", "running_mean", "running_var"), "plain": ("running_mean", "running_var")}
        result: dict[str, tuple[int, ...]] = {} if layer.kind == "pool" else {"weight": layer.weight_shape}
        if layer.bias:
            result["bias"] = channels
        result |= {f"bn.{part}": channels for part in norm.get(layer.bn, ())}
        if layer.gate is not None:
            result["gate"] = (self.timesteps,)
        return result

    def to_json(self) -> str:
        """The description as one line of JSON, keys sorted."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> NetworkSpec:
        """Read and check a description of this or an earlier version.

        Raises
        ------
        InputError
            Not JSON, an unknown version, or a field that is missing, unknown, mistyped, out of range or
            inconsistent; the message names it.
        """
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"network description: not valid JSON ({error!s:.100})") from None
        return cls.from_dict(value)

    @classmethod
    def from_dict(cls, value: Any) -> NetworkSpec:
        """As :meth:`from_json`, from the JSON value."""
        from reverb_fpga.models.version1 import upgraded

        version = value.get("format") if isinstance(value, dict) else None
        if type(version) is int and version == 1:
            value = upgraded(value)
        elif isinstance(value, dict) and "format" in value:
            known = type(version) is int and version == FORMAT_VERSION
            readable = f"this release reads versions 1 and {FORMAT_VERSION}"
            require(known, "format", f"version {version!r:.20} is not supported, {readable}")
        values = dict(table(value, "top level", _KEYS))
        del values["format"]
        parts: tuple[tuple[str, type[TensorSpec] | type[LayerSpec], int], ...]
        parts = (("tensors", TensorSpec, 0), ("layers", LayerSpec, 1))
        for name, kind, low in parts:
            entries = tuple_of(values[name], name, low, _MAX_LAYERS)
            values[name] = tuple(kind.from_dict(entry, f"{name}[{index}]") for index, entry in enumerate(entries))
        values["input"] = InputSpec.from_dict(values["input"], "input")
        values["labels"] = tuple_of(values["labels"], "labels", 1, 1 << 16)
        return cls(**values)
