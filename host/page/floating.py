"""Golden model against the network in floating point: logits, and how much noise each layer's integers add."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.passes.reorder import reordered
from reverb_fpga.compiler.pipeline import Compilation, CompileOptions, compile_network
from reverb_fpga.compiler.program import Program, Section
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.models.checkpoint import read_checkpoint

from ..agreement import trained_logits

__all__ = ["FloatComparison", "compare_with_float"]

_MOST_POINTS = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class FloatComparison:
    """What a checkpoint computes and what its program does, on the same images.

    Parameters
    ----------
    images, agree : int
        How many there were, and on how many the largest logit is the same one.
    wanted, found : float arrays (points,)
        Logits of the network as it was trained and of the golden model, side by side; some where there are many.
    same : bool
        The checkpoint gives this very program. It does not where other sample images set its scales: then the scales
        are not known, and ``signal`` is empty.
    signal : dict of str to float
        By spiking layer: ratio of what it fires without any rounding to what the integers make different, in dB;
        infinite where that is nothing. Differences of the layers before it are in it.
    """

    images: int
    agree: int
    wanted: NDArray[np.float64]
    found: NDArray[np.float64]
    same: bool
    signal: dict[str, float]


def compare_with_float(
    checkpoint: Path,
    program: Program,
    config: Config,
    pixels: NDArray[np.uint8],
    outputs: tuple[list[NDArray[np.uint8]], NDArray[np.int64]],
) -> FloatComparison:
    """Compare.

    Parameters
    ----------
    checkpoint : Path
        That the program was compiled from. It is compiled again, for its scales.
    pixels : uint8 array (N, H, W, C), or (N, T, H, W, C) of event data
    outputs : layers (N, T, H, W, C) and logits (N, classes) of the golden model on them, channels as in the records

    Raises
    ------
    EnvironmentMissing
        Without torch.
    InputError
        The checkpoint is none, or another network's.
    """
    layers, logits = outputs
    images = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    try:
        from reverb_fpga.compiler.passes.evaluate import evaluate_folded

        compiled = compile_network(read_checkpoint(checkpoint), config, CompileOptions(name=program.name))
        ours, theirs = ([(at.name, at.shape) for at in one.layers] for one in (program, compiled.program))
        if ours != theirs:
            raise InputError(f"{checkpoint}: is not the checkpoint of {program.name}: its layers are others")
        same = all(
            np.array_equal(ours, theirs)
            for (_, ours), (_, theirs) in zip(program.sections(), _placed_as(program, compiled, config), strict=True)
        )
        fired: dict[str, list[NDArray[np.floating]]] = {}
        evaluate_folded(
            compiled.folded, images, lambda name, values: fired.setdefault(name, []).append(values), double=False
        )
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(f"--checkpoint needs {error.name}: pip install 'reverb-fpga[train]'") from None
    step = {layer.name: layer.code_step for layer in compiled.report.layers} if same else {}
    signal = {}
    for info, codes in zip(program.layers, layers, strict=True):
        size = step.get(info.name)
        if info.spiking and size and info.name in fired:
            own = np.moveaxis(info.of_network(codes), -1, 2)
            signal[info.name] = _ratio(np.stack(fired[info.name], axis=1), own * size)
    wanted = trained_logits(checkpoint, images)
    found = (logits * program.logit_scale).astype(np.float64)
    every = -(-wanted.size // _MOST_POINTS)
    return FloatComparison(
        images=len(images),
        agree=int(np.count_nonzero(wanted.argmax(axis=1) == found.argmax(axis=1))),
        wanted=wanted.ravel()[::every],
        found=found.ravel()[::every],
        same=same,
        signal=signal,
    )


def _placed_as(program: Program, compiled: Compilation, config: Config) -> Iterator[tuple[Region, Section]]:
    """Sections of what was compiled just now, its channels in the order that the program has."""
    orders = {info.name: np.array(info.order) for info in program.layers if info.order is not None}
    if not orders:
        return compiled.program.sections()
    return lower(reordered(compiled.network, orders), config, compiled.program.meta).sections()


def _ratio(wanted: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    noise = float(np.square(wanted - found).sum())
    power = float(np.square(wanted).sum())
    return 10 * float(np.log10(power / noise)) if noise and power else float("inf")
