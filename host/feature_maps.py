"""What every layer fires on one image, as a picture: feature maps, or rasters where a layer has one position."""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import LayerInfo, Program
from reverb_fpga.hw.errors import EnvironmentMissing, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MAPS", "STEPS", "draw_spikes"]

MAPS = 64
"""Feature maps of a layer that are drawn; of more, the first."""
STEPS = 8
"""Time steps that are drawn; of more, the first."""

_WIDTH, _RASTER, _DPI = 9.0, 1.0, 110
_GAP = 1  # pixels between two maps
_ACROSS = 16


def draw_spikes(
    program: Program, pixels: NDArray[np.uint8], layers: list[NDArray[np.uint8]], logits: NDArray[np.int64], title: str
) -> bytes:
    """A PNG.

    Parameters
    ----------
    pixels : uint8 array (H, W, C)
        The image; of event data (T, H, W, 2), of an array of numbers its codes (T, H, W, C).
    layers : list of uint8 arrays (T, H, W, C)
        Codes of every layer, channels in the order of the network
        (:meth:`~reverb_fpga.compiler.program.LayerInfo.of_network`).
    logits : int array (classes,)

    Raises
    ------
    EnvironmentMissing
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise EnvironmentMissing("a picture needs matplotlib: pip install 'reverb-fpga[report]'") from None
    firing = [(info, codes) for info, codes in zip(program.layers, layers, strict=True) if info.spiking]
    pictures = [_picture(codes[:STEPS]) for _, codes in firing]
    heights = [2.2, *(_height(picture) for picture in pictures), 2.4]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.45 * len(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, height_ratios=heights)
    _image(axes[0], pixels, title)
    for place, (info, codes) in enumerate(firing):
        _layer(figure, axes[place + 1], info, codes, pictures[place])
    _logits(axes[-1], program, logits)
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks
        figure.savefig(out, dpi=_DPI, format="png")
    return out.getvalue()


def _picture(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Codes (T, H, W, C) as one picture: maps side by side, steps below each other; or a raster (T, C)."""
    steps, height, width, channels = codes.shape
    if height == width == 1:
        return codes[:, 0, 0].astype(np.float64)
    shown = min(channels, MAPS)
    across = min(shown, _ACROSS)
    rows = math.ceil(shown / across)
    tile = np.full((steps, rows, across, height + _GAP, width + _GAP), np.nan)
    maps = codes[..., :shown].transpose(0, 3, 1, 2)
    for number in range(shown):
        tile[:, number // across, number % across, :height, :width] = maps[:, number]
    return tile.transpose(0, 1, 3, 2, 4).reshape(steps * rows * (height + _GAP), across * (width + _GAP))


def _height(picture: NDArray[np.float64]) -> float:
    """Inches."""
    rows, columns = picture.shape
    return _RASTER if rows <= STEPS else min(9.0, max(0.8, 0.86 * _WIDTH * rows / columns))


def _image(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    shown = pixels if pixels.ndim == 3 else pixels[0]
    if shown.shape[-1] == 2:  # events that are darker and brighter, or other channels that are no colours
        shown = np.concatenate([shown, 0 * shown[..., :1]], axis=-1)
    axes.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray")
    axes.set_axis_off()
    axes.set_title(printable(title), fontsize=10, parse_math=False)


def _layer(figure: Figure, axes: Axes, info: LayerInfo, codes: NDArray[np.uint8], picture: NDArray[np.float64]) -> None:
    raster = picture.shape[0] <= STEPS
    most = max(1, int(codes.max()))
    shown = axes.imshow(
        picture, cmap="magma", vmin=0, vmax=most, interpolation="nearest", aspect="auto" if raster else "equal"
    )
    figure.colorbar(shown, ax=axes, fraction=0.02, pad=0.01)
    steps, channels = codes.shape[0], codes.shape[-1]
    parts = [f"{'x'.join(map(str, info.shape))}, {100 * np.count_nonzero(codes) / codes.size:.1f} % events"]
    if steps > 1:
        parts.append(f"{min(steps, STEPS)} of {steps} steps, from the top")
    if not raster and channels > MAPS:
        parts.append(f"{MAPS} of {channels} maps")
    axes.set_title(printable(f"{info.name}: {'; '.join(parts)}"), fontsize=9, loc="left", parse_math=False)
    if raster:
        axes.set_xlabel("neuron", fontsize=8)
        axes.set_ylabel("step", fontsize=8)
        axes.set_yticks(range(picture.shape[0]))
        axes.tick_params(labelsize=7)
    else:
        axes.set_axis_off()


def _logits(axes: Axes, program: Program, logits: NDArray[np.int64]) -> None:
    order = np.argsort(-logits, kind="stable")[:10]
    places = range(len(order))
    axes.barh(places, logits[order] * program.logit_scale, color="#2f6db3")
    axes.invert_yaxis()
    labels = [printable(program.labels[index])[:24] for index in order]
    axes.set_yticks(places)
    axes.set_yticklabels(labels, fontsize=8, parse_math=False)
    axes.tick_params(labelsize=8)
    axes.set_title("logits" if len(logits) <= 10 else "ten largest logits", fontsize=9, loc="left")
