"""Layers of a network one after the other, with the choices that every architecture offers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.description import (
    BINARY_SPIKES,
    FLOAT,
    INPUT,
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

__all__ = ["Builder", "DatasetSpec", "Options"]


@dataclass(frozen=True)
class DatasetSpec:
    """What a network must know of its data set."""

    name: str
    input: InputSpec
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """Choices that every architecture offers.

    Attributes
    ----------
    system : str
        Weights and spikes: ``reverb`` binary and real-valued, ``reverb-learnable`` with alpha, ``ternary`` (without
        alpha); with spikes of 0 and 1: ``snn`` with weights of `weight_bits`, ``bsnn`` binary weights with a scale per
        output channel, ``agmm-bsnn`` with a gate on the current of every convolution with such weights, too. ``float``:
        real weights and real-valued spikes, which do not compile: a teacher.
    timesteps, v_th, tau
        The neuron and its time.
    act_bits : int or None
        Activation bits under quantisation-aware training; None trains with float activations. Where spikes are 0 and 1
        only averages of them that several layers read are such activations.
    pool_mode : str
        Average the ``current`` before the neuron, or the ``spike`` after it.
    width : float
        Multiplies the hidden channels.
    first_bits, last_bits : int or None
        Weight bits of the first and last layers; None: 8 of ``bsnn`` and ``agmm-bsnn``, else 4.
    weight_bits : int or None
        Weight bits of all layers of ``snn``, 2..8; None: real weights, which do not compile.
    shortcuts : str or None
        Around a ``block`` of two convolutions, or ``double``: one around each (as in Bi-Real nets). None: ``double`` of
        ``bsnn`` and ``agmm-bsnn``, else ``block``.
    gate_mean : str
        What the gate of ``agmm-bsnn`` averages: height and width of each ``channel``, or the whole ``layer``.
    """

    system: str = "reverb-learnable"
    timesteps: int = 1
    v_th: float = 0.0
    tau: float = 0.25
    act_bits: int | None = None
    pool_mode: Literal["current", "spike"] = "current"
    width: float = 1.0
    first_bits: int | None = None
    last_bits: int | None = None
    weight_bits: int | None = None
    shortcuts: Literal["block", "double"] | None = None
    gate_mean: Literal["channel", "layer"] = "channel"

    @property
    def binary_weights_and_spikes(self) -> bool:
        """Whether this is one of the systems after the binary SNN."""
        return self.system in ("bsnn", "agmm-bsnn")

    @property
    def edge_bits(self) -> tuple[int, int]:
        """Weight bits of the first and the last layer."""
        usual = 8 if self.binary_weights_and_spikes else 4
        return self.first_bits or usual, self.last_bits or usual

    @property
    def double(self) -> bool:
        """Whether every convolution of a block has a shortcut of its own."""
        return self.binary_weights_and_spikes if self.shortcuts is None else self.shortcuts == "double"


class Builder:
    """A network under construction: every method adds what reads the newest tensor.

    Raises InputError naming the layer for which nothing of the image is left.
    """

    def __init__(self, arch: str, dataset: DatasetSpec, options: Options) -> None:
        self.arch, self.dataset, self.options = arch, dataset, options
        self.layers: list[LayerSpec] = []
        self._newest, self._shape = INPUT, dataset.input.shape
        self._pool_next: PoolSpec | None = None  # spikes that the next reader pools
        self._convs = self._linears = self._pools = 0

    def conv(self, channels: int, kernel: int = 3, stride: int = 1, padding: int = 0, pool: int = 1) -> None:
        """A convolution with neurons; `pool` averages its current or its spikes, as the options say."""
        self._convs += 1
        spikes = self.options.pool_mode == "spike"
        square = PoolSpec.square(pool) if pool > 1 else None
        geometry = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (padding, padding)}
        pool_after = None if spikes else square
        self._add("conv", f"conv{self._convs}", self._wide(channels), **geometry, pool_after=pool_after)
        self._pool_next = square if spikes else None

    def linear(self, features: int) -> None:
        """A fully connected layer with neurons."""
        self._linears += 1
        self._add("linear", f"fc{self._linears}", self._wide(features))

    def pool(self, pool: PoolSpec) -> None:
        """A tensor of pooled spikes that several layers may read."""
        self._pools += 1
        neuron = NeuronSpec(0.0, 0.0)
        bare = {"weight": WeightSpec("unit"), "bn": "none", "pool_before": pool, "neuron": neuron}
        self._add("pool", f"pool{self._pools}", self._shape[0], **bare)

    def block(self, name: str, channels: int, stride: int) -> None:
        """Two 3x3 convolutions and a shortcut around both, or one around each: the identity, or a 1x1 convolution with
        normalisation where shapes differ."""
        if self._pool_next is not None:
            self.pool(self._pool_next)  # pooled spikes that the block reads twice
        channels, source = self._wide(channels), self._newest
        geometry: dict[str, Any] = {"kernel": (3, 3), "padding": (1, 1)}
        strided = {"stride": (stride, stride)}
        shortcut = source
        if (channels, stride) != (self._shape[0], 1):
            shortcut = f"{name}d"
            self._keep("conv", shortcut, channels, **strided, neuron=None)
        double = self.options.double
        self._add("conv", f"{name}a", channels, **geometry, **strided, shortcuts=(shortcut,) if double else ())
        self._add("conv", f"{name}b", channels, **geometry, shortcuts=(f"{name}a" if double else shortcut,))

    def classify(self, global_pool: bool = False) -> None:
        """The last layer; with `global_pool` it reads the mean of the spikes over the whole map."""
        self._linears += 1
        if global_pool:
            self._pool_next = PoolSpec("avg", self._shape[1:], self._shape[1:])
        last = {"weight": self._weight(self.options.edge_bits[1]), "bias": True, "bn": "none", "neuron": None}
        self._keep("linear", f"fc{self._linears}", len(self.dataset.labels), **last)

    def spec(self) -> NetworkSpec:
        """The finished description."""
        network = NetworkSpec(
            arch=self.arch,
            system=cast(Any, self.options.system),
            dataset=self.dataset.name,
            labels=self.dataset.labels,
            input=self.dataset.input,
            timesteps=self.options.timesteps,
            tensors=tuple(TensorSpec(layer.name) for layer in self.layers if layer.neuron is not None),
            layers=tuple(self.layers),
        )
        return replace(network, tensors=tuple(self._tensor(network, tensor.name) for tensor in network.tensors))

    def _tensor(self, network: NetworkSpec, name: str) -> TensorSpec:
        """Alpha is learned where the signs of weights read the tensor."""
        signs = any(layer.weight.signs for layer in network.readers(name))
        average = network.layer(name).kind == "pool"  # of spikes of 0 and 1, and not one of those
        binary = self.options.system in BINARY_SPIKES and not average
        bits = 1 if binary else self.options.act_bits
        return TensorSpec(name, bits, self.options.system == "reverb-learnable" and signs)

    def _add(self, kind: str, name: str, channels: int, **parts: Any) -> None:
        """A layer that reads the newest tensor and fires the next."""
        layer = self._keep(kind, name, channels, **parts)
        self._newest = name
        mapped = layer.map_shape(self._pooled(layer.pool_before))
        self._shape = mapped if layer.pool_after is None else layer.pool_after.shape(mapped)
        self._pool_next = None
        if min(self._shape) < 1:
            _, height, width = self.dataset.input.shape
            raise InputError(f"{self.arch} is too deep for images of {width}x{height}; nothing is left at {name}")

    def _keep(self, kind: str, name: str, channels: int, **parts: Any) -> LayerSpec:
        weight = self._weight(1 if self.layers else self.options.edge_bits[0])
        usual = {"weight": weight, "neuron": NeuronSpec(self.options.tau, self.options.v_th)}
        parts = {"pool_before": self._pool_next, **usual, **parts}
        if self.options.system == "agmm-bsnn" and kind == "conv" and parts["weight"].signs and parts["neuron"]:
            parts["gate"] = GateSpec(self.options.gate_mean)
        read = self._pooled(parts["pool_before"])
        features = read[0] * read[1] * read[2] if kind == "linear" else read[0]
        layer = LayerSpec(name, cast(Any, kind), self._newest, features, channels, **parts)
        self.layers.append(layer)
        return layer

    def _pooled(self, pool: PoolSpec | None) -> Shape:
        return self._shape if pool is None else pool.shape(self._shape)

    def _wide(self, channels: int) -> int:
        return max(1, round(channels * self.options.width))

    def _weight(self, bits: int) -> WeightSpec:
        if self.options.system in ("snn", FLOAT):
            given = self.options.weight_bits
            return WeightSpec("real", 32) if given is None else WeightSpec("multibit", given)
        if bits > 1:
            return WeightSpec("multibit", bits)
        if self.options.system == "ternary":
            return WeightSpec("ternary", 2)
        return WeightSpec("scaled" if self.options.binary_weights_and_spikes else "binary")
