"""Channels over banks, placed by what a program fires on some images (decision record 14)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.backend.banks import Placed, place_channels
from reverb_fpga.compiler.intnet import IntNetwork
from reverb_fpga.compiler.passes.reorder import reordered
from reverb_fpga.compiler.pipeline import Compilation
from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import Config
from reverb_fpga.sim.golden import GoldenModel

__all__ = ["IMAGES", "Balance", "Balanced", "balanced", "balanced_compilation", "spread"]

IMAGES = 64
"""Images of which activations are looked at; of more, so many spread evenly."""
_BYTES = 1 << 28
"""Activations that are held at a time, in bytes: of large tensors fewer images are looked at."""
_MEASURED = 4
_BEATS = 400_000
"""Beats that the cycle model goes through for each of the two programs, a few seconds: of long programs fewer images,
or none."""

Codes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Balance:
    """What placing the channels of a program gave.

    Parameters
    ----------
    banks : int
    layers : tuple of str
        Whose channels have another order; none if nothing was gained.
    images : int
        Kept from the search, of which the figures are.
    unit : str
        ``cycles``: of an image, by the cycle model; ``beats``: those in which it reads events, an estimate, where the
        packages that describe gateware are missing or nothing was measured.
    before, after : float
        Mean of an image.
    """

    banks: int
    layers: tuple[str, ...]
    images: int
    unit: str
    before: float
    after: float

    def __str__(self) -> str:
        how = "by the cycle model" if self.unit == "cycles" else "estimated"
        number = f"{self.images} held-out image{'s' * (self.images > 1)}"
        said = f"{self.before:,.0f} -> {self.after:,.0f} {self.unit} {how} on {number}"
        if not self.layers:
            return f"channels are left as they are: another order over {self.banks} banks gives nothing ({said})"
        return f"channels placed over {self.banks} banks: {said}"


@dataclasses.dataclass(frozen=True, eq=False)
class Balanced:
    """A program with its network, channels placed, and what that gave."""

    program: Program
    network: IntNetwork
    balance: Balance


def spread(items: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """At most ``number`` of (N, ...), evenly."""
    return items[:: max(1, len(items) // number)][:number]


def balanced(
    program: Program,
    network: IntNetwork,
    config: Config,
    codes: Codes,
    *,
    hints: Hints | None = None,
    measure: bool = True,
) -> Balanced | None:
    """The program with its channels placed over the banks, so that it takes fewer cycles; its logits stay.

    Every other image decides where channels lie; those between decide whether it is worth it, and are measured.

    Parameters
    ----------
    program : Program
    network : IntNetwork
        That it was compiled from.
    codes : uint8 array (N, T_in, H, W, C)
        Input codes of images as it will see them.
    hints : Hints or None
        With which it was compiled.
    measure : bool
        Run the cycle model, for some tenths of a second an image; otherwise ``beats`` are told.

    Returns
    -------
    Balanced or None
        The program that was given where nothing is gained; None of fewer than two images.
    """
    size = sum(math.prod(info.shape) * info.timesteps for info in program.layers)
    images = max(2, min(IMAGES, _BYTES // size))
    codes = spread(codes, images)
    if len(codes) < 2:
        return None
    layers, _ = GoldenModel(program, config).run_layers(codes)
    fired = {info.name: found for info, found in zip(program.layers, layers, strict=True) if info.spiking}
    placed = place_channels(network, fired, config, hints.row_mode if hints else None)
    before, after = _sums(placed)
    told = Balance(config.banks, tuple(placed.orders), len(codes) // 2, "beats", before, after)
    if not placed.orders:
        return Balanced(program, network, told)
    moved = reordered(network, placed.orders)
    result = lower(moved, config, program.meta, hints)
    number = min(told.images, _MEASURED, int(_BEATS // before)) if measure else 0
    if number and (cycles := _cycles((program, result), config, codes[1::2][:number])) is not None:
        told = dataclasses.replace(told, images=number, unit="cycles", before=cycles[0], after=cycles[1])
    if told.after >= told.before:
        return Balanced(program, network, dataclasses.replace(told, layers=()))
    return Balanced(result, moved, told)


def balanced_compilation(
    compiled: Compilation, config: Config, codes: Codes, *, hints: Hints | None = None, measure: bool = True
) -> tuple[Compilation, Balance | None]:
    """:func:`balanced` for what was compiled just now; the folded network keeps its order."""
    found = balanced(compiled.program, compiled.network, config, codes, hints=hints, measure=measure)
    if found is None:
        return compiled, None
    return dataclasses.replace(compiled, program=found.program, network=found.network), found.balance


def _sums(placed: Placed) -> tuple[float, float]:
    """Beats of all tensors on the images kept, before and after."""
    before = sum(beats for beats, _ in placed.beats.values())
    after = sum(beats[name in placed.orders] for name, beats in placed.beats.items())
    return before, after


def _cycles(programs: tuple[Program, Program], config: Config, codes: Codes) -> tuple[float, float] | None:
    """Mean cycles of an image; None without the packages that describe gateware."""
    try:
        from reverb_fpga.sim.cycles import CycleModel
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "reverb_fpga":
            raise
        return None
    before, after = (float(np.mean(CycleModel(program, config).cycles(codes))) for program in programs)
    return before, after
