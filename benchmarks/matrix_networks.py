"""Networks and images of `matrix.py`: random weights with calibrated normalisation, the last layer fitted to labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reverb_fpga.models.checkpoint import Checkpoint
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.image_set import ImageSet
from reverb_fpga.models.network import LayerTrace, Network
from reverb_fpga.models.pooling import pooled
from reverb_fpga.models.zoo import DatasetSpec, Options, build

__all__ = [
    "EVENTS", "SIDES", "SYSTEMS", "Images", "Labelled", "calibrate", "checkpoint_of", "for_fitting", "inputs_of",
    "pictures", "untrained",
]  # fmt: skip

Images = NDArray[np.uint8]

SYSTEMS = {
    "reverb": Options(system="reverb", timesteps=2),
    "reverb-learnable": Options(system="reverb-learnable", timesteps=2),
    "ternary": Options(system="ternary", timesteps=2),
    "snn": Options(system="snn", timesteps=2, v_th=0.5, weight_bits=8),
    "bsnn": Options(system="bsnn", timesteps=2, v_th=0.5),
    "agmm-bsnn": Options(system="agmm-bsnn", timesteps=2, v_th=0.5),
}
_WEIGHT_BITS = {("resnet20", "snn"): 2}  # a program holds at most 33.5 Mbit of weights: not 11.2 million of 3 bits
SIDES = {"resnet18": 224, "resnet34": 224, "vggsnn": 48}
EVENTS = {"vggsnn": 10}  # networks of event frames, and their steps
_CALIBRATION = 16
_BATCH = 4
# factors of untrained gates lie between this and its negative; at 0, where training begins, all are a half
_GATES = 2.0
_ALPHA = (0.5, 1.5)  # of untrained networks that learn it; every third is negative
_FITTED = {
    "resnet20": 2500,
    "resnet19": 1000,
    "resnet18": 600,
    "resnet34": 400,
    "vggsnn": 200,
}  # images for the last layer, else:
_USUALLY_FITTED = 500
_SHALLOW = ("cnv", "resnet20-classic")  # deeper ones want a stronger ridge: their roundings have more layers to grow in
_STRONGER = 10.0
_STRENGTH = {
    ("resnet20", "ternary"): 40.0,
    ("resnet18", "reverb-learnable"): 40.0,
    ("resnet34", "reverb-learnable"): 40.0,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Pixels as a network takes them, and their labels."""

    pixels: Images
    labels: NDArray[np.int64]


def pictures(number: int) -> Images:
    """Drawn ones, uint8 (N, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:32]
    found = []
    for _ in range(number):  # gratings with a bright disc
        angle, period, phase = rng.uniform(0, np.pi), rng.uniform(4, 16), rng.uniform(0, 2 * np.pi, 3)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle))[..., None] * 2 * np.pi / period + phase)
        centre = rng.uniform(8, 24, 2)
        disc = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.uniform(3, 10) ** 2)[..., None]
        found.append(np.clip(128 + 90 * wave * rng.uniform(0.3, 1, 3) + 60 * disc, 0, 255))
    return np.array(found).astype(np.uint8)


def for_fitting(network: str, data: ImageSet) -> Labelled:
    """Training images for the last layer of a network."""
    some = data.sample(_FITTED.get(network, _USUALLY_FITTED))
    return Labelled(inputs_of(network, some.images), some.labels)


def inputs_of(network: str, images: Images) -> Images:
    """Pixels as the network takes them: (N, C, H, W), or (N, T, 2, H, W) of synthetic events."""
    side = SIDES.get(network, 32)
    shown = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    if side != 32:
        shown = torch.nn.functional.interpolate(shown, size=(side, side), mode="bilinear", align_corners=False)
    if network not in EVENTS:
        return shown.round().byte().numpy()
    grey, frames = shown.mean(dim=1), []
    for step in range(EVENTS[network]):  # the picture moves along a circle; a frame holds what became brighter, darker
        moved = [torch.roll(grey, (round(3 * np.sin(at)), round(3 * np.cos(at))), (1, 2)) for at in (step, step + 1)]
        change = moved[1] - moved[0]
        frames.append(torch.stack([change.clamp(min=0), (-change).clamp(min=0)], dim=1).clamp(max=255))
    return torch.stack(frames, dim=1).round().byte().numpy()


def untrained(network: str, system: str, pixels: Images, fit: Labelled | None) -> Checkpoint:
    """Random weights; normalisation and code steps as the currents of some images ask for; the last layer fitted."""
    options = dataclasses.replace(SYSTEMS[system], act_bits=8)
    if (network, system) in _WEIGHT_BITS:
        options = dataclasses.replace(options, weight_bits=_WEIGHT_BITS[network, system])
    if network in EVENTS:
        options = dataclasses.replace(options, timesteps=EVENTS[network], v_th=0.25)
    channels, height, width = pixels.shape[-3:]
    mean = 0 if network in EVENTS else 120
    source = InputSpec(channels, height, width, (mean,) * channels, (60.0,) * channels)
    labels = tuple(str(label) for label in range(10))
    net: Network = build(network, DatasetSpec("cifar10", source, labels), options)
    with torch.no_grad():
        _draw(net)
        calibrate(net, torch.from_numpy(pixels[:_CALIBRATION]))
        if fit is not None:
            _fit(net, fit, _STRENGTH.get((network, system), 1.0 if network in _SHALLOW else _STRONGER))
    return checkpoint_of(net)


@torch.no_grad()
def calibrate(net: Network, pixels: Tensor) -> None:
    """Normalisation and code steps as the currents of some pixels (N, C, H, W) ask for; rounding from then on."""
    for layer in net.stages():
        if layer.bn is not None:
            layer.bn.momentum = None  # the average over all batches
    net.set_quantised(False)
    net.train()
    for start in range(0, len(pixels), _BATCH):
        net(pixels[start : start + _BATCH])
    net.eval()
    net.initialise_scales(pixels)
    net.set_quantised(True)


def checkpoint_of(net: Network) -> Checkpoint:
    """What `train` would have saved."""
    state = net.state_dict()
    return Checkpoint(net.spec, {name: state[name].numpy() for name in net.spec.tensor_shapes()})


def _draw(net: Network) -> None:
    """Gates and alphas that are not where training begins."""
    drawn = torch.Generator().manual_seed(9)
    for layer in net.stages():
        if layer.gate is not None:
            layer.gate.uniform_(-_GATES, _GATES, generator=drawn)
    for tensor in net.activations():
        if tensor.alpha is not None:
            tensor.alpha.uniform_(*_ALPHA, generator=drawn)
            tensor.alpha[::3] *= -1


class _Newest(list[LayerTrace]):
    """Keeps the last layer only."""

    def append(self, trace: LayerTrace) -> None:
        self[:] = [trace]


def _fit(net: Network, given: Labelled, strength: float) -> None:
    """The last layer by ridge regression of the labels on what it reads: ten classes, with margins.

    A network whose last layer is random, too, names one to three classes whatever it sees.
    """
    last, parts = net.stages()[-1], []
    for start in range(0, len(given.pixels), _BATCH):
        trace = _Newest()
        net(torch.from_numpy(given.pixels[start : start + _BATCH]), trace)
        events = trace[0].events
        assert events is not None
        read = pooled(events.flatten(0, 1), last.spec.pool_before) if events.dim() == 5 else events.flatten(0, 1)
        parts.append(read.flatten(1).unflatten(0, events.shape[:2]).mean(dim=0).double())
    features = torch.cat(parts)
    weight, bias = _ridge(features, torch.from_numpy(given.labels), last.spec.out_channels, strength)
    assert last.weight is not None
    assert last.bias is not None
    last.weight.copy_(weight)
    last.bias.copy_(bias)


def _ridge(features: Tensor, labels: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Weights (classes, D) and biases of features (N, D); ``strength`` times the mean eigenvalue is added to all."""
    mean = features.mean(dim=0)
    centred = features - mean
    wanted = torch.nn.functional.one_hot(labels, classes).double()
    scatter = centred.T @ centred
    added = strength * scatter.diagonal().mean()
    weight = torch.linalg.solve(scatter + added * torch.eye(len(mean)).double(), centred.T @ wanted).T
    return weight, wanted.mean(dim=0) - weight @ mean
