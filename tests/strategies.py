"""Random quantised networks and inputs.

Hypothesis draws a small specification (which shrinks well), numpy builds the arrays from it and its seed. Gains are set
from the currents that really occur, so that codes neither all saturate nor all vanish unless a mode asks for that.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import Hints
from reverb_fpga.compiler.intnet import IntInput, IntLayer, IntNetwork, WeightKind
from reverb_fpga.compiler.program import InputTransform, ProgramMeta

__all__ = ["Case", "Images", "LayerSpec", "NetworkSpec", "Neurons", "Profile", "build", "meta_of", "specs"]


class Profile(enum.Enum):
    """What every network of a profile has for certain."""

    ANY = "any"
    DYNAMIC = "T >= 2, threshold > 0, changing currents"
    TILED = "several tiles and strips"
    SIGNED = "signed padded input"
    MULTIBIT = "multi-bit weights"
    EVERYTHING = "all of these"
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


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer; shapes are clipped to what fits when it is built."""

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


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """What hypothesis draws."""

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


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A network, how to schedule it, and images for it: uint8 (N, T_in, H, W, C)."""

    network: IntNetwork
    hints: Hints
    codes: NDArray[np.uint8]


_MAX_SIDE = 8  # the output layer gathers all positions at once: at most table_entries
_LEAKS = st.sampled_from([0, 1, 64, 128, 200, 255, 256])
_CODE_MAX = st.sampled_from([1, 3, 15, 127, 255])


def _layers(profile: Profile) -> st.SearchStrategy[LayerSpec]:
    everything = profile is Profile.EVERYTHING
    tiled = profile is Profile.TILED or everything
    multibit = profile is Profile.MULTIBIT or everything
    dynamic = profile is Profile.DYNAMIC or everything
    if profile is Profile.BURST:
        return st.builds(
            LayerSpec, channels=st.integers(30, 40), kernel=st.just(1), stride=st.just(1), padding=st.just(0),
            in_pool=st.just(1), out_pool=st.just(1), kind=st.just(WeightKind.BINARY), bits=st.just(1),
            neurons=st.just(Neurons.DENSE), extreme_weights=st.just(False), threshold_positive=st.just(False),
            tau_q=_LEAKS, code_max=_CODE_MAX,
        )  # fmt: skip
    return st.builds(
        LayerSpec,
        channels=st.integers(9, 20) if tiled else st.integers(1, 12),
        kernel=st.integers(1, 3),
        stride=st.sampled_from([1, 1, 2]),
        padding=st.integers(0, 2),
        in_pool=st.sampled_from([1, 1, 1, 2]),
        out_pool=st.sampled_from([1, 1, 1, 2]),
        kind=st.just(WeightKind.MULTIBIT) if multibit else st.sampled_from(WeightKind),
        bits=st.integers(2, 8),
        neurons=st.just(Neurons.USUAL) if dynamic else st.sampled_from([Neurons.USUAL, Neurons.USUAL, *Neurons]),
        extreme_weights=st.sampled_from([False, False, True]),
        threshold_positive=st.just(True) if dynamic else st.booleans(),
        tau_q=_LEAKS,
        code_max=_CODE_MAX,
    )


@st.composite
def specs(draw: st.DrawFn, profile: Profile = Profile.ANY, max_steps: int = 4) -> NetworkSpec:
    """Specifications of a profile."""
    everything = profile is Profile.EVERYTHING
    tiled = profile is Profile.TILED or everything
    signed = profile is Profile.SIGNED or everything
    dynamic = profile is Profile.DYNAMIC or everything
    burst = profile is Profile.BURST
    side = st.integers(4, _MAX_SIDE) if tiled or signed or burst else st.integers(1, _MAX_SIDE)
    return NetworkSpec(
        profile=profile,
        channels=draw(st.integers(1, 6)),
        height=draw(side),
        width=draw(side),
        timesteps=draw(st.integers(2, max_steps) if dynamic else st.integers(1, max_steps)),
        static_input=not dynamic and draw(st.booleans()),
        signed_input=signed or draw(st.booleans()),
        images=draw(st.just(Images.MIXED) if dynamic or signed else st.sampled_from(Images)),
        layers=tuple(draw(st.lists(_layers(profile), min_size=1, max_size=1 if burst else 3))),
        outputs=draw(st.integers(1, 12)),
        max_strip_rows=draw(st.integers(1, 2)) if tiled else draw(st.sampled_from([None, None, 1, 2, 3])),
        ring_rows=draw(st.sampled_from([None, 1, 2, 3, 4])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def meta_of(network: IntNetwork) -> ProgramMeta:
    """A description that says nothing."""
    source = network.input
    outputs = network.layers[-1].weight.shape[0]
    channels = source.channels
    transform = InputTransform(channels, source.height, source.width, (1.0,) * channels, (0.0,) * channels)
    labels = tuple(str(i) for i in range(outputs))
    return ProgramMeta("random", "random", "random", "none", None, labels, transform, 1.0)


def build(spec: NetworkSpec, images: int = 2) -> Case:
    """The network of a specification, its hints, and images for it."""
    rng = np.random.default_rng(spec.seed)
    steps = 1 if spec.static_input else spec.timesteps
    padded = dataclasses.replace(spec.layers[0], padding=1, kernel=3)
    signed = spec.signed_input
    pad = rng.integers(1, 256, spec.channels) if signed else np.zeros(spec.channels, dtype=np.int64)
    codes = _codes(rng, spec.images, (images, steps, spec.height, spec.width, spec.channels))
    if signed and spec.images is Images.MIXED:
        codes = np.where(rng.random(codes.shape) < 0.3, pad.astype(np.uint8), codes)  # the code of zero is common
    source = IntInput(spec.channels, spec.height, spec.width, pad.astype(np.uint8))
    layers: list[IntLayer] = []
    shape = (spec.channels, spec.height, spec.width)
    for index, layer in enumerate((padded if signed else spec.layers[0], *spec.layers[1:])):
        layers.append(_layer(rng, layer, shape, f"conv{index}", source, layers, codes, spec))
        shape = _shape(layers[-1], shape)
    layers.append(_output(rng, spec, shape, source, layers, codes))
    network = IntNetwork(source, tuple(layers), spec.timesteps, spec.static_input)
    return Case(network, Hints(spec.max_strip_rows, spec.ring_rows), codes)


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
    padding = min(spec.padding, spec.kernel - 1, max(0, (_MAX_SIDE + spec.kernel - 1 - largest) // 2))
    padded = side // in_pool + 2 * padding
    kernel = max(min(spec.kernel, padded), padding + 1)
    conv = (padded - kernel) // spec.stride + 1
    out_pool = spec.out_pool if conv >= spec.out_pool and (spec.stride == 1 or in_pool == 1) else 1
    return dataclasses.replace(spec, in_pool=in_pool, padding=padding, kernel=kernel, out_pool=out_pool)


def _shape(layer: IntLayer, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    sides = []
    for side in shape[1:]:
        conv = (side // layer.in_pool + 2 * layer.padding - layer.weight.shape[2]) // layer.stride + 1
        sides.append(conv // layer.out_pool)
    return layer.weight.shape[0], sides[0], sides[1]


def _weights(rng: np.random.Generator, spec: LayerSpec, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if spec.kind is WeightKind.BINARY:
        choices = np.array([-1, 1])
    elif spec.kind is WeightKind.TERNARY:
        choices = np.array([-1, 0, 1])
    else:
        choices = np.arange(-(1 << (spec.bits - 1)), 1 << (spec.bits - 1))
    if spec.extreme_weights:
        choices = rng.choice(choices[[0, -1]], 1) if rng.random() < 0.5 else choices[[0, -1]]
    return rng.choice(choices, shape).astype(np.int64)


def _layer(
    rng: np.random.Generator,
    spec: LayerSpec,
    shape: tuple[int, int, int],
    name: str,
    source: IntInput,
    before: list[IntLayer],
    codes: NDArray[np.uint8],
    network: NetworkSpec,
    spiking: bool = True,
) -> IntLayer:
    """A layer whose gain suits the currents that the images really cause."""
    fitted = _fitted(spec, shape[1], shape[2]) if spiking else spec
    kernel = (fitted.kernel, fitted.kernel) if spiking else shape[1:]
    weight = _weights(rng, fitted, (fitted.channels, shape[0], *kernel))
    blank = IntLayer(
        name=name, weight=weight, kind=fitted.kind, bits=fitted.bits if fitted.kind is WeightKind.MULTIBIT else 1,
        stride=fitted.stride, padding=fitted.padding, in_pool=fitted.in_pool, out_pool=fitted.out_pool,
        gain=np.zeros(fitted.channels, dtype=np.int64), r_shift=0, bias=np.zeros(fitted.channels, dtype=np.int64),
        threshold=np.zeros(fitted.channels, dtype=np.int64), tau_q=fitted.tau_q, code_max=fitted.code_max,
        spiking=spiking,
    )  # fmt: skip
    partial = IntNetwork(source, (*before, blank), network.timesteps, network.static_input)
    return _neurons(rng, fitted, blank, reference.evaluate(partial, codes).currents[-1])


def _neurons(rng: np.random.Generator, spec: LayerSpec, layer: IntLayer, z: NDArray[np.int64]) -> IntLayer:
    channels = layer.weight.shape[0]
    swing = max(1, int(np.abs(z).max()))
    target = layer.code_max * 256 * rng.uniform(0.3, 1.5)
    r_shift = int(np.clip(np.floor(np.log2(30000 * swing / target)), 0, 40))
    gain = np.clip(np.round(target / swing * 2.0**r_shift * rng.uniform(0.5, 2, channels)), 0, 65535)
    bias = rng.normal(0, target / 8, channels).round()
    if layer.name == "conv0":
        bias -= gain * np.median(z, axis=(0, 1, 2, 3)) / 2.0**r_shift  # as the folded offset of a signed input does
    low = 1 if spec.threshold_positive else -int(target / 8)
    threshold = rng.integers(low, max(low + 1, int(target / 2)), channels)
    if spec.neurons is Neurons.ZERO_GAIN:
        gain[rng.random(channels) < 0.5] = 0
    elif spec.neurons is Neurons.SATURATING:
        gain, r_shift = np.full(channels, 65535), int(rng.integers(0, 4))
    elif spec.neurons is Neurons.EXTREME:
        limits = np.array([-(1 << 23), (1 << 23) - 1, 0])
        bias, threshold = rng.choice(limits, channels), rng.choice(limits, channels)
        gain, r_shift = rng.choice(np.array([0, 1, 65535]), channels), int(rng.choice([0, 1, 8, 20, 63]))
    elif spec.neurons is Neurons.DENSE:
        bias, threshold = np.full(channels, layer.code_max * 256.0), np.zeros(channels)
    elif spec.neurons is Neurons.SILENT:
        threshold = np.full(channels, (1 << 23) - 1)
    limit = (1 << 23) - 1
    return dataclasses.replace(
        layer,
        gain=gain.astype(np.int64),
        r_shift=r_shift,
        bias=np.clip(bias, -limit - 1, limit).astype(np.int64),
        threshold=threshold.astype(np.int64),
    )


def _output(
    rng: np.random.Generator,
    spec: NetworkSpec,
    shape: tuple[int, int, int],
    source: IntInput,
    before: list[IntLayer],
    codes: NDArray[np.uint8],
) -> IntLayer:
    """The last layer: linear over all that is left; where that is too much for one window it is pooled first."""
    kind = WeightKind.MULTIBIT if spec.profile in (Profile.MULTIBIT, Profile.EVERYTHING) else WeightKind.BINARY
    layer = LayerSpec(
        channels=spec.outputs, kernel=1, stride=1, padding=0, in_pool=1, out_pool=1, kind=kind, bits=8,
        neurons=Neurons.USUAL, extreme_weights=False, threshold_positive=False, tau_q=256, code_max=255,
    )  # fmt: skip
    return _layer(rng, layer, shape, "output", source, before, codes, spec, spiking=False)
