"""What a trained network is, without its weights: frozen dataclasses and their JSON form.

The description travels in a checkpoint's metadata, so it may come from a stranger: every field is checked for
presence, type, range and consistency with its neighbours, and the first thing that is wrong raises
:class:`~reverb_fpga.hw.errors.InputError` with the path of the field. Nothing here imports torch or numpy.

Semantics of a layer, in the order in which it is computed (``x`` is what the previous layer fires):

1. ``x`` is multiplied by ``|alpha_c|`` per channel of the *producing* layer (where ``alpha``);
2. where ``in_bits`` is set, ``x = s * clip(floor(x / s + 0.5), 0, 2**in_bits - 1)``, one scale ``s`` per tensor;
3. ``pool_mode == "spike"`` of the *producer*: average pooling of ``x`` (window = stride = ``pool``);
4. convolution or linear map with ``sign(W) * sign(alpha_c)``, ``sign(0) = +1`` (multi-bit: ``ints * scale_o``);
5. ``pool_mode == "current"``: average pooling of the result; then ``bias`` (last layer only);
6. batch normalisation (``eps = 1e-5``) where ``bn``;
7. the LIF neuron, except for the last layer, whose mean over time is the logits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, cast

from reverb_fpga.hw.errors import InputError

__all__ = [
    "BN_EPS",
    "FORMAT_VERSION",
    "InputSpec",
    "LayerSpec",
    "NetworkSpec",
    "NeuronSpec",
    "Shape",
    "WeightSpec",
]

FORMAT_VERSION = 1
BN_EPS = 1e-5

System = Literal["reverb", "reverb-learnable", "snn"]
Shape = tuple[int, int, int]  # channels, height, width

_SYSTEMS = ("reverb", "reverb-learnable", "snn")
_KINDS = ("conv", "linear")
_POOL_MODES = ("current", "spike")
_WEIGHT_KINDS = ("binary", "multibit", "real")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MAX_LAYERS = 256
_MAX_CHANNELS = 1 << 20
_MAX_SIDE = 4096

T = TypeVar("T")


def _fail(where: str, what: str) -> InputError:
    return InputError(f"network description: {where}: {what}")


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise _fail(where, what)


def _integer(value: object, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _fail(where, f"expected an integer in {low}..{high}, got {value!r:.80}")
    return value


def _number(value: object, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _fail(where, f"expected a number, got {value!r:.80}")
    if not math.isfinite(value) or not low <= value <= high:
        raise _fail(where, f"expected a finite number in {low:g}..{high:g}, got {value!r:.80}")
    return float(value)


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _fail(where, f"expected true or false, got {value!r:.80}")
    return value


def _text(value: object, where: str, limit: int = 200) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise _fail(where, f"expected printable text of 1..{limit} characters, got {value!r:.80}")
    return value


def _choice(value: object, where: str, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise _fail(where, f"expected one of {', '.join(allowed)}, got {value!r:.80}")
    return value


def _table(value: object, where: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _fail(where, f"expected an object, got {value!r:.80}")
    missing = [key for key in keys if key not in value]
    _require(not missing, where, f"lacks {', '.join(missing)}")
    extra = [str(key)[:40] for key in value if key not in keys]
    _require(not extra, where, f"has unknown fields: {', '.join(extra[:5])}")
    return value


def _array(value: object, where: str, limit: int, item: Callable[[Any, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= limit:
        raise _fail(where, f"expected a list of 1..{limit} entries, got {value!r:.80}")
    return tuple(item(entry, f"{where}[{index}]") for index, entry in enumerate(value))


@dataclass(frozen=True)
class NeuronSpec:
    """Leaky integrate-and-fire with hard reset: ``U = tau * U * (not fired) + y``, fires where ``U >= v_th``.

    Attributes
    ----------
    tau : float
        Leak per time step, 0..1.
    v_th : float
        Threshold, >= 0, in units of the current after batch normalisation.
    """

    tau: float = 0.25
    v_th: float = 0.0

    def __post_init__(self) -> None:
        _number(self.tau, "neuron.tau", 0.0, 1.0)
        _number(self.v_th, "neuron.v_th", 0.0, 1e6)

    @classmethod
    def from_dict(cls, value: object, where: str) -> NeuronSpec:
        table = _table(value, where, ("tau", "v_th"))
        return cls(_number(table["tau"], f"{where}.tau", 0.0, 1.0), _number(table["v_th"], f"{where}.v_th", 0, 1e6))


@dataclass(frozen=True)
class WeightSpec:
    """How a layer's weights are stored: ``binary`` (bits = 1), ``multibit`` (2..8), ``real`` (bits = 32)."""

    kind: Literal["binary", "multibit", "real"] = "binary"
    bits: int = 1

    def __post_init__(self) -> None:
        _choice(self.kind, "weight.kind", _WEIGHT_KINDS)
        low, high = {"binary": (1, 1), "multibit": (2, 8), "real": (32, 32)}[self.kind]
        _integer(self.bits, f"weight.bits ({self.kind})", low, high)

    @classmethod
    def from_dict(cls, value: object, where: str) -> WeightSpec:
        table = _table(value, where, ("kind", "bits"))
        kind = _choice(table["kind"], f"{where}.kind", _WEIGHT_KINDS)
        return cls(cast(Any, kind), _integer(table["bits"], f"{where}.bits", 1, 32))


_LAYER_KEYS = (
    "name", "kind", "in_channels", "out_channels", "kernel", "stride", "padding", "weight", "alpha", "bn",
    "pool", "pool_mode", "neuron", "in_bits",
)  # fmt: skip


@dataclass(frozen=True)
class LayerSpec:
    """One layer: map, pooling, normalisation, neuron. See the module's docstring for the order.

    Attributes
    ----------
    in_channels, out_channels : int
        Channels of a convolution; features of a linear layer. A linear layer after a convolution flattens
        C, H, W in that order (C slowest).
    kernel, stride, padding : int
        Square, the same in both directions; 1, 1, 0 for a linear layer. Padding is zeros of the (normalised) input.
    alpha : bool
        Whether a learnable scale per channel of the producing layer multiplies the input.
    pool : int
        Average-pooling window and stride; 1 means none.
    in_bits : int or None
        Bits of this layer's input code under quantisation-aware training; None: not quantised in training.
    """

    name: str
    kind: Literal["conv", "linear"]
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    weight: WeightSpec = WeightSpec()
    alpha: bool = False
    bn: bool = True
    pool: int = 1
    pool_mode: Literal["current", "spike"] = "current"
    neuron: NeuronSpec | None = None
    in_bits: int | None = None

    def __post_init__(self) -> None:
        where = f"layer {self.name!r:.70}"
        _require(
            isinstance(self.name, str) and _NAME.fullmatch(self.name) is not None,
            where,
            "a name is a letter followed by up to 63 letters, digits, '_', '.' or '-'",
        )
        _choice(self.kind, f"{where}.kind", _KINDS)
        _integer(self.in_channels, f"{where}.in_channels", 1, _MAX_CHANNELS)
        _integer(self.out_channels, f"{where}.out_channels", 1, _MAX_CHANNELS)
        _integer(self.kernel, f"{where}.kernel", 1, 64)
        _integer(self.stride, f"{where}.stride", 1, 64)
        _integer(self.padding, f"{where}.padding", 0, self.kernel - 1)
        _integer(self.pool, f"{where}.pool", 1, 64)
        _choice(self.pool_mode, f"{where}.pool_mode", _POOL_MODES)
        _boolean(self.alpha, f"{where}.alpha")
        _boolean(self.bn, f"{where}.bn")
        if self.in_bits is not None:
            _integer(self.in_bits, f"{where}.in_bits", 2, 8)
        if self.kind == "linear":
            plain = (self.kernel, self.stride, self.padding, self.pool) == (1, 1, 0, 1)
            _require(plain, where, "a linear layer has kernel 1, stride 1, padding 0 and pool 1")

    @classmethod
    def from_dict(cls, value: object, where: str) -> LayerSpec:
        table = _table(value, where, _LAYER_KEYS)
        neuron, in_bits = table["neuron"], table["in_bits"]
        return cls(
            name=_text(table["name"], f"{where}.name", 64),
            kind=cast(Any, _choice(table["kind"], f"{where}.kind", _KINDS)),
            in_channels=_integer(table["in_channels"], f"{where}.in_channels", 1, _MAX_CHANNELS),
            out_channels=_integer(table["out_channels"], f"{where}.out_channels", 1, _MAX_CHANNELS),
            kernel=_integer(table["kernel"], f"{where}.kernel", 1, 64),
            stride=_integer(table["stride"], f"{where}.stride", 1, 64),
            padding=_integer(table["padding"], f"{where}.padding", 0, 63),
            weight=WeightSpec.from_dict(table["weight"], f"{where}.weight"),
            alpha=_boolean(table["alpha"], f"{where}.alpha"),
            bn=_boolean(table["bn"], f"{where}.bn"),
            pool=_integer(table["pool"], f"{where}.pool", 1, 64),
            pool_mode=cast(Any, _choice(table["pool_mode"], f"{where}.pool_mode", _POOL_MODES)),
            neuron=None if neuron is None else NeuronSpec.from_dict(neuron, f"{where}.neuron"),
            in_bits=None if in_bits is None else _integer(in_bits, f"{where}.in_bits", 2, 8),
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight tensor: (out, in, kernel, kernel) or (out, in)."""
        if self.kind == "conv":
            return (self.out_channels, self.in_channels, self.kernel, self.kernel)
        return (self.out_channels, self.in_channels)

    def map_shape(self, shape: Shape) -> Shape:
        """Shape after the convolution or linear map, before pooling. `shape` is what the map reads."""
        if self.kind == "linear":
            return (self.out_channels, 1, 1)
        side = [(n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape[1:]]
        return (self.out_channels, side[0], side[1])


@dataclass(frozen=True)
class InputSpec:
    """The image as the network takes it: 8-bit pixels, normalised as ``(pixel - mean) / std`` per channel.

    Attributes
    ----------
    mean : tuple of int
        Integer pixel codes 0..255, one per channel, so that a border of normalised zeros is a pixel code.
    std : tuple of float
        In pixel codes, > 0, one per channel.
    """

    channels: int
    height: int
    width: int
    mean: tuple[int, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        _integer(self.channels, "input.channels", 1, 64)
        _integer(self.height, "input.height", 1, _MAX_SIDE)
        _integer(self.width, "input.width", 1, _MAX_SIDE)
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            _require(count == self.channels, f"input.{name}", f"{count} entries for {self.channels} channels")
        for value in self.mean:
            _integer(value, "input.mean", 0, 255)
        for deviation in self.std:
            _number(deviation, "input.std", 1e-3, 1e6)

    @classmethod
    def from_dict(cls, value: object, where: str) -> InputSpec:
        table = _table(value, where, ("channels", "height", "width", "mean", "std"))
        return cls(
            channels=_integer(table["channels"], f"{where}.channels", 1, 64),
            height=_integer(table["height"], f"{where}.height", 1, _MAX_SIDE),
            width=_integer(table["width"], f"{where}.width", 1, _MAX_SIDE),
            mean=_array(table["mean"], f"{where}.mean", 64, lambda v, w: _integer(v, w, 0, 255)),
            std=_array(table["std"], f"{where}.std", 64, lambda v, w: _number(v, w, 1e-3, 1e6)),
        )

    @property
    def shape(self) -> Shape:
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class LayerShapes:
    """Shapes around one layer: what its producer fires, what its map reads, what it fires (or its logits)."""

    fired: Shape
    read: Shape
    mapped: Shape
    out: Shape


@dataclass(frozen=True)
class NetworkSpec:
    """A sequential network: every layer reads what the one before it fires.

    Attributes
    ----------
    arch, dataset : str
        Names, for people and for `info`.
    labels : tuple of str
        One per logit.
    timesteps : int
        T; the logits are the mean over T.
    layers : tuple of LayerSpec
        The last one is linear, has no neuron, and is the only one that may lack batch normalisation and has a bias.
    """

    arch: str
    system: System
    dataset: str
    labels: tuple[str, ...]
    input: InputSpec
    timesteps: int
    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        _text(self.arch, "arch", 64)
        _text(self.dataset, "dataset", 64)
        _choice(self.system, "system", _SYSTEMS)
        _integer(self.timesteps, "timesteps", 1, 64)
        _require(1 <= len(self.layers) <= _MAX_LAYERS, "layers", f"expected 1..{_MAX_LAYERS} layers")
        names = [layer.name for layer in self.layers]
        _require(len(set(names)) == len(names), "layers", "two layers have the same name")
        self._check_roles()
        self._check_weights()
        shapes = self.shapes()
        classes = shapes[-1].out[0]
        _require(len(self.labels) == classes, "labels", f"{len(self.labels)} labels for {classes} output channels")

    def _check_roles(self) -> None:
        first, last = self.layers[0], self.layers[-1]
        where = f"layer {last.name!r}"
        _require(last.kind == "linear", where, "the last layer must be linear")
        _require(last.neuron is None, where, "the last layer has no neuron: its current is the logits")
        for layer in self.layers[:-1]:
            _require(layer.neuron is not None, f"layer {layer.name!r}", "lacks its neuron")
        _require(
            not first.alpha and first.in_bits is None,
            f"layer {first.name!r}",
            "the first layer reads pixels: it has neither alpha nor in_bits",
        )

    def _check_weights(self) -> None:
        for layer in self.layers:
            where = f"layer {layer.name!r}"
            real = layer.weight.kind == "real"
            _require(real == (self.system == "snn"), where, f"{layer.weight.kind} weights in system {self.system!r}")
            _require(
                not layer.alpha or self.system == "reverb-learnable",
                where,
                f"alpha in system {self.system!r}; only reverb-learnable has it",
            )

    def shapes(self) -> tuple[LayerShapes, ...]:
        """Shapes around every layer; raises InputError naming the layer that does not fit its producer."""
        result: list[LayerShapes] = []
        fired: Shape = self.input.shape
        producer: LayerSpec | None = None
        for layer in self.layers:
            read = _pooled(fired, producer.pool) if producer and producer.pool_mode == "spike" else fired
            if layer.kind == "linear":
                features = read[0] * read[1] * read[2]
                _require(
                    layer.in_channels == features,
                    f"layer {layer.name!r}",
                    f"in_channels is {layer.in_channels}, its input has {features} features",
                )
            else:
                _require(
                    layer.in_channels == read[0],
                    f"layer {layer.name!r}",
                    f"in_channels is {layer.in_channels}, its input has {read[0]} channels",
                )
            mapped = layer.map_shape(read)
            out = _pooled(mapped, layer.pool) if layer.pool_mode == "current" else mapped
            final = _pooled(mapped, layer.pool)
            _require(min(mapped + final) >= 1, f"layer {layer.name!r}", f"its input {read} is too small for it")
            result.append(LayerShapes(fired, read, mapped, out))
            fired, producer = out, layer
        return tuple(result)

    def alpha_size(self, index: int) -> int:
        """Number of alphas of layer `index`: the channels of what its producer fires."""
        return self.shapes()[index].fired[0]

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of every tensor of a checkpoint; all are float32.

        ``layers.I.weight`` (latent, real), ``.alpha`` (channels of the producer), ``.in_scale`` (scalar, > 0),
        ``.bias`` (last layer), ``.bn.weight`` (gamma), ``.bn.bias`` (beta), ``.bn.running_mean``,
        ``.bn.running_var`` (>= 0).
        """
        result: dict[str, tuple[int, ...]] = {}
        shapes = self.shapes()
        for index, layer in enumerate(self.layers):
            prefix = f"layers.{index}."
            result[prefix + "weight"] = layer.weight_shape
            if layer.alpha:
                result[prefix + "alpha"] = (shapes[index].fired[0],)
            if layer.in_bits is not None:
                result[prefix + "in_scale"] = ()
            if layer.neuron is None:
                result[prefix + "bias"] = (layer.out_channels,)
            if layer.bn:
                for name in ("weight", "bias", "running_mean", "running_var"):
                    result[f"{prefix}bn.{name}"] = (layer.out_channels,)
        return result

    def to_json(self) -> str:
        """The description as one line of JSON, keys sorted."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> NetworkSpec:
        """Read and check a description.

        Raises
        ------
        InputError
            Not JSON, an unknown version, or a field that is missing, unknown, mistyped, out of range or
            inconsistent; the message names it.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"network description: not valid JSON ({error!s:.100})") from None
        keys = ("format", "arch", "system", "dataset", "labels", "input", "timesteps", "layers")
        table = _table(value, "top level", keys)
        version = table["format"]
        _require(
            version == FORMAT_VERSION and not isinstance(version, bool),
            "format",
            f"version {version!r:.20} is not supported, this release reads version {FORMAT_VERSION}",
        )
        return cls(
            arch=_text(table["arch"], "arch", 64),
            system=cast(Any, _choice(table["system"], "system", _SYSTEMS)),
            dataset=_text(table["dataset"], "dataset", 64),
            labels=_array(table["labels"], "labels", 1 << 16, _text),
            input=InputSpec.from_dict(table["input"], "input"),
            timesteps=_integer(table["timesteps"], "timesteps", 1, 64),
            layers=_array(table["layers"], "layers", _MAX_LAYERS, LayerSpec.from_dict),
        )


def _pooled(shape: Shape, pool: int) -> Shape:
    return (shape[0], shape[1] // pool, shape[2] // pool)
