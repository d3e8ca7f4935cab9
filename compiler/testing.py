"""Random quantised networks for tests and benches: every mode of the contract, at sizes that simulate fast."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import IntLayer, IntMap, IntNetwork, WeightKind
from reverb_fpga.compiler.program import InputTransform, ProgramMeta
from reverb_fpga.compiler.random_networks import Images, LayerSpec, NetworkSpec, Neurons, Profile, build

__all__ = ["RandomOptions", "plain_layer", "plain_meta", "random_codes", "random_network"]

Ints = NDArray[np.int64]


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
        Also draw gains, biases and thresholds at the ends of their ranges.
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
    steps = int(rng.integers(options.min_timesteps, options.max_timesteps + 1))
    spec = NetworkSpec(
        profile=_one(rng, Profile.ANY, Profile.ANY, Profile.MULTIBIT),
        channels=int(rng.integers(1, min(6, options.max_channels) + 1)),
        height=int(rng.integers(4, options.max_side + 1)),
        width=int(rng.integers(4, options.max_side + 1)),
        timesteps=steps,
        static_input=steps == 1 or bool(rng.integers(2)),
        signed_input=bool(rng.integers(2)),
        images=Images.MIXED,
        layers=tuple(_layer(rng, options) for _ in range(int(rng.integers(1, options.max_layers + 1)))),
        outputs=int(rng.integers(2, options.max_channels + 1)),
        max_strip_rows=None,
        ring_rows=None,
        seed=int(rng.integers(1 << 32)),
    )
    return build(spec).network


def _one(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _layer(rng: np.random.Generator, options: RandomOptions) -> LayerSpec:
    kinds = (WeightKind.BINARY, WeightKind.BINARY, WeightKind.TERNARY, WeightKind.MULTIBIT)
    return LayerSpec(
        channels=int(rng.integers(1, options.max_channels + 1)),
        kernel=int(rng.integers(1, 4)),
        kernel_x=_one(rng, None, None, 1, 2),
        stride=_one(rng, 1, 1, 2),
        padding=int(rng.integers(0, 3)),
        in_pool=_one(rng, 1, 1, 1, 2),
        out_pool=_one(rng, 1, 1, 1, 2),
        dilation=_one(rng, 1, 1, 1, 2),
        kind=_one(rng, *kinds),
        bits=int(rng.integers(2, options.max_bits + 1)),
        neurons=_one(rng, *Neurons) if options.saturate else Neurons.USUAL,
        extreme_weights=rng.random() < 0.1,
        threshold_positive=bool(rng.integers(2)),
        tau_q=_one(rng, 0, 64, 128, 200, 256),
        code_max=_one(rng, 1, 15, 200, 255),
        reset=_one(rng, None, None, None, 300, 4096),
    )


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
