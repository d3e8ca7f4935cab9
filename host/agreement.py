"""How far a compiled program decides as the network that it was compiled from: golden model against floating point."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import EnvironmentMissing

from .bundled import bundled_images
from .images import encoded, read_image

__all__ = ["Agreement", "agreement", "bundled_samples", "compared", "trained_logits"]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Sample images, on how many of them the largest logit is the same one, and the largest difference of a logit.

    Parameters
    ----------
    spread : float
        Largest distance between two float logits of an image (of all images, if there is one class): what
        ``difference`` is to be compared with.
    right : (int, int) or None
        How many classes the float network and the golden model have right, where the true ones are known.
    """

    images: int
    agree: int
    difference: float
    spread: float
    right: tuple[int, int] | None = None

    def __str__(self) -> str:
        part = 100 * self.difference / self.spread if self.spread else 0.0
        said = (
            f"golden model and float network agree on {self.agree} of {self.images} sample images; "
            f"logits differ by {part:.1f} % of their spread at most"
        )
        if self.right is None:
            return said
        shares = [f"{100 * right / self.images:.1f} %" for right in self.right]
        return f"{said}; right: float {shares[0]}, golden {shares[1]}"


def bundled_samples(dataset: str, shape: tuple[int, int, int], count: int) -> NDArray[np.uint8] | None:
    """Bundled test images (N, C, H, W) of a data set, if there are any of this shape (H, W, C)."""
    found = [read_image(image.path) for image in bundled_images(dataset)[:count]]
    if not found or any(image.reshape(*image.shape[:2], -1).shape != shape for image in found):
        return None
    return np.moveaxis(np.stack([image.reshape(shape) for image in found]), -1, 1)


def agreement(checkpoint: Path, program: Program, config: Config, images: NDArray[np.uint8]) -> Agreement:
    """Compare on images (N, C, H, W), or (N, T, C, H, W) of event data.

    Raises
    ------
    EnvironmentMissing
        Without torch.
    """
    from reverb_fpga.sim.golden import GoldenModel

    wanted = trained_logits(checkpoint, images)
    codes = encoded(list(np.moveaxis(images, -3, -1)), program)
    found = GoldenModel(program, config).run(codes) * program.logit_scale
    return compared(wanted, np.asarray(found, dtype=np.float64))


def compared(
    wanted: NDArray[np.float64], found: NDArray[np.float64], truth: NDArray[np.int64] | None = None
) -> Agreement:
    """Compare logits (N, classes): of the float network, and of the golden model in the same units.

    Parameters
    ----------
    truth : int64 array (N,), optional
        The true classes.
    """
    classes = wanted.argmax(axis=1), found.argmax(axis=1)
    right = None
    if truth is not None:
        right = (int(np.count_nonzero(classes[0] == truth)), int(np.count_nonzero(classes[1] == truth)))
    return Agreement(
        images=len(wanted),
        agree=int(np.count_nonzero(classes[0] == classes[1])),
        difference=float(np.abs(wanted - found).max()),
        spread=float(np.ptp(wanted, axis=1).max()) or float(np.ptp(wanted)),
        right=right,
    )


def trained_logits(checkpoint: Path, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logits (N, classes) of the network as it was trained, on images (N, C, H, W) or (N, T, C, H, W).

    Raises
    ------
    EnvironmentMissing
        Without torch.
    """
    try:
        import torch
    except ImportError:
        raise EnvironmentMissing(
            "torch is not installed, comparing with the float network needs it: pip install 'reverb-fpga[train]'"
        ) from None
    from reverb_fpga.models.checkpoint import load_checkpoint

    network = load_checkpoint(checkpoint)
    with torch.no_grad():
        logits: NDArray[np.float64] = network(torch.from_numpy(np.ascontiguousarray(images)).float()).double().numpy()
    return logits
