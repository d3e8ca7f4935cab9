"""Random small networks for tests: any graph that a description can say and that is exact on hardware."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from reverb_fpga.models.description import (
    BINARY_SPIKES,
    EVENTS,
    INPUT,
    SYSTEMS,
    GateSpec,
    InputSpec,
    LayerSpec,
    NetworkSpec,
    NeuronSpec,
    PoolSpec,
    Shape,
    TensorSpec,
    WeightSpec,
)

__all__ = ["random_graph"]

_LABELS = ("a", "b", "c", "d", "e")


def random_graph(seed: int, system: str | None = None) -> NetworkSpec:
    """A network of one to five layers beside the first and the last; the same seed gives the same one.

    Shortcuts (identity, 1x1 convolution, several into one neuron), tensors with several readers, pool layers, average
    pools anywhere, maximum pools where they are exact (spikes of 0 and 1, or one step), kernels that are not square,
    strides, padding, dilation, biases, every kind of normalisation, neurons that differ, gates, steps that differ.
    """
    return _Maker(np.random.default_rng((seed, 9)), system).make()


class _Maker:
    def __init__(self, rng: np.random.Generator, system: str | None) -> None:
        self.rng = rng
        self.system = system or self._one(SYSTEMS)
        self.binary = self.system in BINARY_SPIKES
        self.steps = int(rng.integers(1, 5))
        channels = int(rng.integers(1, 4))
        mean, std = rng.integers(0, 256, channels), rng.uniform(30, 90, channels)
        self.input = InputSpec(
            channels, int(rng.integers(6, 13)), int(rng.integers(6, 13)), tuple(map(int, mean)), tuple(map(float, std))
        )
        self.layers: list[LayerSpec] = []
        self.shapes: dict[str, Shape] = {}  # of the tensors

    def make(self) -> NetworkSpec:
        self._conv(INPUT, self.input.shape, self._multibit())
        for _ in range(int(self.rng.integers(1, 6))):
            source = self._one(tuple(self.shapes)[-2:])  # the last two: some tensor has several readers
            if self._chance(0.3) and min(self.shapes[source][1:]) > 2:
                self._pool_layer(source)
            else:
                self._conv(source, self.shapes[source], self._hidden())
        self._join_loose_ends()
        return self._finished()

    def _conv(self, source: str, shape: Shape, weight: WeightSpec) -> None:
        """A convolution, or now and then a linear layer, with whatever shortcuts fit its current."""
        name = f"l{len(self.layers)}"
        if source != INPUT and self._chance(0.1):
            features = shape[0] * shape[1] * shape[2]
            layer = LayerSpec(name, "linear", source, features, self._channels(), weight=weight, **self._parts())
            return self._add(layer, (layer.out_channels, 1, 1))
        if source != INPUT and self._chance(0.4):
            return self._same(name, source, shape, weight)
        pool = self._pool(shape, source) if self._chance(0.2) else None
        read = shape if pool is None else pool.shape(shape)
        kernel = tuple(int(self.rng.integers(1, min(4, side) + 1)) for side in read[1:])
        dilation = tuple(int(self.rng.integers(1, 3)) for _ in kernel)
        padding = tuple(
            int(self.rng.integers(max(0, -(-(d * (k - 1) + 1 - side) // 2)), d * (k - 1) // 2 + 1))
            for side, k, d in zip(read[1:], kernel, dilation, strict=True)
        )
        geometry: dict[str, Any] = {"kernel": kernel, "dilation": dilation, "padding": padding}
        geometry["stride"] = tuple(int(self.rng.integers(1, 3)) for _ in kernel)
        channels = shape[0] if source != INPUT and self._chance(0.5) else self._channels()
        layer = LayerSpec(
            name, "conv", source, shape[0], channels, weight=weight, pool_before=pool, **geometry, **self._parts()
        )
        mapped = layer.map_shape(read)
        after = self._pool(mapped, None) if self._chance(0.2) else None
        out = mapped if after is None else after.shape(mapped)
        layer = replace(layer, pool_after=after, gate=self._gate(weight))
        return self._add(replace(layer, shortcuts=self._shortcuts(out)), out)

    def _same(self, name: str, source: str, shape: Shape, weight: WeightSpec) -> None:
        """A convolution that keeps the shape, which is what identity shortcuts go around."""
        kernel = self._one(((3, 3), (1, 1), (3, 1), (1, 3)))
        geometry: dict[str, Any] = {"kernel": kernel, "padding": (kernel[0] // 2, kernel[1] // 2)}
        parts = {**self._parts(), "gate": self._gate(weight)}
        layer = LayerSpec(name, "conv", source, shape[0], shape[0], weight=weight, **geometry, **parts)
        self._add(replace(layer, shortcuts=self._shortcuts(shape)), shape)

    def _gate(self, weight: WeightSpec) -> GateSpec | None:
        gated = self.system == "agmm-bsnn" and weight.signs
        return GateSpec(self._one(("channel", "layer"))) if gated else None

    def _parts(self) -> dict[str, Any]:
        normalised = self._one(("affine", "affine", "affine", "plain", "none"))
        return {"bn": normalised, "bias": normalised == "none" or self._chance(0.2), "neuron": self._neuron()}

    def _neuron(self) -> NeuronSpec:
        thresholds = (0.25, 0.5, 1.0) if self.binary else (0.0, 0.0, 0.25, 0.5)
        return NeuronSpec(self._one((0.0, 0.25, 0.5, 1.0)), self._one(thresholds))

    def _shortcuts(self, out: Shape) -> tuple[str, ...]:
        """Identities of tensors of that shape, and the current of a 1x1 convolution of any other that can have it."""
        found = [name for name, shape in self.shapes.items() if shape == out and self._chance(0.7)][:2]
        strides = [(name, stride) for name, shape in self.shapes.items() if (stride := _stride(shape, out))]
        if strides and self._chance(0.35):
            source, stride = self._one(tuple(strides))
            name = f"l{len(self.layers)}d"
            down = LayerSpec(name, "conv", source, self.shapes[source][0], out[0], stride=stride, weight=self._hidden())
            self.layers.append(replace(down, bn=self._one(("affine", "plain"))))
            found.append(name)
        return tuple(found)

    def _pool_layer(self, source: str) -> None:
        shape = self.shapes[source]
        pool = replace(self._pool(shape, None), kind="avg")
        layer = LayerSpec(
            f"l{len(self.layers)}", "pool", source, shape[0], shape[0], weight=WeightSpec("unit"), bn="none",
            pool_before=pool, neuron=NeuronSpec(0.0, 0.0),
        )  # fmt: skip
        self._add(layer, pool.shape(shape))

    def _pool(self, shape: Shape, source: str | None) -> PoolSpec:
        """Of the spikes of `source`, or of a current."""
        fired = next((layer for layer in self.layers if layer.name == source), None)
        bits = self.binary and fired is not None and fired.kind != "pool"
        exact = source != INPUT and (bits or self.steps == 1)
        kind = self._one(("avg", "avg", "max")) if exact else "avg"
        window = tuple(int(self.rng.integers(1, min(4, side) + 1)) for side in shape[1:])
        stride = tuple(int(self.rng.integers(1, 3)) for _ in window)
        padding = tuple(int(self.rng.integers(0, side // 2 + 1)) for side in window)
        return PoolSpec(cast(Any, kind), cast(Any, window), cast(Any, stride), cast(Any, padding))

    def _join_loose_ends(self) -> None:
        """What nothing reads is read by the last layer, or gets a shortcut; else it is dropped."""
        kept: list[LayerSpec] = []
        last = next(layer.name for layer in reversed(self.layers) if layer.neuron is not None)
        wanted = {last}
        for layer in reversed(self.layers):
            if layer.name in wanted:
                kept.append(layer)
                wanted |= {layer.source, *layer.shortcuts}
        self.layers = kept[::-1]
        shape = self.shapes[last]
        pool = PoolSpec("avg", shape[1:], shape[1:]) if self._chance(0.4) else None
        features = shape[0] if pool else shape[0] * shape[1] * shape[2]
        self.layers.append(
            LayerSpec("fc", "linear", last, features, len(_LABELS), weight=self._multibit(), bias=True, bn="none",
                      pool_before=pool)
        )  # fmt: skip

    def _finished(self) -> NetworkSpec:
        tensors = []
        for layer in self.layers:
            if layer.neuron is not None:
                binary = self.binary and layer.kind != "pool"
                bits = 1 if binary else self._one((None, 8, 8, 4))
                alpha = self.system in ("reverb-learnable", "ternary") and self._chance(0.8)
                tensors.append(TensorSpec(layer.name, bits, alpha))
        return NetworkSpec(
            arch="random",
            system=cast(Any, self.system),
            dataset=EVENTS if self.steps > 1 and self._chance(0.5) else "random",
            labels=_LABELS,
            input=self.input,
            timesteps=self.steps,
            tensors=tuple(tensors),
            layers=tuple(self.layers),
        )

    def _add(self, layer: LayerSpec, out: Shape) -> None:
        self.layers.append(layer)
        self.shapes[layer.name] = out

    def _hidden(self) -> WeightSpec:
        if self.system == "snn":
            return self._multibit()
        if self.system == "ternary":
            return WeightSpec("ternary", 2)
        return WeightSpec("scaled" if self.system in ("bsnn", "agmm-bsnn") else "binary")

    def _multibit(self) -> WeightSpec:
        return WeightSpec("multibit", int(self._one((4, 8))))

    def _channels(self) -> int:
        return int(self.rng.integers(2, 10))

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _one(self, values: tuple[Any, ...]) -> Any:
        return values[int(self.rng.integers(len(values)))]


def _stride(shape: Shape, out: Shape) -> tuple[int, int] | None:
    """The stride, 1 or 2 each way, with which a 1x1 convolution makes `out` of `shape`."""
    for rows in (1, 2):
        for columns in (1, 2):
            if ((shape[1] - 1) // rows + 1, (shape[2] - 1) // columns + 1) == out[1:]:
                return rows, columns
    return None
