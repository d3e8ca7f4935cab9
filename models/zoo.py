"""The networks of this project, as descriptions: one table of topologies; ``models/builder.py`` makes their layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.builder import Builder, DatasetSpec, Options
from reverb_fpga.models.description import EVENTS, NetworkSpec, PoolSpec

if TYPE_CHECKING:
    from reverb_fpga.models.network import Network

__all__ = ["ARCHITECTURES", "DatasetSpec", "Options", "build", "describe", "usual_arch"]


@dataclass(frozen=True)
class _Conv:
    """A 3x3 convolution; `pool` averages windows of that side."""

    channels: int
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class _Chain:
    convs: tuple[_Conv, ...]
    hidden: tuple[int, ...] = field(default=())

    def __call__(self, net: Builder) -> None:
        for conv in self.convs:
            net.conv(conv.channels, padding=conv.padding, pool=conv.pool)
        for wide in self.hidden:
            net.linear(wide)
        net.classify()


@dataclass(frozen=True)
class _Stem:
    """What stands before the blocks: `count` convolutions of one kind, then a pool.

    `pool` averages the current or the spikes, as the options say; `pool_spikes` is always of spikes.
    """

    channels: int
    count: int = 1
    kernel: int = 3
    stride: int = 1
    pool: int = 1
    pool_spikes: PoolSpec | None = None


@dataclass(frozen=True)
class _ResNet:
    """A residual network of basic blocks.

    Attributes
    ----------
    groups : tuple of (channels, blocks)
        Every group but the first halves the map in its first block.
    """

    stem: _Stem
    groups: tuple[tuple[int, int], ...]

    def __call__(self, net: Builder) -> None:
        stem = self.stem
        for index in range(stem.count):
            pool = stem.pool if index == stem.count - 1 else 1
            net.conv(stem.channels, kernel=stem.kernel, stride=stem.stride, padding=stem.kernel // 2, pool=pool)
        if stem.pool_spikes is not None:
            net.pool(stem.pool_spikes)
        for group, (channels, blocks) in enumerate(self.groups):
            for block in range(blocks):
                net.block(f"b{group + 1}{block + 1}", channels, stride=2 if group and not block else 1)
        net.classify(global_pool=True)


def _resnet9(net: Builder) -> None:
    """Few, wide layers: trains fast."""
    net.conv(64, padding=1)
    net.conv(128, padding=1, pool=2)
    net.block("b1", 128, stride=1)
    net.conv(256, padding=1, pool=2)
    net.conv(512, padding=1, pool=2)
    net.block("b2", 512, stride=1)
    net.classify(global_pool=True)


ARCHITECTURES: dict[str, Callable[[Builder], None]] = {
    # Fashion-MNIST: 3.0e5 weights, 28x28 -> 14x14 -> 7x7 -> 5x5
    "fmnist": _Chain((_Conv(32, 1), _Conv(64, 1, 2), _Conv(64, 1), _Conv(128, 1, 2), _Conv(128))),
    # FINN's CIFAR-10 network: 1.5e6 weights, no padding, 32 -> 30 -> 14 -> 12 -> 5 -> 3 -> 1
    "cnv": _Chain((_Conv(64), _Conv(64, 0, 2), _Conv(128), _Conv(128, 0, 2), _Conv(256), _Conv(256)), (512, 512)),
    # five layers, pooled at every convolution; for frames and event frames of any size
    "scnn5": _Chain((_Conv(32, 1, 2), _Conv(64, 1, 2), _Conv(128, 1, 2), _Conv(128, 1, 2))),
    # event frames of 48x48, as in the TET line of papers: 9.2e6 weights
    "vggsnn": _Chain(
        (
            *(_Conv(64, 1), _Conv(128, 1, 2), _Conv(256, 1), _Conv(256, 1, 2)),
            *(_Conv(512, 1), _Conv(512, 1, 2), _Conv(512, 1), _Conv(512, 1, 2)),
        )
    ),
    # He et al.'s CIFAR network, 0.27e6 weights
    "resnet20-classic": _ResNet(_Stem(16), ((16, 3), (32, 3), (64, 3))),
    # two blocks of wide layers, after the networks of the DAWNBench CIFAR-10 races: 6.6e6 weights
    "resnet9": _resnet9,
    # the ReverB paper's: 11.2e6 weights
    "resnet20": _ResNet(_Stem(64, count=3, pool=2), ((64, 2), (128, 2), (256, 2), (512, 2))),
    # 12.6e6 weights
    "resnet19": _ResNet(_Stem(128), ((128, 3), (256, 3), (512, 2))),
    # ImageNet, 224x224; the pool of the stem is an average, exact at any number of steps
    "resnet18": _ResNet(
        _Stem(64, kernel=7, stride=2, pool_spikes=PoolSpec("avg", (3, 3), (2, 2), (1, 1))),
        ((64, 2), (128, 2), (256, 2), (512, 2)),
    ),
    "resnet34": _ResNet(
        _Stem(64, kernel=7, stride=2, pool_spikes=PoolSpec("avg", (3, 3), (2, 2), (1, 1))),
        ((64, 3), (128, 4), (256, 6), (512, 3)),
    ),
}


def usual_arch(dataset: str) -> str:
    """The architecture for a data set when none is asked for."""
    if dataset == "imagenet":
        return "resnet18"
    if dataset == EVENTS:
        return "scnn5"
    return "fmnist" if "mnist" in dataset else "cnv"


def describe(arch: str, dataset: DatasetSpec, options: Options) -> NetworkSpec:
    """The description of `arch` for `dataset`.

    Raises InputError for an unknown architecture or options it cannot have.
    """
    topology = ARCHITECTURES.get(arch)
    if topology is None:
        raise InputError(f"unknown architecture {arch!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    net = Builder(arch, dataset, options)
    topology(net)
    return net.spec()


def build(arch: str, dataset: DatasetSpec, options: Options | None = None, seed: int = 0) -> Network:
    """An untrained network; the same seed gives the same weights. torch's global generator is left as it was."""
    import torch

    from reverb_fpga.models.network import Network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(describe(arch, dataset, options or Options()))
