"""The optimiser of a network, and the course of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reverb_fpga.models.network import Network

__all__ = ["Schedule", "make_optimiser"]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine to zero, over `steps` steps.

    Attributes
    ----------
    peak : float
        Highest rate.
    warmup : float
        Share of the steps that the warm-up takes.
    steps : int
        Steps of the whole run.
    """

    peak: float
    warmup: float
    steps: int

    def rate(self, step: float) -> float:
        """Learning rate at `step`, 0..steps; fractions are meant for epochs that take fewer, larger strides."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.peak * min(1.0, (step + 1) / rise)
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


def make_optimiser(network: Network, lr: float, weight_decay: float, latent_rate: float) -> torch.optim.Optimizer:
    """AdamW with a ``factor`` on the rate in every group of parameters.

    Latent weights that count by their signs are not decayed, and learn at `latent_rate` times the rate. Steps of the
    quantisers are slower than everything else, because Adam ignores the size of their gradient.
    """
    scales, latent, decayed, others = [], [], [], []
    for name, parameter in network.named_parameters():
        if name.endswith(".scale"):
            scales.append(parameter)
        elif parameter.dim() < 2:
            others.append(parameter)
        elif network.spec.layer(name.split(".")[1]).weight.signs:
            latent.append(parameter)
        else:
            decayed.append(parameter)
    groups = [
        {"params": others, "weight_decay": 0.0, "factor": 1.0},
        {"params": latent, "weight_decay": 0.0, "factor": latent_rate},
        {"params": decayed, "weight_decay": weight_decay, "factor": 1.0},
        {"params": scales, "weight_decay": 0.0, "factor": 0.02},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)
