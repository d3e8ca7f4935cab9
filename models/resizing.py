"""Training on smaller images first (progressive resizing): the same weights, with fewer positions to compute.

A network that ends in a mean over its map takes images of any size. Its twin for smaller ones has parameters and batch
statistics in common with it (Howard 2018, in the DAWNBench entry of fast.ai; Tan and Le 2021, section 4).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.description import NetworkSpec
from reverb_fpga.models.network import Network

__all__ = ["resized", "twin"]


def twin(network: Network, spec: NetworkSpec) -> Network:
    """A network of `spec` with the parameters and batch statistics of `network`, not copies of them.

    Raises
    ------
    InputError
        If `spec`, which is that of `network` for images of another size, has tensors of other shapes.
    """
    ours, theirs = network.spec.tensor_shapes(), spec.tensor_shapes()
    for name, shape in ours.items():
        if theirs[name] != shape:
            raise InputError(
                f"network {spec.arch}: {name} is {shape} for images of {network.spec.input.height} x "
                f"{network.spec.input.width} and {theirs[name]} for {spec.input.height} x {spec.input.width}: only "
                "networks that end in a mean over the map can train on smaller images first (--small-side)"
            )
    result = Network(spec)
    for name, module in network.named_modules():
        other = result.get_submodule(name)
        other._parameters, other._buffers = module._parameters, module._buffers
    return result


def resized(pixels: Tensor, side: int) -> Tensor:
    """Pixel codes (N, C, H, W) or (N, T, C, H, W), averaged down to `side` x `side`: reals 0..255."""
    frames = pixels.flatten(0, -4).float()
    return F.interpolate(frames, size=(side, side), mode="area").unflatten(0, pixels.shape[:-3])
