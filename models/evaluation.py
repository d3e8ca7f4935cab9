"""Accuracy, loss and density of a network on a set of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from reverb_fpga.models.activity import DensityMeter
from reverb_fpga.models.augment import batches
from reverb_fpga.models.data import ImageSet
from reverb_fpga.models.network import LayerTrace, Network

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (percent) over so many images, mean loss, and the share of non-zero events, per layer and over all."""

    images: int
    accuracy: float
    loss: float
    density: float
    densities: dict[str, float]


@torch.no_grad()
def evaluate(network: Network, data: ImageSet, batch_size: int = 250) -> Evaluation:
    """Evaluate `network` on all images of `data`; leaves it in evaluation mode."""
    network.eval()
    correct, loss, meter = 0, 0.0, DensityMeter()
    for pixels, labels in batches(data, batch_size):
        pixels, labels = pixels.to(network.mean.device), labels.to(network.mean.device)
        traces: list[LayerTrace] = []
        logits = network(pixels, traces)
        meter.add(traces)
        correct += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return Evaluation(len(data), 100.0 * correct / len(data), loss / len(data), meter.mean(), meter.densities())
