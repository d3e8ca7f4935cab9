"""Random quantised networks for tests and benches: every mode of the contract, at sizes that simulate fast."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend.geometry import walks_of
from reverb_fpga.compiler.backend.intervals import current_bounds, source_max
from reverb_fpga.compiler.geometry import Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.program import InputTransform, ProgramMeta

__all__ = ["RandomOptions", "plain_layer", "plain_meta", "random_codes", "random_network"]

Ints = NDArray[np.int64]
_STEP_SHIFTS = 8


@dataclasses.dataclass(frozen=True)
class RandomOptions:
    """Bounds of :func:`random_network`.

    Parameters
    ----------
    max_side, max_channels, max_layers : int
        Input rows and columns, channels of any tensor, hidden layers.
    max_timesteps : int
    max_bits : int
        Largest MULTIBIT width.
    min_timesteps : int
    saturate : bool
        Also draw gains and biases that saturate; without, currents stay inside the membrane's range.
    """

    max_side: int = 8
    max_channels: int = 12
    max_layers: int = 3
    max_timesteps: int = 3
    max_bits: int = 4
    min_timesteps: int = 1
    saturate: bool = False


def random_network(rng: np.random.Generator, options: RandomOptions | None = None) -> IntNetwork:
    """A random sequential network ending in a layer of one position. Always well formed; it may be too large."""
    options = options or RandomOptions()
    channels = int(rng.integers(1, min(6, options.max_channels) + 1))
    height, width = (int(rng.integers(4, options.max_side + 1)) for _ in range(2))
    pad = rng.integers(0, 256, channels) * rng.integers(0, 2, channels)
    source = IntInput(channels, height, width, pad.astype(np.uint8))
    timesteps = int(rng.integers(options.min_timesteps, options.max_timesteps + 1))
    network = IntNetwork(source, (), timesteps, static_input=timesteps == 1 or bool(rng.integers(0, 2)))
    for index in range(int(rng.integers(1, options.max_layers + 1))):
        network = _with_layer(
            network, _hidden(rng, options, f"conv{index + 1}", channels, (height, width)), rng, options
        )
        walk = walks_of(network)[-1][-1]
        channels, height, width = network.layers[-1].channels, walk.y.out, walk.x.out
        if height * width == 1:
            break
    last = _draft(rng, options, channels, int(rng.integers(2, options.max_channels + 1)), (height, width))
    return _with_layer(
        network, dataclasses.replace(last, name="fc", tau_q=256, spiking=False, reset=None), rng, options
    )


def _draft(
    rng: np.random.Generator, options: RandomOptions, c_in: int, c_out: int, kernel: tuple[int, int]
) -> IntLayer:
    """A layer with random weights and placeholders for its name, source, steps and neurons."""
    kinds = (WeightKind.BINARY, WeightKind.TERNARY, WeightKind.MULTIBIT)
    kind = kinds[int(rng.choice(3, p=(0.5, 0.2, 0.3)))]
    bits = int(rng.integers(2, options.max_bits + 1)) if kind is WeightKind.MULTIBIT else 1
    shape = (c_out, c_in, *kernel)
    extreme = rng.random() < 0.1
    if kind is WeightKind.BINARY:
        weight = np.full(shape, rng.choice([-1, 1])) if extreme else rng.choice([-1, 1], shape)
    elif kind is WeightKind.TERNARY:
        weight = np.full(shape, rng.integers(-1, 2)) if extreme else rng.integers(-1, 2, shape)
    else:
        low, high = -(1 << (bits - 1)), 1 << (bits - 1)
        weight = np.full(shape, rng.choice([low, high - 1])) if extreme else rng.integers(low, high, shape)
    none = np.zeros(c_out, dtype=np.int64)
    leg = IntMap(INPUT, weight.astype(np.int64), kind, bits, Geometry(), gain=none, r_shift=0, bias=none)
    return IntLayer(
        name="", maps=(leg,), threshold=none, tau_q=int(rng.choice([0, 64, 128, 200, 256])),
        code_max=int(rng.choice([1, 15, 200, 255])), spiking=True, timesteps=1,
        reset=None if rng.random() < 0.7 else int(rng.choice([0, 256, 5000, (1 << 23) - 1])),
    )  # fmt: skip


def _hidden(rng: np.random.Generator, options: RandomOptions, name: str, c_in: int, side: tuple[int, int]) -> IntLayer:
    c_out = int(rng.integers(1, options.max_channels + 1))
    kernel = (int(rng.integers(1, min(3, side[0]) + 1)), int(rng.integers(1, min(3, side[1]) + 1)))
    layer = dataclasses.replace(_draft(rng, options, c_in, c_out, kernel), name=name)
    padding = int(rng.integers(0, min(kernel)))
    before, after = ((1, 1), (2, 1), (1, 2), (2, 2), (1, 3))[int(rng.choice(5, p=(0.5, 0.15, 0.2, 0.1, 0.05)))]
    stride = int(rng.integers(1, 3)) if before * after < 4 else 1
    pools = [Pool((size, size), (size, size)) for size in (before, after)]
    pooled = Geometry((stride, stride), (padding, padding), (1, 1), *pools)
    fits = min(pooled.sides(side[axis], kernel[axis], axis)[2] for axis in range(2)) >= 1
    geometry = pooled if fits else Geometry(padding=(padding, padding))
    return dataclasses.replace(layer, maps=(dataclasses.replace(layer.maps[0], geometry=geometry),))


def _with_layer(network: IntNetwork, layer: IntLayer, rng: np.random.Generator, options: RandomOptions) -> IntNetwork:
    """Append a layer to the chain, with gains, biases and thresholds that suit its currents."""
    source = network.layers[-1].name if network.layers else INPUT
    leg = dataclasses.replace(layer.maps[0], source=source)
    low, high = current_bounds(leg.weight, leg.geometry.pooled, source_max(network, leg))
    spread = int(max(1, high.max(), -low.min()))
    channels = layer.channels
    gain: Ints = rng.integers(1, 1 << 16, size=(channels,)) * (rng.random((channels,)) > 0.1)
    reach = (layer.code_max << _STEP_SHIFTS) * (4 if layer.spiking else 16)
    # spread * 2^16 >> r is about `reach`: codes use their range and clip now and then
    r_shift = int(np.clip((spread << 16).bit_length() - reach.bit_length() + rng.integers(-2, 3), 0, 63))
    if options.saturate and rng.random() < 0.3:
        r_shift = max(0, r_shift - 12)
    bias: Ints = rng.integers(-reach // 8, reach // 8 + 1, size=(channels,))
    if options.saturate and rng.random() < 0.2:
        bias = rng.choice([-(1 << 23), (1 << 23) - 1], size=(channels,))
    threshold: Ints = rng.integers(0, reach // 16 + 1, size=(channels,)) * int(rng.integers(0, 2))
    if rng.random() < 0.1:
        threshold = rng.integers(-reach // 8, 1, size=(channels,))
    leg = dataclasses.replace(leg, gain=gain, r_shift=r_shift, bias=bias)
    ready = dataclasses.replace(layer, maps=(leg,), threshold=threshold, timesteps=network.timesteps)
    return dataclasses.replace(network, layers=(*network.layers, ready))


def plain_layer(name: str, source: str, weight: Ints, **changes: Any) -> IntLayer:
    """A layer of one map: binary weights, gain 1, no bias, threshold 0, one step; ``changes`` by name of the field."""
    none = np.zeros(len(weight), dtype=np.int64)
    of_map = {field.name for field in dataclasses.fields(IntMap)}
    leg = IntMap(source, weight, WeightKind.BINARY, 1, Geometry(), gain=none + 1, r_shift=0, bias=none)
    leg = dataclasses.replace(leg, **{key: value for key, value in changes.items() if key in of_map})
    layer = IntLayer(name, (leg,), threshold=none, tau_q=64, code_max=255, spiking=True, timesteps=1)
    return dataclasses.replace(layer, **{key: value for key, value in changes.items() if key not in of_map})


def random_codes(rng: np.random.Generator, network: IntNetwork, images: int) -> NDArray[np.uint8]:
    """Input codes (N, T_in, H, W, C) of mixed density; the first image is all maximum, the second all zero."""
    source = network.input
    steps = 1 if network.static_input else network.timesteps
    shape = (images, steps, source.height, source.width, source.channels)
    density = rng.random((images, 1, 1, 1, 1))
    codes = (rng.integers(0, 256, shape) * (rng.random(shape) < density)).astype(np.uint8)
    codes[:1], codes[1:2] = 255, 0
    return codes


def plain_meta(network: IntNetwork) -> ProgramMeta:
    """Description of a network that has none."""
    source = network.input
    labels = tuple(str(index) for index in range(network.layers[-1].channels))
    transform = InputTransform(
        source.channels, source.height, source.width, (1.0,) * source.channels, (0.0,) * source.channels
    )
    return ProgramMeta("random", "random", "reverb", "none", None, labels, transform, 1.0)
