"""The charts of a page, each of one kind of figures."""

from __future__ import annotations

import math
import re

import numpy as np
from bokeh.models import BasicTicker, ColorBar, ColumnDataSource, HoverTool, LinearColorMapper, NumeralTickFormatter
from bokeh.palettes import Blues256
from bokeh.plotting import figure

from reverb_fpga.hw.boards.report import BuildReport

from ..latency import Latency
from ..model_report import ModelReport
from .bars import COLOURS, Bars, bar_chart, layer_colour, new_figure
from .floating import FloatComparison
from .memory import MemoryUse
from .precision import LayerPrecision
from .runs import RunCurve
from .text import shorten
from .timeline import Timeline

__all__ = [
    "build_charts",
    "code_chart",
    "cost_charts",
    "float_charts",
    "image_time_chart",
    "memory_chart",
    "precision_chart",
    "resource_chart",
    "run_chart",
    "timeline_chart",
]

_WIDE = 300
_HOP_NS = 0.1  # carries are less; a path has dozens of them
_HOP = re.compile(r"^([\d.]+) ns (\S+) (.*)$")


def cost_charts(report: ModelReport) -> list[figure]:
    """Cycles, density and use of the array, layer by layer."""
    names = [layer.name for layer in report.layers]
    charts = []
    if report.cycles is not None:
        cycles = [layer.cycles or 0.0 for layer in report.layers]
        details = [f"{value:,.0f} cycles, {100 * value / report.cycles:.1f} % of the image" for value in cycles]
        charts.append(
            bar_chart(Bars(title="Cycles", unit="cycles an image", names=names, values=cycles, details=details))
        )
    density = [100 * (layer.density or 0) for layer in report.layers]
    details = [
        "its input is the image: every addition is made"
        if layer.density is None
        else f"{100 * layer.density:.1f} %: {layer.additions:,.0f} of {layer.dense:,} additions"
        for layer in report.layers
    ]
    bars = Bars(title="Density", unit="% of its additions", names=names, values=density, details=details)
    charts.append(bar_chart(bars, COLOURS[1]))
    if report.cycles is not None:
        busy = [100 * (layer.busy or 0) for layer in report.layers]
        details = [f"{value:.1f} % of the array's ports take an event" for value in busy]
        bars = Bars(title="Array use", unit="% of its ports", names=names, values=busy, details=details, most=100)
        charts.append(bar_chart(bars, COLOURS[2]))
    return charts


def precision_chart(layers: tuple[LayerPrecision, ...]) -> figure:
    """Bits that a current can need, before the width there is."""
    return bar_chart(
        Bars(
            title="Bits of the current z",
            unit="bits needed at most (pale: width)",
            names=[layer.name for layer in layers],
            values=[layer.z_bits for layer in layers],
            behind=[layer.z_width for layer in layers],
            details=[
                f"{layer.z_bits} of {layer.z_width} bits: {layer.z_width - layer.z_bits} left" for layer in layers
            ],
            number="0",
        )
    )


def code_chart(layers: tuple[LayerPrecision, ...]) -> figure:
    """Largest activation code over the images, before the largest that there is."""
    firing = [layer for layer in layers if layer.code_max]
    details = [
        f"largest {layer.largest} of {layer.code_max}; {100 * layer.fired:.1f} % of the outputs are events"
        + ("" if layer.clipped is None else f", {100 * layer.clipped:.3f} % of them at the limit")
        for layer in firing
    ]
    return bar_chart(
        Bars(
            title="Activation codes",
            unit="largest code seen (pale: limit)",
            names=[layer.name for layer in firing],
            values=[layer.largest for layer in firing],
            behind=[layer.code_max for layer in firing],
            details=details,
            number="0",
        ),
        COLOURS[3],
    )


def memory_chart(memory: MemoryUse, starts: tuple[int, ...] | None) -> figure:
    """Words in use over the schedule, tensor upon tensor; over cycles where their times are known."""
    number = memory.words.shape[1]
    edges = np.array([*starts, starts[-1] + max(1, starts[-1] // 100)] if starts else range(number + 1))
    top = 1.05 * memory.capacity if 3 * memory.peak > memory.capacity else 1.5 * memory.peak
    plot = new_figure(title="Activation memory", height=_WIDE, tools="", y_range=(0, top))
    plot.xaxis.axis_label = "cycle" if starts else "descriptor"
    plot.yaxis.axis_label = "words of each bank"
    plot.xaxis.formatter = plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    below = np.full(number, memory.constant)
    total = memory.words.sum(axis=0) + memory.constant
    for place, (name, words) in enumerate(zip(memory.tensors, memory.words, strict=True)):
        used = words > 0
        data = {
            "left": edges[:-1][used], "right": edges[1:][used], "bottom": below[used], "top": (below + words)[used],
            "tensor": [shorten(name, 40)] * int(used.sum()), "words": words[used], "sum": total[used],
        }  # fmt: skip
        colour = layer_colour(memory.layers[place])
        plot.quad("left", "right", "top", "bottom", source=ColumnDataSource(data), color=colour, line_color=None)
        below = below + words
    plot.line([int(edges[0]), int(edges[-1])], [memory.capacity] * 2, color="#b8424c", line_dash="dashed")
    tips = [("tensor", "@tensor"), ("words", "@words{0,0}"), ("all tensors", "@sum{0,0}")]
    plot.add_tools(HoverTool(tooltips=tips, point_policy="follow_mouse", renderers=plot.renderers[:-1]))
    return plot


def timeline_chart(found: Timeline) -> figure:
    """Layers and units over the cycles of one image; zoom with the wheel or a box, the pointer tells the shares."""
    rows = len(found.units)
    plot = new_figure(
        title="Timeline of one image", height=_WIDE, tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
        active_drag="xbox_zoom", toolbar_location="above", x_range=(0, found.cycles), y_range=(0, rows + 1),
    )  # fmt: skip
    mapper = LinearColorMapper(palette=Blues256[::-1], low=0, high=1)
    picture = plot.image(image=[found.busy[::-1]], x=0, y=0, dw=found.cycles, dh=rows, color_mapper=mapper)
    plot.yaxis.ticker = [place + 0.5 for place in range(rows + 1)]
    plot.yaxis.major_label_overrides = {place + 0.5: name for place, name in enumerate([*found.units[::-1], "layer"])}
    plot.xaxis.axis_label = "cycle"
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.grid.grid_line_color = None
    bar = ColorBar(color_mapper=mapper, ticker=BasicTicker(desired_num_ticks=3), width=8, title="busy")
    plot.add_layout(bar, "right")
    plot.add_tools(HoverTool(tooltips=[("busy", "@image{0.00}"), ("cycle", "$x{0,0}")], renderers=[picture]))
    _add_layers(plot, found, rows)
    return plot


def _add_layers(plot: figure, found: Timeline, row: int) -> None:
    """A row of the layers that run; those that last have their names on them."""
    spans = found.spans
    source = ColumnDataSource({
        "left": [at.start for at in spans], "right": [at.end for at in spans],
        "middle": [(at.start + at.end) / 2 for at in spans], "name": [shorten(at.name, 40) for at in spans],
        "label": [shorten(at.name, 8) if at.end - at.start > found.cycles / 12 else "" for at in spans],
        "cycles": [at.end - at.start for at in spans], "colour": [layer_colour(at.layer) for at in spans],
    })  # fmt: skip
    bars = plot.quad("left", "right", row + 0.85, row + 0.1, source=source, color="colour", line_color="white")
    plot.text(
        "middle", row + 0.48, "label", source=source, text_color="white", text_font_size="11px", text_align="center",
        text_baseline="middle",
    )  # fmt: skip
    plot.add_tools(HoverTool(tooltips=[("layer", "@name"), ("cycles", "@cycles{0,0}")], renderers=[bars]))


def image_time_chart(found: Latency, cycles: float, clock_mhz: float) -> figure:
    """One image alone, from its first byte on the line to the last of its logits."""
    times = (found.input_us, found.core_us, found.output_us)
    details = (
        f"{found.input_us:,.0f} us: {found.input_bytes:,} bytes at {found.baud:,} baud, without frames",
        f"{found.core_us:,.0f} us: {cycles:,.0f} cycles at {clock_mhz:g} MHz",
        f"{found.output_us:,.0f} us: {found.output_bytes} bytes, without frames",
    )
    bars = Bars(
        title="Link and core", unit="us, one image alone",
        names=("link: input", "core: image", "link: logits"), values=times, details=details,
        starts=(0, found.input_us, found.input_us + found.core_us),
    )  # fmt: skip
    return bar_chart(bars, COLOURS[6])


def float_charts(found: FloatComparison) -> list[figure]:
    """Logits against logits, and the noise of each layer."""
    plot = new_figure(title="Logits", height=_WIDE, tools="")
    low, high = float(found.wanted.min()), float(found.wanted.max())
    plot.line([low, high], [low, high], color="#b0b0b0")
    plot.scatter(found.wanted, found.found, size=5, alpha=0.5, color=COLOURS[0], line_color=None)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "float network", "golden model"
    plot.add_tools(
        HoverTool(tooltips=[("float", "@x{0.000}"), ("golden", "@y{0.000}")], renderers=[plot.renderers[-1]])
    )
    charts = [plot]
    finite = {name: value for name, value in found.signal.items() if math.isfinite(value)}
    if finite:
        bars = Bars(
            title="Signal to quantisation noise", unit="dB, with what earlier layers add", names=list(finite),
            values=[max(0.0, value) for value in finite.values()], number="0",
            details=[f"{value:.1f} dB" for value in finite.values()],
        )  # fmt: skip
        charts.append(bar_chart(bars, COLOURS[2]))
    return charts


def run_chart(curves: tuple[RunCurve, ...]) -> figure:
    """Accuracy against density: a point per epoch, the last one of a run marked."""
    plot = new_figure(title="Accuracy against density", height=_WIDE, tools="")
    plot.xaxis.axis_label, plot.yaxis.axis_label = "density, %", "accuracy held out, %"
    dots = []
    for place, curve in enumerate(curves):
        colour = COLOURS[place % len(COLOURS)]
        density = [100 * value for value in curve.density]
        data = {
            "x": density,
            "y": curve.accuracy,
            "epoch": curve.epochs,
            "run": [shorten(curve.name, 40)] * len(density),
        }
        source = ColumnDataSource(data)
        plot.line("x", "y", source=source, color=colour, alpha=0.4)
        dots.append(plot.scatter("x", "y", source=source, color=colour, size=5, line_color=None))
        plot.scatter(density[-1:], curve.accuracy[-1:], color=colour, size=11, marker="diamond", line_color="black")
    tips = [("run", "@run"), ("epoch", "@epoch"), ("accuracy", "@y{0.00} %"), ("density", "@x{0.0} %")]
    plot.add_tools(HoverTool(tooltips=tips, renderers=dots))
    return plot


def resource_chart(used: list[tuple[str, int, int]]) -> figure:
    """Names, what is used and what there is."""
    shares = [100 * number / total if total else 0 for _, number, total in used]
    bars = Bars(
        title="Resources", unit="% of the device", names=[name for name, _, _ in used], most=max(100, *shares),
        number="0", values=shares, details=[f"{number:,} of {total:,}" for _, number, total in used],
    )  # fmt: skip
    return bar_chart(bars)


def build_charts(build: BuildReport) -> list[figure]:
    """Resources of the device, block RAM by use, and the longest path."""
    kinds = (("LUT4", "lut4"), ("flip-flops", "ff"), ("block RAM", "bram"), ("multipliers", "dsp"))
    charts = [resource_chart([(name, getattr(build, field), build.available[field]) for name, field in kinds])]
    if build.bram_by_use:
        uses = build.bram_by_use
        details = [f"{name}: {number}" for name, number in uses.items()]
        bars = Bars(
            title="Block RAM by use", unit="blocks", names=list(uses), values=list(uses.values()), details=details
        )
        charts.append(bar_chart(bars, COLOURS[1]))
    hops = [(float(found[1]), found) for hop in build.critical_path if (found := _HOP.match(hop))]
    if hops:
        before = (0.0, *(end for end, _ in hops))
        shown = [(end, found) for (end, found), begin in zip(hops, before, strict=False) if end - begin >= _HOP_NS]
        bars = Bars(
            title=f"Longest path, {len(hops)} hops", unit=f"ns from its beginning; hops of {_HOP_NS:g} and more",
            names=[f"{found[2]} …{found[3][-12:]}" for _, found in shown],
            values=[end for end, _ in shown], details=[found[0] for _, found in shown], number="0.0",
        )  # fmt: skip
        charts.append(bar_chart(bars, COLOURS[4]))
    return charts
