"""Small modules in the style of public tutorials, written anew; what becomes of each is in docs/import.md, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
from snntorch import spikegen, surrogate
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrize

from reverb_fpga.host.agreement import bundled_samples

__all__ = ["CASES", "IMAGES", "Case"]


def images() -> torch.Tensor:
    """The bundled test images of Fashion-MNIST, (100, 1, 12, 12), 0..1 in 256 levels."""
    found = bundled_samples("fashion-mnist", (28, 28, 1), 100)
    assert found is not None
    smaller = F.avg_pool2d(torch.tensor(found).float(), 2)[:, :, 1:13, 1:13]
    return smaller.floor() / 255


IMAGES = images()


@dataclasses.dataclass(frozen=True)
class Case:
    """One module.

    Parameters
    ----------
    what : str
        For the table.
    make : callable
    steps : int or None
        Time steps, of a module that runs one at a time.
    samples : callable or None
        What the module takes; None: IMAGES.
    """

    what: str
    make: Callable[[], Any]
    steps: int | None = None
    samples: Callable[[], torch.Tensor] | None = None


def with_forward(parts: dict[str, nn.Module], run: Callable[[Any, torch.Tensor], Any]) -> nn.Module:
    """A module of some parts and a forward, as a class of its own would be."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: torch.Tensor) -> Any:
            return run(self, x)

    return Net()


def lively(net: nn.Module, gain: float = 3.0) -> nn.Module:
    """With weights so large that neurons fire."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data *= gain
    return net


# plain torch


def lenet(pool: Callable[[torch.Tensor, int], torch.Tensor], *, pool_first: bool = False) -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        for conv in (net.conv1, net.conv2):
            x = F.relu(pool(conv(x), 2)) if pool_first else pool(F.relu(conv(x)), 2)
        return net.fc2(F.relu(net.fc1(torch.flatten(x, 1))))

    convolutions = {"conv1": nn.Conv2d(1, 6, 3, padding=1), "conv2": nn.Conv2d(6, 8, 3, padding=1)}
    return with_forward(convolutions | {"fc1": nn.Linear(72, 24), "fc2": nn.Linear(24, 10)}, run)


class BasicBlock(nn.Module):
    """As in ResNet, with one ReLU for all, in place."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.down = None
        if stride != 1 or before != after:
            self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.down is None else self.down(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


def resnet() -> nn.Module:
    stem = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)]
    return nn.Sequential(*stem, BasicBlock(8, 8, 1), BasicBlock(8, 12, 2), *head)


def pre_activation() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x)
        for _ in range(2):
            y = F.relu(net.bn(x))
            x = x + net.conv(y)
        return net.fc(F.relu(x).mean((2, 3)))

    stem, conv = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
    return with_forward({"stem": stem, "bn": nn.BatchNorm2d(8), "conv": conv, "fc": nn.Linear(8, 10)}, run)


def separable(between: nn.Module) -> nn.Module:
    stem = [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()]
    depthwise = [nn.Conv2d(8, 8, 3, padding=1, groups=8), between, nn.Conv2d(8, 12, 1), nn.ReLU()]
    return nn.Sequential(*stem, *depthwise, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10))


class Sign(torch.autograd.Function):
    """Binary weights with a straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(weight >= 0, 1.0, -1.0)


class BinaryConv(nn.Conv2d):
    """A convolution with the signs of its weights, times their mean size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, Sign.apply(self.weight) * size, self.bias, self.stride, self.padding)


class Ternary(nn.Module):
    """For parametrize: -1, 0 and 1 times a scale per output."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        flat = weight.flatten(1)
        level = 0.7 * flat.abs().mean(1, keepdim=True)
        live = flat.abs() > level
        size = (flat.abs() * live).sum(1, keepdim=True) / live.sum(1, keepdim=True)
        return (torch.sign(flat) * live * size).view_as(weight)


class FakeQuantised(nn.Linear):
    """Weights of four bits with one scale, as quantisation-aware training has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight.abs().max() / 7
        return F.linear(x, torch.round(self.weight / scale).clamp(-7, 7) * scale, self.bias)


def binary_net() -> nn.Module:
    return nn.Sequential(
        BinaryConv(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), BinaryConv(8, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10),
    )  # fmt: skip


def ternary_net() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10))
    for part in (net[1], net[3]):
        parametrize.register_parametrization(part, "weight", Ternary())
    return net


def fake_quantised() -> nn.Module:
    return nn.Sequential(nn.Flatten(), FakeQuantised(144, 32), nn.ReLU(), FakeQuantised(32, 10))


def sign_activations() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.fc2(torch.sign(net.fc1(x.flatten(1))))

    return with_forward({"fc1": nn.Linear(144, 32), "fc2": nn.Linear(32, 10)}, run)


def log_softmax() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(net.fc2(F.dropout(F.relu(net.fc1(x.flatten(1))), training=net.training)), dim=1)

    return with_forward({"fc1": nn.Linear(144, 32), "fc2": nn.Linear(32, 10)}, run)


def dense_block() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.a(x))
        return net.fc(torch.cat([x, F.relu(net.b(x))], 1).flatten(1))

    return with_forward({"a": nn.Conv2d(1, 4, 3, 2), "b": nn.Conv2d(4, 4, 3, 1, 1), "fc": nn.Linear(200, 10)}, run)


def attention() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.embed(x.flatten(1)).unsqueeze(1)
        return net.fc(net.attend(x, x, x)[0].squeeze(1))

    parts = {"embed": nn.Linear(144, 16), "attend": nn.MultiheadAttention(16, 2), "fc": nn.Linear(16, 10)}
    return with_forward(parts, run)


def own_lif() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        membrane, total = torch.zeros(len(x), 32), 0
        for _ in range(4):
            membrane = 0.5 * membrane + net.fc1(x.flatten(1))
            spikes = (membrane > 1).float()
            membrane = membrane - spikes
            total = total + net.fc2(spikes)
        return total

    return with_forward({"fc1": nn.Linear(144, 32), "fc2": nn.Linear(32, 10)}, run)


def dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, (3, 5), padding="same", dilation=2), nn.ReLU(), nn.Conv2d(6, 6, 3, (2, 1)), nn.ReLU(),
        nn.AvgPool2d((1, 2)), nn.Flatten(), nn.Linear(150, 10),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Flatten())


# SpikingJelly


def jelly_linear() -> nn.Module:
    return lively(nn.Sequential(layer.Flatten(), layer.Linear(144, 10, bias=False), neuron.LIFNode(tau=2.0)))


def jelly_csnn(step_mode: str = "s", make: Callable[[], nn.Module] = neuron.IFNode) -> nn.Module:
    net = nn.Sequential(
        layer.Conv2d(1, 8, 3, padding=1, bias=False), layer.BatchNorm2d(8), make(), layer.MaxPool2d(2),
        layer.Conv2d(8, 8, 3, padding=1, bias=False), layer.BatchNorm2d(8), make(), layer.MaxPool2d(2),
        layer.Flatten(), layer.Dropout(0.3), layer.Linear(72, 20, bias=False), make(), layer.VotingLayer(2),
    )  # fmt: skip
    functional.set_step_mode(net, step_mode)
    return lively(net)


def jelly_steps() -> nn.Module:
    """Step mode m with the time loop inside: the stem once, then every step at once."""

    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.stem(x).unsqueeze(0).repeat(4, 1, 1, 1, 1)
        return net.body(x).mean(0)

    stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
    body = nn.Sequential(
        neuron.LIFNode(), layer.SeqToANNContainer(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)),
        neuron.LIFNode(v_reset=None), layer.Flatten(), layer.Linear(288, 10),
    )  # fmt: skip
    functional.set_step_mode(body, "m")
    return lively(with_forward({"stem": stem, "body": body}, run))


def sew_block(joined: Callable[[Any, Any], Any]) -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.sn1(net.conv1(x))
        return net.fc(net.pool(joined(net.sn2(net.bn2(net.conv2(x))), x)).flatten(1))

    return lively(
        with_forward(
            {
                "conv1": layer.Conv2d(1, 8, 3, 2, 1), "sn1": neuron.IFNode(), "conv2": layer.Conv2d(8, 8, 3, 1, 1),
                "bn2": layer.BatchNorm2d(8), "sn2": neuron.IFNode(), "pool": layer.AvgPool2d(2),
                "fc": layer.Linear(72, 10),
            },
            run,
        )
    )  # fmt: skip


class FourBits(nn.Module):
    """For parametrize."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().max() / 7
        return torch.round(weight / scale) * scale


def jelly_quantised() -> nn.Module:
    net = jelly_csnn("s", neuron.LIFNode)
    for part in list(net.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data *= 2
            parametrize.register_parametrization(part, "weight", FourBits())
    return net


def jelly_standardised() -> nn.Module:
    net = [layer.WSConv2d(1, 8, 3, 2, 1), neuron.IFNode(), layer.Flatten(), layer.Linear(288, 10)]
    return lively(nn.Sequential(*net))


def jelly_recurrent() -> nn.Module:
    inner = nn.Sequential(nn.Linear(32, 10), neuron.IFNode())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, 32), neuron.IFNode(), layer.LinearRecurrentContainer(inner, 32, 10)
    )


# snnTorch


def torch_loop(make: Callable[[], nn.Module], result: int = 0, steps: int = 5) -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> Any:
        mem1, mem2 = net.lif1.reset_mem(), net.lif2.reset_mem()
        recorded: tuple[list[Any], list[Any]] = ([], [])
        for _ in range(steps):
            spk1, mem1 = net.lif1(net.fc1(x.view(x.size(0), -1)), mem1)
            spk2, mem2 = net.lif2(net.fc2(spk1), mem2)
            recorded[0].append(spk2)
            recorded[1].append(mem2)
        return torch.stack(recorded[result], dim=0)

    parts = {"fc1": nn.Linear(144, 40), "lif1": make(), "fc2": nn.Linear(40, 10), "lif2": make()}
    return lively(with_forward(parts, run))


def torch_sequence(pool: nn.Module, kind: Callable[..., nn.Module] = snn.Leaky, **settings: Any) -> nn.Module:
    def neurons(**more: Any) -> nn.Module:
        return kind(**settings, init_hidden=True, spike_grad=surrogate.fast_sigmoid(), **more)

    return lively(
        nn.Sequential(
            nn.Conv2d(1, 6, 3), pool, neurons(), nn.Conv2d(6, 8, 3), neurons(), nn.Flatten(), nn.Linear(72, 10),
            neurons(output=True),
        )
    )  # fmt: skip


def rate_coded() -> nn.Module:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        spikes = spikegen.rate(x.flatten(1), num_steps=4)
        return sum(net.fc(spikes[step]) for step in range(4))

    return with_forward({"fc": nn.Linear(144, 10)}, run)


# NIR

ONE = np.ones(32)


def nir_list(*nodes: Any) -> nir.NIRGraph:
    return nir.NIRGraph.from_list(nir.Flatten({"input": np.array([1, 12, 12])}, 0), *nodes)


def affine(out: int, features: int) -> nir.Affine:
    rng = np.random.default_rng(out)
    return nir.Affine(rng.normal(size=(out, features)) / features**0.5, rng.normal(size=out) / 4)


def nir_lif(**changes: Any) -> nir.NIRGraph:
    settings = {"tau": 4e-4 * ONE, "r": 4 * ONE, "v_leak": 0 * ONE, "v_threshold": ONE} | changes
    return nir_list(affine(32, 144), nir.LIF(**settings), affine(10, 32))


def nir_convolution() -> nir.NIRGraph:
    rng, one = np.random.default_rng(5), np.ones((6, 5, 5))
    conv = nir.Conv2d((12, 12), rng.normal(size=(6, 1, 3, 3)) / 2, 2, 0, 1, 1, rng.normal(size=6) / 4)
    neurons = nir.IF(r=1e4 * one, v_threshold=one)
    pool = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    return nir.NIRGraph.from_list(conv, neurons, pool, nir.Flatten({"input": np.array([6, 2, 2])}, 0), affine(10, 24))


def nir_recurrent() -> nir.NIRGraph:
    nodes = {"input": nir.Input(np.array([144])), "fc": affine(32, 144), "lif": nir.LIF(ONE, ONE, 0 * ONE, ONE),
             "back": affine(32, 32), "output": nir.Output(np.array([32]))}  # fmt: skip
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def events() -> torch.Tensor:
    """Two channels of 0 and 1, (5, 100, 2, 12, 12): above and below a level that rises from step to step."""
    levels = torch.linspace(0.1, 0.7, 5)[:, None, None, None, None]
    return torch.cat([IMAGES[None] > levels, (IMAGES[None] < levels) & (IMAGES[None] > 0)], 2).float()


def event_net() -> nn.Module:
    net = nn.Sequential(
        layer.Conv2d(2, 8, 3, padding=1), neuron.LIFNode(), layer.Conv2d(8, 8, 3, 2),
        neuron.LIFNode(), layer.Flatten(), layer.Linear(200, 10),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return lively(net)


CASES: dict[str, tuple[Case, ...]] = {
    "torch": (
        Case("multi-layer perceptron with ReLU and Dropout", lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(144, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))),
        Case("LeNet, average pooling", lambda: lenet(F.avg_pool2d)),
        Case("LeNet, `max_pool2d(relu(conv(x)))`", lambda: lenet(F.max_pool2d)),
        Case("LeNet, `relu(max_pool2d(conv(x)))`", lambda: lenet(F.max_pool2d, pool_first=True)),
        Case("ResNet of two basic blocks, one ReLU in place for all", resnet),
        Case("pre-activation block, its layers used twice", pre_activation),
        Case("depthwise separable convolution, ReLU between", lambda: separable(nn.ReLU())),
        Case("depthwise separable convolution, nothing between", lambda: separable(nn.Identity())),
        Case("depthwise separable convolution, ReLU6", lambda: separable(nn.ReLU6())),
        Case("dilated, strided, non-square convolutions", dilated),
        Case("binary weights with a scale (XNOR-Net's), straight-through", binary_net),
        Case("ternary weights by `parametrize`", ternary_net),
        Case("four-bit weights, fake quantisation", fake_quantised),
        Case("activations by `torch.sign`", sign_activations),
        Case("`log_softmax` at the end (the MNIST example)", log_softmax),
        Case("dense block (`torch.cat`)", dense_block),
        Case("attention", attention),
        Case("autoencoder (`ConvTranspose2d`)", autoencoder),
        Case("LSTM", lambda: nn.Sequential(nn.Flatten(), nn.LSTM(144, 10))),
        Case("LIF neurons written out, `(membrane > 1).float()`", own_lif),
    ),
    "SpikingJelly": (
        Case("one layer of `LIFNode`", jelly_linear, 8),
        Case("convolutions, max pooling, votes; step mode s", jelly_csnn, 4),
        Case("the same in step mode m", lambda: jelly_csnn("m"), 4),
        Case("the same with `ParametricLIFNode`", lambda: jelly_csnn(
            "s", lambda: neuron.ParametricLIFNode(decay_input=False)), 4),
        Case("stem once, then all steps in `SeqToANNContainer`", jelly_steps),
        Case("SEW block, ADD", lambda: sew_block(lambda a, b: a + b), 4),
        Case("SEW block, AND", lambda: sew_block(lambda a, b: a * b), 4),
        Case("weights of four bits by `parametrize`", jelly_quantised, 4),
        Case("`WSConv2d`, whose weights are standardised in its forward", jelly_standardised, 4),
        Case("event frames (T, N, 2, H, W), step mode m", event_net, None, events),
        Case("`KLIFNode`", lambda: jelly_csnn("s", neuron.KLIFNode), 4),
        Case("`LinearRecurrentContainer`", jelly_recurrent, 4),
    ),
    "snnTorch": (
        Case("two layers of `Leaky`, the loop in the forward", lambda: torch_loop(lambda: snn.Leaky(beta=0.9))),
        Case("the same, membranes returned", lambda: torch_loop(lambda: snn.Leaky(beta=0.9), result=1)),
        Case("the same, beta and threshold learned", lambda: torch_loop(
            lambda: snn.Leaky(beta=0.8, threshold=0.7, learn_beta=True, learn_threshold=True))),
        Case("`Lapicque`", lambda: torch_loop(lambda: snn.Lapicque(R=2.0, C=2.0))),
        Case("`nn.Sequential`, `init_hidden`, average pooling", lambda: torch_sequence(nn.AvgPool2d(2), beta=0.5), 5),
        Case("the same, max pooling of the current", lambda: torch_sequence(nn.MaxPool2d(2), beta=0.5), 5),
        Case("`Synaptic`", lambda: torch_sequence(nn.AvgPool2d(2), snn.Synaptic, alpha=0.9, beta=0.8), 5),
        Case("`RLeaky`", lambda: torch_sequence(nn.AvgPool2d(2), snn.RLeaky, beta=0.8, all_to_all=False, V=1.0), 5),
        Case("rate coding in the forward (`spikegen.rate`)", rate_coded),
    ),
    "NIR": (
        Case("`Affine`, `LIF`, `Affine`", nir_lif, 8),
        Case("`Conv2d`, `IF`, `SumPool2d`", nir_convolution, 5),
        Case("`LIF` with a leak towards `v_leak`", lambda: nir_lif(v_leak=0.1 * ONE), 5),
        Case("`CubaLIF`", lambda: nir_list(affine(32, 144), nir.CubaLIF(
            tau_syn=ONE, tau_mem=ONE, r=ONE, v_leak=0 * ONE, v_threshold=ONE), affine(10, 32)), 5),
        Case("a recurrent connection", nir_recurrent, 5, lambda: IMAGES.flatten(1)),
    ),
}  # fmt: skip
