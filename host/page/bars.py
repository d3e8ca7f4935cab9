"""Bars with a name each: the chart that most figures are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter, Range1d
from bokeh.plotting import figure

from .text import shorten

__all__ = ["COLOURS", "Bars", "bar_chart", "layer_colour", "new_figure"]

COLOURS = ("#2f6db3", "#d1702f", "#3c8f5a", "#8a5bb0", "#b8424c", "#6f6f6f", "#2b9aa0", "#b59a2b")
_IMAGE = "#9aa5b1"
_NAME = 26
_ROW = 24
_AROUND = 74


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
    """What a bar chart shows.

    Parameters
    ----------
    title, unit : str
        ``unit`` is the axis of the values.
    names : sequence of str
        From the top; equal ones stay apart.
    values : sequence of float
    details : sequence of str
        What is shown of each where the pointer is.
    most : float or None
        End of the axis.
    behind : sequence of float or None
        A pale bar behind each: what there is of what is used.
    starts : sequence of float or None
        Where each begins, if not at 0.
    number : str
        Format of the axis, as numeral.js has it.
    """

    title: str
    unit: str
    names: Sequence[str]
    values: Sequence[float]
    details: Sequence[str]
    most: float | None = None
    behind: Sequence[float] | None = None
    starts: Sequence[float] | None = None
    number: str = "0.[00]a"


def layer_colour(layer: int) -> str:
    """The colour of a layer in every chart; of the image, -1, another one."""
    return COLOURS[layer % len(COLOURS)] if layer >= 0 else _IMAGE


def new_figure(**options: object) -> figure:
    """A figure as wide as its place, with the page's looks. Options are bokeh's."""
    options = {"toolbar_location": None, "sizing_mode": "stretch_width", "min_width": 280, **options}
    made = figure(**options)
    made.title.text_font_size = "13px"
    made.grid.grid_line_color = "#e3e3e3"
    made.outline_line_color = None
    made.toolbar.logo = None
    return made


def bar_chart(bars: Bars, colour: str = COLOURS[0]) -> figure:
    """Horizontal bars, the first on top."""
    names = [f"{place + 1}  {shorten(name, _NAME)}" for place, name in enumerate(bars.names)]
    starts = list(bars.starts or [0] * len(names))
    ends = [start + value for start, value in zip(starts, bars.values, strict=True)]
    end = bars.most or 1.05 * max([*ends, *(bars.behind or ())], default=1) or 1
    plot = new_figure(
        title=bars.title, y_range=names[::-1], x_range=Range1d(0, end), height=_AROUND + _ROW * len(names), tools=""
    )
    plot.xaxis.axis_label = bars.unit
    plot.xaxis.formatter = NumeralTickFormatter(format=bars.number)
    plot.ygrid.grid_line_color = None
    behind = list(bars.behind or [0] * len(names))
    source = ColumnDataSource(
        {
            "name": names,
            "start": starts,
            "end": ends,
            "behind": behind,
            "detail": [shorten(d, 200) for d in bars.details],
        }
    )
    plot.hbar(y="name", right="behind", height=0.72, source=source, color="#dfe5ec", line_color=None)
    plot.hbar(y="name", left="start", right="end", height=0.72, source=source, color=colour, line_color=None)
    tips = [("", "@detail")]
    plot.add_tools(HoverTool(tooltips=tips, mode="hline", point_policy="follow_mouse", renderers=plot.renderers[-1:]))
    return plot
