"""The networks of this project, as descriptions: one table of topologies, one builder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.description import InputSpec, LayerSpec, NetworkSpec, NeuronSpec, WeightSpec

if TYPE_CHECKING:
    from reverb_fpga.models.network import Network

__all__ = ["ARCHITECTURES", "DatasetSpec", "Options", "build", "describe", "usual_arch"]


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
        ``reverb``, ``reverb-learnable`` or ``snn`` (real weights, binary spikes, float only).
    timesteps, v_th, tau
        The neuron and its time.
    act_bits : int or None
        Activation bits under quantisation-aware training; None trains with float activations.
    pool_mode : str
        Average the ``current`` before the neuron, or the ``spike`` after it.
    width : float
        Multiplies the hidden channels.
    first_bits, last_bits : int
        Weight bits of the first and last layers.
    """

    system: str = "reverb-learnable"
    timesteps: int = 1
    v_th: float = 0.0
    tau: float = 0.25
    act_bits: int | None = None
    pool_mode: Literal["current", "spike"] = "current"
    width: float = 1.0
    first_bits: int = 4
    last_bits: int = 4


@dataclass(frozen=True)
class _Conv:
    channels: int
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class _Topology:
    convs: tuple[_Conv, ...]
    hidden: tuple[int, ...] = field(default=())


ARCHITECTURES: dict[str, _Topology] = {
    # Fashion-MNIST: 3.0e5 weights, 28x28 -> 14x14 -> 7x7 -> 5x5
    "fmnist": _Topology((_Conv(32, 1), _Conv(64, 1, 2), _Conv(64, 1), _Conv(128, 1, 2), _Conv(128))),
    # FINN's CIFAR-10 network: 1.5e6 weights, no padding, 32 -> 30 -> 14 -> 12 -> 5 -> 3 -> 1
    "cnv": _Topology((_Conv(64), _Conv(64, 0, 2), _Conv(128), _Conv(128, 0, 2), _Conv(256), _Conv(256)), (512, 512)),
    # five layers, pooled at every convolution; for frames and event frames of any size
    "scnn5": _Topology((_Conv(32, 1, 2), _Conv(64, 1, 2), _Conv(128, 1, 2), _Conv(128, 1, 2))),
}


def usual_arch(dataset: str) -> str:
    """The architecture for a data set when none is asked for."""
    return "fmnist" if "mnist" in dataset else "cnv"


def describe(arch: str, dataset: DatasetSpec, options: Options) -> NetworkSpec:
    """The description of `arch` for `dataset`.

    Raises InputError for an unknown architecture or options it cannot have.
    """
    topology = ARCHITECTURES.get(arch)
    if topology is None:
        raise InputError(f"unknown architecture {arch!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    layers: list[LayerSpec] = []
    channels, height, width = dataset.input.shape
    for index, conv in enumerate(topology.convs, start=1):
        out = max(1, round(conv.channels * options.width))
        layers.append(
            LayerSpec(
                name=f"conv{index}",
                kind="conv",
                in_channels=channels,
                out_channels=out,
                kernel=3,
                padding=conv.padding,
                pool=conv.pool,
                pool_mode=options.pool_mode,
                **_common(options, first=not layers),
            )
        )
        channels = out
        height, width = ((side + 2 * conv.padding - 2) // conv.pool for side in (height, width))
        if min(height, width) < 1:
            _, given_height, given_width = dataset.input.shape
            raise InputError(
                f"{arch} is too deep for images of {given_width}x{given_height}; nothing is left at conv{index}"
            )
    features = channels * height * width
    for index, wide in enumerate(topology.hidden, start=1):
        out = max(1, round(wide * options.width))
        layers.append(
            LayerSpec(name=f"fc{index}", kind="linear", in_channels=features, out_channels=out, **_common(options))
        )
        features = out
    layers.append(
        LayerSpec(
            name=f"fc{len(topology.hidden) + 1}",
            kind="linear",
            in_channels=features,
            out_channels=len(dataset.labels),
            weight=_weight(options, options.last_bits),
            bn=False,
            in_bits=options.act_bits,
        )
    )
    return NetworkSpec(
        arch=arch,
        system=cast(Any, options.system),
        dataset=dataset.name,
        labels=dataset.labels,
        input=dataset.input,
        timesteps=options.timesteps,
        layers=tuple(layers),
    )


def _common(options: Options, first: bool = False) -> dict[str, Any]:
    return {
        "weight": _weight(options, options.first_bits if first else 1),
        "alpha": options.system == "reverb-learnable" and not first,
        "neuron": NeuronSpec(options.tau, options.v_th),
        "in_bits": None if first else options.act_bits,
    }


def _weight(options: Options, bits: int) -> WeightSpec:
    if options.system == "snn":
        return WeightSpec("real", 32)
    return WeightSpec("binary") if bits == 1 else WeightSpec("multibit", bits)


def build(arch: str, dataset: DatasetSpec, options: Options | None = None, seed: int = 0) -> Network:
    """An untrained network; the same seed gives the same weights. torch's global generator is left as it was."""
    import torch

    from reverb_fpga.models.network import Network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(describe(arch, dataset, options or Options()))
