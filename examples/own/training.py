"""What the examples beside this share: Fashion-MNIST (in ./data) as floats 0..1, a short training, accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverb_fpga.models.data import load_split

Run = Callable[[Tensor], Tensor]


def fashion_mnist(folder: str = "data") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """20,000 training images (N, 1, 28, 28) and labels (N,), and 1,000 of the test split."""
    found: list[Tensor] = []
    for part, count in (("train", 20_000), ("test", 1_000)):
        split = load_split("fashion-mnist", folder, part, (28, 28, 1))
        found.append(torch.tensor(split.images[:count]).permute(0, 3, 1, 2) / 255)
        found.append(torch.tensor(split.labels[:count]).long())
    return found[0], found[1], found[2], found[3]


def train(net: nn.Module, run: Run, images: Tensor, labels: Tensor, rate: float = 2e-3) -> None:
    """One epoch with Adam; `run` gives the logits (N, classes) of a batch."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    net.train()
    for part in torch.randperm(len(images)).split(64):
        loss = nn.functional.cross_entropy(run(images[part]), labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()


def accuracy(logits: Tensor, labels: Tensor) -> str:
    """As a percentage."""
    right = (torch.as_tensor(logits).argmax(1) == labels).float().mean()
    return f"{100 * float(right):.1f} %"
