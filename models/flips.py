"""How many latent weights change their sign in an epoch: what tells whether binary weights still move, or flutter."""

from __future__ import annotations

import torch
from torch import Tensor

from reverb_fpga.models.network import Network

__all__ = ["SignFlips"]


class SignFlips:
    """Signs of the weights that count by their signs, as they were when last looked at."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._signs = self._now()

    def _now(self) -> list[Tensor]:
        return [
            layer.weight.detach() >= 0
            for layer in self._network.stages()
            if layer.weight is not None and layer.spec.weight.signs
        ]

    def share(self) -> float | None:
        """Share of those weights whose sign differs from that of the last look; None for a network without any."""
        before, self._signs = self._signs, self._now()
        count = sum(signs.numel() for signs in before)
        changed = sum(int(torch.count_nonzero(a != b)) for a, b in zip(before, self._signs, strict=True))
        return changed / count if count else None
