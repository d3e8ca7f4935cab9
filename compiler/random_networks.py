"""Random quantised networks and inputs for tests, from small specifications: every mode of the contract.

Gains are set from the currents that really occur, so that codes neither all saturate nor all vanish unless a mode asks
for that. The same specification gives the same network.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import Hints
from reverb_fpga.compiler.geometry import Geometry, Pair, Pool
from reverb_fpga.compiler.intnet import INPUT, IntGate, IntInput, IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.passes.borders import signed, surplus

__all__ = ["MAX_SIDE", "Case", "Images", "LayerSpec", "NetworkSpec", "Neurons", "Profile", "Shortcut", "build"]


class Profile(enum.Enum):
    """What every network of a profile has for certain."""

    ANY = "any"
    DYNAMIC = "T >= 2, threshold > 0, changing currents"
    TILED = "several tiles and strips"
    SIGNED = "signed padded input"
    MULTIBIT = "multi-bit weights"
    EVERYTHING = "all of these"
    GRAPH = "shortcuts"
    BURST = "many channels that all fire at once"


class Images(enum.Enum):
    """What the input codes are."""

    ZERO = "zero"
    FULL = "full"
    SPARSE = "sparse"
    DENSE = "dense"
    MIXED = "mixed"


class Neurons(enum.Enum):
    """How a layer's parameters are chosen."""

    USUAL = "usual"
    ZERO_GAIN = "zero gain"
    SATURATING = "saturating"
    EXTREME = "extreme"
    SILENT = "silent"
    DENSE = "all fire"


class Shortcut(enum.Enum):
    """What is added to a layer's current; what does not fit its shape becomes what does, or nothing."""

    NONE = "no shortcut"
    IDENTITY = "identity"
    DOWNSAMPLE = "downsample"
    POOLED = "pooled downsample"
    DOUBLE = "double"


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer; shapes are clipped to what fits when it is built.

    ``shortcut`` reads the tensor ``back`` layers before the layer's own source, ``source_back`` moves that source.
    ``once``: computed once where all that it reads is the same at every step. ``out_padding``: of the pooling of the
    current, at most half its window.
    """

    channels: int
    kernel: int
    stride: int
    padding: int
    in_pool: int
    out_pool: int
    kind: WeightKind
    bits: int
    neurons: Neurons
    extreme_weights: bool
    threshold_positive: bool
    tau_q: int
    code_max: int
    kernel_x: int | None = None
    dilation: int = 1
    overlap: bool = False
    shortcut: Shortcut = Shortcut.NONE
    back: int = 0
    source_back: int = 0
    once: bool = False
    gate: bool = False
    reset: int | None = None
    out_padding: Pair = (0, 0)


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network, how it is scheduled, and its images."""

    profile: Profile
    channels: int
    height: int
    width: int
    timesteps: int
    static_input: bool
    signed_input: bool
    images: Images
    layers: tuple[LayerSpec, ...]
    outputs: int
    max_strip_rows: int | None
    ring_rows: int | None
    seed: int
    input_rows: int | None = None
    spare_rows: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A network, how to schedule it, and images for it: uint8 (N, T_in, H, W, C)."""

    network: IntNetwork
    hints: Hints
    codes: NDArray[np.uint8]


MAX_SIDE = 8
"""Rows and columns of an input at most: the output layer gathers all positions at once, table_entries at most."""


def build(spec: NetworkSpec, images: int = 2) -> Case:
    """The network of a specification, its hints, and images for it."""
    rng = np.random.default_rng(spec.seed)
    steps = 1 if spec.static_input else spec.timesteps
    signed = spec.signed_input
    padded = dataclasses.replace(
        spec.layers[0], padding=1, kernel=3, kernel_x=None, dilation=1, overlap=False, source_back=0
    )
    pad = rng.integers(1, 256, spec.channels) if signed else np.zeros(spec.channels, dtype=np.int64)
    codes = _codes(rng, spec.images, (images, steps, spec.height, spec.width, spec.channels))
    if signed and spec.images is Images.MIXED:
        codes = np.where(rng.random(codes.shape) < 0.3, pad.astype(np.uint8), codes)  # the code of zero is common
    source = IntInput(spec.channels, spec.height, spec.width, pad.astype(np.uint8))
    draft = _Draft(rng, IntNetwork(source, (), spec.timesteps, spec.static_input), codes)
    for index, layer in enumerate((padded if signed else spec.layers[0], *spec.layers[1:])):
        draft.add(f"conv{index}", layer)
    draft.finish(spec)
    return Case(draft.network, _hints(spec), codes)


def _hints(spec: NetworkSpec) -> Hints:
    return Hints(spec.max_strip_rows, spec.ring_rows, spec.input_rows, spec.spare_rows)


def _codes(rng: np.random.Generator, images: Images, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if images is Images.ZERO:
        return np.zeros(shape, dtype=np.uint8)
    if images is Images.FULL:
        return np.full(shape, 255, dtype=np.uint8)
    density = {Images.SPARSE: 0.1, Images.DENSE: 1.0, Images.MIXED: 0.5}[images]
    values = rng.integers(1, 256, shape, dtype=np.uint8)
    return np.where(rng.random(shape) < density, values, 0).astype(np.uint8)


def _fitted(spec: LayerSpec, height: int, width: int) -> LayerSpec:
    """The same layer with kernel and pooling cut down to what its input can take."""
    side = min(height, width)
    in_pool = spec.in_pool if side >= 2 * spec.in_pool else 1
    largest = max(height, width) // in_pool
    padding = min(spec.padding, spec.kernel - 1, max(0, (MAX_SIDE + spec.kernel - 1 - largest) // 2))
    padded = side // in_pool + 2 * padding
    kernel = max(min(spec.kernel, padded), padding + 1)
    dilation = spec.dilation if (kernel - 1) * spec.dilation + 1 <= padded else 1
    padding = padding if dilation == 1 else min(2 * padding, (kernel - 1) * dilation)
    conv = (side // in_pool + 2 * padding - (kernel - 1) * dilation - 1) // spec.stride + 1
    out_pool = spec.out_pool if conv >= spec.out_pool and (spec.stride == 1 or in_pool == 1) else 1
    return dataclasses.replace(
        spec, in_pool=in_pool, padding=padding, kernel=kernel, out_pool=out_pool, dilation=dilation
    )


def _geometry(spec: LayerSpec) -> tuple[Geometry, Pair]:
    """Geometry and kernel of a fitted layer: a narrower kernel keeps the padding that keeps its width."""
    kernel = (spec.kernel, spec.kernel if spec.kernel_x is None else min(spec.kernel, spec.kernel_x))
    reach = spec.dilation * (kernel[1] - 1)
    padding = (spec.padding, min(spec.padding, reach if kernel[0] != kernel[1] else spec.padding))
    overlapping = spec.overlap and spec.in_pool > 1 and not any(padding) and spec.out_pool == 1
    before = Pool((spec.in_pool,) * 2, (1 if overlapping else spec.in_pool,) * 2)
    after_stride = 1 if spec.overlap and spec.out_pool > 1 and spec.in_pool == 1 else spec.out_pool
    border = (
        (0, 0)
        if spec.gate
        else (min(spec.out_padding[0], spec.out_pool // 2), min(spec.out_padding[1], spec.out_pool // 2))
    )
    after = Pool((spec.out_pool,) * 2, (after_stride,) * 2, border)
    return Geometry((spec.stride,) * 2, padding, (spec.dilation,) * 2, before, after, continued=any(border)), kernel


class _Draft:
    """A network that grows layer by layer, with gains that suit the currents which the images really cause."""

    def __init__(self, rng: np.random.Generator, network: IntNetwork, codes: NDArray[np.uint8]) -> None:
        self.network = network
        self._rng = rng
        self._codes = codes
        self._shapes = {INPUT: (network.input.channels, network.input.height, network.input.width)}

    @property
    def _names(self) -> list[str]:
        return list(self._shapes)

    def add(self, name: str, spec: LayerSpec) -> None:
        """A spiking layer with its shortcuts."""
        names = self._names
        source = names[max(0, len(names) - 1 - spec.source_back)] if spec.shortcut is not Shortcut.NONE else names[-1]
        fitted = _fitted(spec, *self._shapes[source][1:])
        geometry, kernel = _geometry(fitted)
        if min(geometry.sides(self._shapes[source][1 + axis], kernel[axis], axis)[2] for axis in range(2)) < 1:
            fitted = dataclasses.replace(fitted, kernel_x=None)  # narrower, it leaves too little to pool
            geometry, kernel = _geometry(fitted)
        weight = _weights(self._rng, fitted, (fitted.channels, self._shapes[source][0], *kernel))
        own = _blank(source, weight, fitted.kind, fitted.bits, geometry)
        shape = (fitted.channels, *geometry.out_shape(name, self._shapes[source][1:], kernel))
        legs = self._shortcuts(fitted, source, shape)
        self._append(name, fitted, (*legs, *self._borders(own), own), shape)

    def finish(self, spec: NetworkSpec) -> None:
        """The output layer: linear over the last tensor and over whatever nothing has read yet."""
        read = {name for layer in self.network.layers for name in layer.sources}
        names = self._names
        unread = [name for name in names[1:-1] if name not in read]
        kind = WeightKind.MULTIBIT if spec.profile in (Profile.MULTIBIT, Profile.EVERYTHING) else WeightKind.BINARY
        layer = LayerSpec(
            channels=spec.outputs, kernel=1, stride=1, padding=0, in_pool=1, out_pool=1, kind=kind, bits=8,
            neurons=Neurons.USUAL, extreme_weights=False, threshold_positive=False, tau_q=256, code_max=255,
        )  # fmt: skip
        legs = [self._linear(layer, name) for name in [*unread, names[-1]]]
        self._append("output", layer, tuple(legs), (spec.outputs, 1, 1), spiking=False)

    def _linear(self, spec: LayerSpec, source: str) -> IntMap:
        channels, height, width = self._shapes[source]
        weight = _weights(self._rng, spec, (spec.channels, channels, height, width))
        return _blank(source, weight, spec.kind, spec.bits, Geometry())

    def _borders(self, own: IntMap) -> Iterator[IntMap]:
        """What the pooling of a current has too much beyond its border."""
        for sign, geometry in surplus(own.geometry, self._shapes[own.source][1:], own.kernel):
            weight, kind, bits = signed(sign, own.weight, own.kind, own.bits)
            yield _blank(own.source, np.minimum(weight, 127), kind, min(bits, 8), geometry)

    def _shortcuts(self, spec: LayerSpec, source: str, shape: tuple[int, int, int]) -> list[IntMap]:
        if spec.shortcut is Shortcut.NONE:
            return []
        names = self._names
        at = names.index(source)
        chosen = names[max(1, at - spec.back)] if at else None
        if chosen is None:
            return []
        found = [self._shortcut(spec.shortcut, chosen, shape)]
        if spec.shortcut is Shortcut.DOUBLE:
            found.append(self._shortcut(Shortcut.DOWNSAMPLE, names[max(1, at - 1)], shape))
        return [leg for leg in found if leg is not None]

    def _shortcut(self, kind: Shortcut, source: str, shape: tuple[int, int, int]) -> IntMap | None:
        """A map of the wanted shape from a tensor; None if there is none."""
        read = self._shapes[source]
        if kind in (Shortcut.IDENTITY, Shortcut.DOUBLE) and read == shape:
            weight = np.eye(shape[0], dtype=np.int64)[:, :, None, None]
            return _blank(source, weight, WeightKind.UNIT, 1, Geometry())
        for step in (1, 2, 3, 4):
            pools = (Pool((step,) * 2, (step,) * 2), Pool()) if kind is Shortcut.POOLED else (Pool(),)
            for pool in pools:
                geometry = Geometry(stride=(1, 1) if pool.size > 1 else (step, step), in_pool=pool)
                sides = [geometry.sides(read[1 + axis], 1, axis)[2] for axis in range(2)]
                if tuple(sides) == shape[1:]:
                    weight = self._rng.choice(np.array([-1, 1]), (shape[0], read[0], 1, 1)).astype(np.int64)
                    return _blank(source, weight, WeightKind.BINARY, 1, geometry)
        return None

    def _append(
        self, name: str, spec: LayerSpec, legs: tuple[IntMap, ...], shape: tuple[int, int, int], spiking: bool = True
    ) -> None:
        steps = self.network.timesteps
        if spiking and spec.once and all(self.network.steps_of(leg.source) == 1 for leg in legs):
            steps = 1
        currents = [self._current(leg) for leg in legs]
        none = np.zeros(spec.channels, dtype=np.int64)
        blank = IntLayer(name, legs, none, spec.tau_q, spec.code_max, spiking, steps)
        layer = _neurons(self._rng, spec, blank, currents)
        if spiking:
            layer = dataclasses.replace(layer, reset=spec.reset)
        if spec.gate and spiking:
            layer = dataclasses.replace(layer, gate=_gate(self._rng, layer, currents[-1]))
        self.network = dataclasses.replace(self.network, layers=(*self.network.layers, layer))
        self._shapes[name] = shape

    def _current(self, leg: IntMap) -> NDArray[np.int64]:
        """z of a map on the case's images."""
        none = np.zeros(leg.weight.shape[0], dtype=np.int64)
        probe = IntLayer("probe", (leg,), none, 256, 1, False, self.network.timesteps)
        partial = dataclasses.replace(self.network, layers=(*self.network.layers, probe))
        return reference.evaluate(partial, self._codes).currents[-1]


def _blank(source: str, weight: NDArray[np.int64], kind: WeightKind, bits: int, geometry: Geometry) -> IntMap:
    """A map whose gain and bias are still to be chosen."""
    none = np.zeros(weight.shape[0], dtype=np.int64)
    return IntMap(source, weight, kind, bits if kind is WeightKind.MULTIBIT else 1, geometry, none, 0, none)


def _weights(rng: np.random.Generator, spec: LayerSpec, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if spec.kind is WeightKind.BINARY:
        choices = np.array([-1, 1])
    elif spec.kind is WeightKind.TERNARY:
        choices = np.array([-1, 0, 1])
    elif spec.kind is WeightKind.UNIT:
        choices = np.array([0, 1])
    else:
        choices = np.arange(-(1 << (spec.bits - 1)), 1 << (spec.bits - 1))
    if spec.extreme_weights:
        choices = rng.choice(choices[[0, -1]], 1) if rng.random() < 0.5 else choices[[0, -1]]
    return rng.choice(choices, shape).astype(np.int64)


def _gate(rng: np.random.Generator, layer: IntLayer, z: NDArray[np.int64]) -> IntGate:
    """A gate whose sums sometimes saturate, with factors of both signs and any size."""
    own = layer.maps[-1]
    positions = z.shape[2] * z.shape[3]
    swing = max(1, int(np.abs(z).mean(axis=(2, 3)).max()) * positions)
    target = (1 << 17) * rng.uniform(0.1, 2)
    r_shift = int(np.clip(np.floor(np.log2(30000 * swing / target)), 0, 40))
    gain = np.clip(np.round(target / swing * 2.0**r_shift * rng.uniform(0.5, 2, layer.channels)), 0, 65535)
    bias = np.clip(rng.normal(0, target / 8 / positions, layer.channels).round(), -(1 << 23), (1 << 23) - 1)
    reach = 1 << int(rng.integers(6, 18))
    factor = rng.integers(-reach, reach, layer.timesteps)
    assert own.gain.shape == gain.shape
    return IntGate(gain.astype(np.int64), r_shift, bias.astype(np.int64), factor)


def _neurons(rng: np.random.Generator, spec: LayerSpec, layer: IntLayer, currents: list[NDArray[np.int64]]) -> IntLayer:
    """Gains, biases and thresholds; a shortcut's current is somewhat smaller than the layer's own."""
    channels = layer.channels
    target = layer.code_max * 256 * rng.uniform(0.3, 1.5)
    legs = []
    for position, (leg, z) in enumerate(zip(layer.maps, currents, strict=True)):
        own = position == len(layer.maps) - 1
        legs.append(_scaled(rng, spec, leg, z, target if own else target * rng.uniform(0.1, 0.8)))
    low = 1 if spec.threshold_positive else -int(target / 8)
    threshold = rng.integers(low, max(low + 1, int(target / 2)), channels)
    if spec.neurons is Neurons.EXTREME:
        threshold = rng.choice(np.array([-(1 << 23), (1 << 23) - 1, 0]), channels)
    elif spec.neurons is Neurons.DENSE:
        threshold = np.zeros(channels, dtype=np.int64)
    elif spec.neurons is Neurons.SILENT:
        threshold = np.full(channels, (1 << 23) - 1)
    return dataclasses.replace(layer, maps=tuple(legs), threshold=threshold.astype(np.int64))


def _scaled(rng: np.random.Generator, spec: LayerSpec, leg: IntMap, z: NDArray[np.int64], target: float) -> IntMap:
    channels = leg.weight.shape[0]
    swing = max(1, int(np.abs(z).max()))
    r_shift = int(np.clip(np.floor(np.log2(30000 * swing / target)), 0, 40))
    gain = np.clip(np.round(target / swing * 2.0**r_shift * rng.uniform(0.5, 2, channels)), 0, 65535)
    bias: NDArray[np.float64] = np.round(rng.normal(0, target / 8, size=(channels,)))
    if leg.source == INPUT:
        bias -= gain * np.median(z, axis=(0, 1, 2, 3)) / 2.0**r_shift  # as the folded offset of a signed input does
    if spec.neurons is Neurons.ZERO_GAIN:
        gain[rng.random(channels) < 0.5] = 0
    elif spec.neurons is Neurons.SATURATING:
        gain, r_shift = np.full(channels, 65535), int(rng.integers(0, 4))
    elif spec.neurons is Neurons.EXTREME:
        bias = rng.choice(np.array([-(1 << 23), (1 << 23) - 1, 0]), channels)
        gain, r_shift = rng.choice(np.array([0, 1, 65535]), channels), int(rng.choice([0, 1, 8, 20, 63]))
    elif spec.neurons is Neurons.DENSE:
        bias = np.full(channels, spec.code_max * 256.0)
    limit = (1 << 23) - 1
    return dataclasses.replace(
        leg,
        gain=gain.astype(np.int64),
        r_shift=r_shift,
        bias=np.clip(bias, -limit - 1, limit).astype(np.int64),
    )
