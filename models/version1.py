"""Descriptions of version 1, chains of layers, as what they are in version 2.

There a layer read what the one before it fired; ``alpha`` and the step of the codes belonged to the reader, pooling of
spikes to the layer that fired, and tensors of a checkpoint were named by the layer's index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from reverb_fpga.models.fields import boolean, choice, integer, require, table, text, tuple_of

__all__ = ["renamed", "upgraded"]

_KEYS = ("format", "arch", "system", "dataset", "labels", "input", "timesteps", "layers")
_LAYER_KEYS = (
    "name", "kind", "in_channels", "out_channels", "kernel", "stride", "padding", "weight", "alpha", "bn",
    "pool", "pool_mode", "neuron", "in_bits",
)  # fmt: skip


def upgraded(value: object) -> dict[str, Any]:
    """The JSON value of a version 1 description in version 2; raises InputError for fields that it cannot move.

    What version 2 checks anyway is left to it.
    """
    old = table(value, "top level", _KEYS)
    layers = [
        _checked(table(entry, f"layers[{index}]", _LAYER_KEYS), f"layers[{index}]")
        for index, entry in enumerate(tuple_of(old["layers"], "layers", 1, 256))
    ]
    require(layers[-1]["neuron"] is None, "layers", "the last layer has no neuron: its current is the logits")
    first = layers[0]
    own = not first["alpha"] and first["in_bits"] is None
    require(own, f"layer {first['name']!r}", "the first layer reads pixels: it has neither alpha nor in_bits")
    binary = old["system"] == "snn"
    tensors = []
    for layer, reader in pairwise(layers):
        require(layer["neuron"] is not None, f"layer {layer['name']!r}", "lacks its neuron")
        bits = 1 if binary else reader["in_bits"]
        tensors.append({"name": layer["name"], "bits": bits, "alpha": reader["alpha"]})
    sources = [None, *layers[:-1]]
    new = [_layer(layer, source) for layer, source in zip(layers, sources, strict=True)]
    return {**old, "format": 2, "tensors": tensors, "layers": new}


def _checked(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key, low, high in (("kernel", 1, 64), ("stride", 1, 64), ("padding", 0, 63), ("pool", 1, 64)):
        integer(layer[key], f"{where}.{key}", low, high)
    text(layer["name"], f"{where}.name", 64)
    choice(layer["kind"], f"{where}.kind", ("conv", "linear"))
    choice(layer["pool_mode"], f"{where}.pool_mode", ("current", "spike"))
    boolean(layer["alpha"], f"{where}.alpha")
    boolean(layer["bn"], f"{where}.bn")
    if layer["in_bits"] is not None:
        integer(layer["in_bits"], f"{where}.in_bits", 2, 8)
    return {**layer, "name": layer["name"].replace(".", "_")}  # dots separate the names of tensors


def _layer(layer: Mapping[str, Any], source: Mapping[str, Any] | None) -> dict[str, Any]:
    pooled_source = source is not None and source["pool_mode"] == "spike"
    kept = ("name", "kind", "in_channels", "out_channels", "weight", "neuron")
    return {
        **{key: layer[key] for key in kept},
        **{key: [layer[key], layer[key]] for key in ("kernel", "stride", "padding")},
        "dilation": [1, 1],
        "source": "input" if source is None else source["name"],
        "bias": layer["neuron"] is None,
        "bn": "affine" if layer["bn"] else "none",
        "pool_before": _pool(source["pool"]) if source is not None and pooled_source else None,
        "pool_after": _pool(layer["pool"]) if layer["pool_mode"] == "current" else None,
        "shortcuts": [],
        "gate": None,
    }


def _pool(side: int) -> dict[str, Any] | None:
    window = [side, side]
    return {"kind": "avg", "window": window, "stride": window, "padding": [0, 0]} if side > 1 else None


def renamed(names: tuple[str, ...]) -> Callable[[str], str]:
    """How a tensor of a version 1 checkpoint is called now; `names` are the layers' names in their order.

    A name that does not belong to such a checkpoint stays as it is.
    """

    def rename(tensor: str) -> str:
        room, _, rest = tensor.partition(".")
        index, _, part = rest.partition(".")
        if room != "layers" or not index.isascii() or not index.isdigit() or len(index) > 4 or int(index) >= len(names):
            return tensor
        if part in ("alpha", "in_scale") and int(index) > 0:
            return f"tensors.{names[int(index) - 1]}.{'scale' if part == 'in_scale' else part}"
        return f"layers.{names[int(index)]}.{part}"

    return rename
