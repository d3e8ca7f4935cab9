"""Networks for tests and demonstrations: random in every respect that a compiler must handle."""

from __future__ import annotations

import torch

from reverb_fpga.models.network import Network

__all__ = ["randomise"]


def randomise(network: Network, seed: int) -> Network:
    """Give an untrained network, in place, the statistics of a difficult trained one.

    Latent weights hold exact zeros, alpha is negative for a third of the channels and zero for one in sixteen, gamma
    likewise, and the running statistics match the currents that random images cause, so that neurons fire at
    moderate rates. Returns `network`, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.stages():
            if layer.weight is not None:
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.1)
                layer.weight[torch.rand(layer.weight.shape, generator=generator) < 0.02] = 0.0
            if layer.bias is not None:
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.1)
            if layer.gate is not None:
                layer.gate.copy_(torch.randn(layer.gate.shape, generator=generator))
            if isinstance(layer.bn, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) and layer.bn.affine:
                layer.bn.weight.copy_(_signed(layer.bn.num_features, generator))
                layer.bn.bias.copy_(torch.randn(layer.bn.num_features, generator=generator) * 0.3)
        for tensor in network.activations():
            if tensor.alpha is not None:
                tensor.alpha.copy_(_signed(tensor.alpha.shape[0], generator))
        shape = (16, *network.spec.input.shape)
        pixels = torch.randint(0, 256, shape, generator=generator)
        network.initialise_scales(pixels)
        _match_statistics(network, pixels)
        network.initialise_scales(pixels)
    return network.eval()


def _signed(count: int, generator: torch.Generator) -> torch.Tensor:
    """Magnitudes 0.5..1.5, a third negative, one in sixteen zero (at least one where there are two or more)."""
    value = torch.rand(count, generator=generator) + 0.5
    value[torch.rand(count, generator=generator) < 1 / 3] *= -1
    zero = torch.rand(count, generator=generator) < 1 / 16
    if count > 1:
        zero[int(torch.randint(count, (1,), generator=generator))] = True
    value[zero] = 0.0
    return value


def _match_statistics(network: Network, pixels: torch.Tensor) -> None:
    norms = [layer.bn for layer in network.stages() if layer.bn is not None]
    for norm in norms:
        norm.momentum = 0.5
    network.train()
    for _ in range(4):
        network(pixels)
    for norm in norms:
        norm.momentum = 0.1
