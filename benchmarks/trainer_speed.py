"""Training speed before and after the work on the trainer, measured side by side in one run.

    python benchmarks/trainer_speed.py --arch cnv --threads 2

`plain` is the textbook form of the same network: every step computed, the convolution before its pooling, boolean
masks in the neuron, activations scaled and rounded in separate passes, NCHW. In float (--act-bits 0) both give the same
loss; with rounding, a code at the edge of its step may fall to either side, and the untrained network amplifies that.
Rounds alternate between the two; the figures are medians of images per second of forward and backward.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.models.activation import Activation
from reverb_fpga.models.description import INPUT, InputSpec
from reverb_fpga.models.network import Layer, Network
from reverb_fpga.models.pooling import pooled
from reverb_fpga.models.quant import sign_plus
from reverb_fpga.models.zoo import DatasetSpec, Options, build

CIFAR = DatasetSpec("cifar10", InputSpec(3, 32, 32, (125, 123, 114), (63.0, 62.1, 66.7)), tuple("0123456789"))
DATA = {
    "fmnist": DatasetSpec("fashion-mnist", InputSpec(1, 28, 28, (73,), (90.0,)), tuple("0123456789")),
    "cnv": CIFAR,
    "resnet20-classic": CIFAR,
}


class _PlainRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, bits: int) -> Tensor:
        ratio = x / scale
        codes = torch.floor(ratio + 0.5).clamp(0, 2**bits - 1)
        ctx.save_for_backward(ratio, codes)
        ctx.top = 2**bits - 1
        return codes * scale

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        ratio, codes = ctx.saved_tensors
        inside = (ratio >= 0) & (ratio <= ctx.top)
        share = (grad * torch.where(inside, codes - ratio, codes)).sum()
        return grad * inside, share / (ratio.numel() * ctx.top) ** 0.5, None


def plain_read(tensor: Activation, x: Tensor) -> Tensor:
    """Spikes of one step as readers see them: scaled, then rounded."""
    if tensor.alpha is not None:
        x = x * tensor.alpha.abs().reshape(1, -1, *([1] * (x.dim() - 2)))
    if tensor.scale is not None and tensor.spec.bits is not None:
        x = _PlainRound.apply(x, tensor.scale, tensor.spec.bits)
    return x


def plain_layer(layer: Layer, x: Tensor, alpha: Tensor | None) -> Tensor:
    """One time step of one layer, (N, C, H, W) as read to current, in the order of the description."""
    spec, weight = layer.spec, layer.effective_weight()
    if alpha is not None:
        repeated = sign_plus(alpha).repeat_interleave(weight.shape[1] // len(alpha))
        weight = weight * repeated.reshape(1, -1, *([1] * (weight.dim() - 2)))
    x = pooled(x, spec.pool_before)
    if spec.kind == "linear":
        return F.linear(x.flatten(1), weight, layer.bias)
    return pooled(F.conv2d(x, weight, layer.bias, spec.stride, spec.padding, spec.dilation), spec.pool_after)


def plain_forward(network: Network, pixels: Tensor) -> Tensor:
    """Logits; every step of every layer is computed, with the neuron as the equations write it."""
    mean, std = network.mean[:, None, None], network.std[:, None, None]
    read: dict[str, list[Tensor]] = {INPUT: [(pixels.float() - mean) / std] * network.spec.timesteps}
    for layer in network.stages():
        spec = layer.spec
        alpha = network.tensor(spec.source).alpha if spec.source != INPUT else None
        joined = torch.cat([plain_layer(layer, x, alpha) for x in read[spec.source]])
        currents = list((layer.bn(joined) if layer.bn is not None else joined).chunk(network.spec.timesteps))
        for name in spec.shortcuts:
            tensor = network.spec.tensor(name)
            size = network.tensor(name).alpha if tensor is not None and tensor.alpha else None
            divisor = 1 if size is None else size.abs()[:, None, None]
            currents = [current + x / divisor for current, x in zip(currents, read[name], strict=True)]
        neuron = spec.neuron
        if neuron is None:
            read[spec.name] = currents
            continue
        read[spec.name], kept = [], torch.zeros(())
        for current in currents:
            u = neuron.tau * kept + current
            fired = (u >= neuron.v_th).detach()
            read[spec.name].append(plain_read(network.tensor(spec.name), u * fired))
            kept = u * ~fired
    return torch.stack(currents).mean(0)


def seconds(
    forward: Callable[[Tensor], Tensor], network: Network, pixels: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Time of one forward and backward pass, and the loss."""
    network.zero_grad()
    started = time.perf_counter()
    loss = F.cross_entropy(forward(pixels), labels)
    loss.backward()
    return time.perf_counter() - started, float(loss.detach())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted(DATA), default="cnv")
    parser.add_argument("--timesteps", type=int, default=1)
    parser.add_argument("--v-th", type=float, default=0.0)
    parser.add_argument("--act-bits", type=int, default=8, help="0: float activations")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = Options(timesteps=given.timesteps, v_th=given.v_th, act_bits=given.act_bits or None)
    data = DATA[given.arch]
    plain, fast = build(given.arch, data, options), build(given.arch, data, options)
    fast.to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (given.batch_size, *data.input.shape), dtype=torch.uint8)
    labels = torch.randint(0, 10, (given.batch_size,))
    last = pixels.contiguous(memory_format=torch.channels_last)
    for network in (plain, fast):
        network.initialise_scales(pixels)
    times: dict[str, list[float]] = {"plain": [], "fast": []}
    losses: dict[str, float] = {}
    for _ in range(given.rounds + 1):
        for name, network, batch in (("plain", plain, pixels), ("fast", fast, last)):
            forward = (lambda x: plain_forward(plain, x)) if name == "plain" else network
            taken, losses[name] = seconds(forward, network, batch, labels)
            times[name].append(taken)
    rates = {name: given.batch_size / statistics.median(values[1:]) for name, values in times.items()}
    print(
        json.dumps(
            {
                "arch": given.arch,
                "timesteps": given.timesteps,
                "act_bits": given.act_bits or None,
                "threads": given.threads,
                "plain_images_per_second": round(rates["plain"], 1),
                "fast_images_per_second": round(rates["fast"], 1),
                "speedup": round(rates["fast"] / rates["plain"], 2),
                "loss_difference": abs(losses["plain"] - losses["fast"]),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
