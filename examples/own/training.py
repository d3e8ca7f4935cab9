"""What the examples beside this share: Fashion-MNIST (in ./data) as floats 0..1, and a short training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverb_fpga.models.data import load_split

__all__ = ["fashion_mnist", "train"]


def fashion_mnist(folder: str = "data") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """20,000 training images (N, 1, 28, 28) and labels (N,), and 1,000 of the test split."""
    found: list[Tensor] = []
    for part, count in (("train", 20_000), ("test", 1_000)):
        split = load_split("fashion-mnist", folder, part, (28, 28, 1))
        found.append(torch.tensor(split.images[:count]).permute(0, 3, 1, 2) / 255)
        found.append(torch.tensor(split.labels[:count]).long())
    return found[0], found[1], found[2], found[3]


def train(
    net: nn.Module, images: Tensor, labels: Tensor, steps: int = 1, reset: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    """One epoch with Adam; the logits are the sum over `steps` calls, before which `reset` forgets the membranes."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    net.train()
    for part in torch.randperm(len(images)).split(64):
        if reset is not None:
            reset(net)
        logits = sum((net(images[part]) for _ in range(steps)), torch.zeros(()))
        loss = nn.functional.cross_entropy(logits, labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()
