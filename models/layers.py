"""The parts of a description: layers, pools, neurons, weights, tensors. Their meaning: ``models/description.py``.

Every dataclass checks its own fields when it is made; ``from_dict`` reads its JSON form. Nothing here imports torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

from reverb_fpga.models.fields import boolean, choice, integer, number, pair, require, table, text, tuple_of

__all__ = [
    "INPUT",
    "GateSpec",
    "InputSpec",
    "LayerSpec",
    "NeuronSpec",
    "Pair",
    "PoolSpec",
    "Shape",
    "TensorSpec",
    "WeightSpec",
]

INPUT = "input"
"""Name of the tensor that holds the image; no layer may have it."""

Shape = tuple[int, int, int]  # channels, height, width
Pair = tuple[int, int]  # height, width

_KINDS = ("conv", "linear", "pool")
_BN_KINDS = ("affine", "plain", "none")
_WEIGHT_BITS = {
    "binary": (1, 1),
    "scaled": (1, 1),
    "ternary": (2, 2),
    "multibit": (2, 8),
    "real": (32, 32),
    "unit": (1, 1),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_MAX_CHANNELS = 1 << 20
_MAX_KERNEL = 64
_MAX_SIDE = 4096
_MAX_SHORTCUTS = 8


class _FromDict:
    """JSON form: an object with one entry per field; lists become tuples, nested objects their dataclass."""

    _NESTED: ClassVar[dict[str, type[_FromDict]]] = {}
    _TUPLES: ClassVar[dict[str, tuple[int, int]]] = {}  # field to shortest and longest list

    @classmethod
    def from_dict(cls, value: object, where: str) -> Self:
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        values = dict(table(value, where, names))
        for name, kind in cls._NESTED.items():
            if values[name] is not None:
                values[name] = kind.from_dict(values[name], f"{where}.{name}")
        for name, (low, high) in cls._TUPLES.items():
            values[name] = tuple_of(values[name], f"{where}.{name}", low, high)
        return cls(**values)


@dataclass(frozen=True)
class NeuronSpec(_FromDict):
    """Leaky integrate-and-fire with hard reset: ``U = tau * U * (not fired) + y``, fires where ``U >= v_th``.

    Attributes
    ----------
    tau : float
        Leak per time step, 0..1.
    v_th : float
        Threshold, >= 0, in units of the current.
    """

    tau: float = 0.25
    v_th: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", number(self.tau, "neuron.tau", 0.0, 1.0))
        object.__setattr__(self, "v_th", number(self.v_th, "neuron.v_th", 0.0, 1e6))


@dataclass(frozen=True)
class WeightSpec(_FromDict):
    """How a layer's weights are used.

    Attributes
    ----------
    kind : str
        ``binary`` +-1; ``scaled`` +-1 times the mean of the latent magnitudes of the output channel (BSNN);
        ``ternary`` -1, 0, 1; ``multibit`` symmetric integers times a scale per output channel; ``real``, float only;
        ``unit``, the identity, for pool layers.
    bits : int
        2..8 of ``multibit``; 1, 2 (ternary) or 32 (real) of the others.
    """

    kind: Literal["binary", "scaled", "ternary", "multibit", "real", "unit"] = "binary"
    bits: int = 1

    def __post_init__(self) -> None:
        choice(self.kind, "weight.kind", tuple(_WEIGHT_BITS))
        integer(self.bits, f"weight.bits ({self.kind})", *_WEIGHT_BITS[self.kind])

    @property
    def signs(self) -> bool:
        """Whether only the sign of a latent weight (and whether it is near zero) counts in the convolution."""
        return self.kind in ("binary", "scaled", "ternary")


@dataclass(frozen=True)
class PoolSpec(_FromDict):
    """Pooling over windows, which must lie inside the padded map (others are dropped, as in torch).

    Attributes
    ----------
    kind : str
        ``avg``: the sum over the window divided by its whole area, padding included; ``max``: padding never wins.
    window, stride, padding : (height, width)
        Padding at most half a window.
    """

    _TUPLES: ClassVar[dict[str, tuple[int, int]]] = {"window": (2, 2), "stride": (2, 2), "padding": (2, 2)}

    kind: Literal["avg", "max"]
    window: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        choice(self.kind, "pool.kind", ("avg", "max"))
        window = pair(self.window, "pool.window", 1, _MAX_SIDE)
        pair(self.stride, "pool.stride", 1, _MAX_SIDE)
        for side, padding in zip(window, pair(self.padding, "pool.padding", 0, _MAX_SIDE), strict=True):
            require(padding <= side // 2, "pool.padding", f"{padding} is more than half of a window of {side}")

    @classmethod
    def square(cls, side: int, kind: Literal["avg", "max"] = "avg") -> PoolSpec:
        """Windows of `side` x `side` that do not overlap."""
        return cls(kind, (side, side), (side, side))

    @property
    def area(self) -> int:
        """Places of a window."""
        return self.window[0] * self.window[1]

    def shape(self, shape: Shape) -> Shape:
        """Shape of the pooled map."""
        height, width = (
            (n + 2 * p - w) // s + 1
            for n, w, s, p in zip(shape[1:], self.window, self.stride, self.padding, strict=True)
        )
        return (shape[0], height, width)


@dataclass(frozen=True)
class GateSpec(_FromDict):
    """AGMM: the normalised current times ``sigmoid(a[t] * mean)``; ``a`` is trained, one per time step.

    Attributes
    ----------
    mean : str
        Over height and width, per ``channel``; or over the whole ``layer``.
    """

    mean: Literal["channel", "layer"] = "channel"

    def __post_init__(self) -> None:
        choice(self.mean, "gate.mean", ("channel", "layer"))

    @property
    def rounds(self) -> bool:
        """Whether a target computes it, and the network with rounding as that does."""
        return self.mean == "channel"


@dataclass(frozen=True)
class TensorSpec(_FromDict):
    """The spikes of one layer as all its readers see them.

    Attributes
    ----------
    name : str
        The layer that fires it.
    bits : int or None
        Of its codes under quantisation-aware training, 2..8; 1: binary spikes; None: not rounded in training.
    alpha : bool
        Whether it has a learnable scale per channel, ``|alpha|`` in its codes and ``sign(alpha)`` in the weights of its
        readers.
    """

    name: str
    bits: int | None = None
    alpha: bool = False

    def __post_init__(self) -> None:
        text(self.name, "tensor.name", 64)
        where = f"tensor {self.name!r}"
        boolean(self.alpha, f"{where}.alpha")
        if self.bits is not None:
            integer(self.bits, f"{where}.bits", 1, 8)
        require(not (self.binary and self.alpha), where, "binary spikes (bits = 1) have no alpha")

    @property
    def binary(self) -> bool:
        """Spikes of 0 and 1."""
        return self.bits == 1

    @property
    def learned_step(self) -> bool:
        """Whether the value of one code is learned: codes of 2..8 bits."""
        return self.bits is not None and self.bits > 1


@dataclass(frozen=True)
class LayerSpec(_FromDict):
    """One layer. See ``models/description.py`` for the order of its steps.

    Attributes
    ----------
    name : str
        Also the name of the tensor that it fires.
    kind : str
        ``conv``, ``linear`` (flattens C, H, W in that order, C slowest) or ``pool`` (the identity after `pool_before`).
    source : str
        What it reads: ``input``, or an earlier layer with a neuron.
    in_channels, out_channels : int
        Channels of a convolution; features of a linear layer.
    kernel, stride, padding, dilation : (height, width)
        Of a convolution; 1, 1, 0, 1 of the others. Padding is zeros of the (normalised) input.
    weight : WeightSpec
    bias : bool
        A bias per output channel, before normalisation.
    bn : str
        Batch normalisation: ``affine``, ``plain`` (no gamma and beta) or ``none``.
    pool_before, pool_after : PoolSpec or None
        Of the spikes that it reads; of the current.
    shortcuts : tuple of str
        What is added to the current just before the neuron: a tensor (identity), or the current of an earlier layer
        without neuron.
    gate : GateSpec or None
    neuron : NeuronSpec or None
        None: a current that only `shortcuts` read; in the last layer the logits.
    """

    _NESTED: ClassVar[dict[str, type[_FromDict]]] = {
        "weight": WeightSpec,
        "pool_before": PoolSpec,
        "pool_after": PoolSpec,
        "gate": GateSpec,
        "neuron": NeuronSpec,
    }
    _TUPLES: ClassVar[dict[str, tuple[int, int]]] = {
        "kernel": (2, 2),
        "stride": (2, 2),
        "padding": (2, 2),
        "dilation": (2, 2),
        "shortcuts": (0, _MAX_SHORTCUTS),
    }

    name: str
    kind: Literal["conv", "linear", "pool"]
    source: str
    in_channels: int
    out_channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    weight: WeightSpec = WeightSpec()
    bias: bool = False
    bn: Literal["affine", "plain", "none"] = "affine"
    pool_before: PoolSpec | None = None
    pool_after: PoolSpec | None = None
    shortcuts: tuple[str, ...] = ()
    gate: GateSpec | None = None
    neuron: NeuronSpec | None = None

    def __post_init__(self) -> None:
        ok = isinstance(self.name, str) and _NAME.fullmatch(self.name) is not None and self.name != INPUT
        where = f"layer {self.name!r:.70}"
        require(ok, where, f"a name is a letter, then up to 63 letters, digits, '_' or '-', and not {INPUT!r}")
        choice(self.kind, f"{where}.kind", _KINDS)
        text(self.source, f"{where}.source", 64)
        integer(self.in_channels, f"{where}.in_channels", 1, _MAX_CHANNELS)
        integer(self.out_channels, f"{where}.out_channels", 1, _MAX_CHANNELS)
        self._check_geometry(where)
        require(isinstance(self.weight, WeightSpec), f"{where}.weight", "lacks its kind")
        boolean(self.bias, f"{where}.bias")
        choice(self.bn, f"{where}.bn", _BN_KINDS)
        for name in self.shortcuts:
            text(name, f"{where}.shortcuts", 64)
        require(len(set(self.shortcuts)) == len(self.shortcuts), f"{where}.shortcuts", "names one twice")
        require((self.kind == "pool") == (self.weight.kind == "unit"), where, "unit weights are those of pool layers")
        if self.kind == "pool":
            self._check_pool(where)

    def _check_geometry(self, where: str) -> None:
        kernel = pair(self.kernel, f"{where}.kernel", 1, _MAX_KERNEL)
        pair(self.stride, f"{where}.stride", 1, _MAX_KERNEL)
        dilation = pair(self.dilation, f"{where}.dilation", 1, _MAX_KERNEL)
        padding = pair(self.padding, f"{where}.padding", 0, _MAX_SIDE)
        for given, size, spread in zip(padding, kernel, dilation, strict=True):
            require(given <= spread * (size - 1), f"{where}.padding", f"{given} exceeds the reach of the kernel")
        if self.kind != "conv":
            plain = (self.kernel, self.stride, self.padding, self.dilation) == ((1, 1), (1, 1), (0, 0), (1, 1))
            require(plain, where, f"a {self.kind} layer has kernel 1, stride 1, padding 0 and dilation 1")
            require(self.pool_after is None, where, f"a {self.kind} layer pools what it reads, not its current")

    def _check_pool(self, where: str) -> None:
        require(self.pool_before is not None, where, "a pool layer needs pool_before")
        require(self.in_channels == self.out_channels, where, "a pool layer keeps its channels")
        bare = not self.bias and self.bn == "none" and self.gate is None and not self.shortcuts
        require(bare, where, "a pool layer has neither bias, normalisation, gate nor shortcuts")
        require(self.neuron is not None and self.neuron.tau == 0, where, "a pool layer has a neuron with tau = 0")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight tensor: (out, in, kernel height, kernel width), or (out, in); a pool layer has none."""
        shape = (self.out_channels, self.in_channels)
        return shape + self.kernel if self.kind == "conv" else shape

    def map_shape(self, shape: Shape) -> Shape:
        """Shape after the map, before `pool_after`. `shape` is what the map reads, after `pool_before`."""
        if self.kind == "linear":
            return (self.out_channels, 1, 1)
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return (self.out_channels, height, width)


@dataclass(frozen=True)
class InputSpec(_FromDict):
    """The image as the network takes it: 8-bit pixels, normalised as ``(pixel - mean) / std`` per channel.

    Attributes
    ----------
    mean : tuple of int
        Integer pixel codes 0..255, one per channel, so that a border of normalised zeros is a pixel code.
    std : tuple of float
        In pixel codes, > 0, one per channel.
    """

    _TUPLES: ClassVar[dict[str, tuple[int, int]]] = {"mean": (1, 64), "std": (1, 64)}

    channels: int
    height: int
    width: int
    mean: tuple[int, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        integer(self.channels, "input.channels", 1, 64)
        integer(self.height, "input.height", 1, _MAX_SIDE)
        integer(self.width, "input.width", 1, _MAX_SIDE)
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            require(count == self.channels, f"input.{name}", f"{count} entries for {self.channels} channels")
        for value in self.mean:
            integer(value, "input.mean", 0, 255)
        object.__setattr__(self, "std", tuple(number(value, "input.std", 1e-3, 1e6) for value in self.std))

    @property
    def shape(self) -> Shape:
        return (self.channels, self.height, self.width)
