"""One HTML file of the figures: charts by bokeh, its script embedded, nothing fetched from anywhere."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from reverb_fpga.hw.errors import EnvironmentMissing, printable

from ..bundled import ASSETS
from ..estimate import Estimate, clock_words
from .drawing import network_svg
from .facts import PageFacts

__all__ = ["check_library", "page"]


@dataclasses.dataclass(frozen=True)
class _Section:
    """A heading, a line that says where its figures are from, and charts by their div elements."""

    title: str
    origin: str
    charts: list[Any]


def check_library() -> None:
    """Raise EnvironmentMissing without bokeh: before the work."""
    if find_spec("bokeh") is None:
        raise EnvironmentMissing("a page needs bokeh: pip install 'reverb-fpga[report]'")


def page(facts: PageFacts) -> str:
    """The page of a model. Raises EnvironmentMissing as :func:`check_library`."""
    check_library()
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .bars import layer_colour

    sections = _sections(facts)
    script, parts = components([chart for section in sections for chart in section.charts])
    divs = iter(parts)
    blocks = [
        {"title": section.title, "origin": section.origin, "charts": [Markup(next(divs)) for _ in section.charts]}
        for section in sections
    ]
    environment = Environment(
        loader=FileSystemLoader(ASSETS / "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["plain"] = printable
    return environment.get_template("page.html").render(
        facts=facts,
        report=facts.report,
        program=facts.program,
        sections=blocks,
        network=Markup(network_svg(facts.program, facts.layers)),
        colour=layer_colour,
        rate=facts.report.images_per_second(facts.sources.clock_mhz) if facts.sources.clock_mhz else None,
        version=version("reverb-fpga"),
        library=Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        script=Markup(script),
    )


def _sections(facts: PageFacts) -> list[_Section]:
    from . import charts

    sample = f"mean of {facts.report.images} image(s)"
    found = facts.timeline
    cost = f"Densities: counted by the golden model, {sample}. "
    cost += "Cycles and array use: cycle model." if found else "Cycles need amaranth: pip install 'reverb-fpga[hw]'."
    sections = [_Section("What each layer costs", cost, charts.cost_charts(facts.report))]
    if found:
        pace = []
        if (found_latency := facts.latency) is not None and facts.report.cycles and facts.sources.clock_mhz:
            pace = [charts.image_time_chart(found_latency, facts.report.cycles, facts.sources.clock_mhz)]
        shares = ", ".join(f"{unit} {100 * share:.0f} %" for unit, share in zip(found.units, found.total, strict=True))
        sections.append(
            _Section("Time", f"{_time(facts)} Busy over the image: {shares}.", [charts.timeline_chart(found), *pace])
        )
    memory = facts.memory
    origin = (
        f"From the schedule: words that hold what is still to be read, at most {memory.peak:,} of {memory.capacity:,}; "
        f"{memory.constant} hold the constant record. Dashed: what there is."
    )
    sections.append(
        _Section("Memory", origin, [charts.memory_chart(memory, found.starts if found else None), _uses(facts)])
    )
    origin = f"Bits: proved from the weights, for any input. Codes: golden model over {facts.report.images} image(s)."
    sections.append(
        _Section(
            "Precision that is left",
            origin,
            [charts.precision_chart(facts.precision), charts.code_chart(facts.precision)],
        )
    )
    return [*sections, *_given(facts)]


def _given(facts: PageFacts) -> list[_Section]:
    """Sections of what was given beside the model."""
    from . import charts

    sections, floating, build = [], facts.floating, facts.sources.build
    if floating is not None:
        same = f"{floating.agree} of {floating.images} image(s)"
        origin = f"Computed from the checkpoint, logits as trained: the largest is the same on {same}. "
        origin += "Noise: against the same network without any rounding."
        if not floating.same:
            origin += " Scales of this program came from other sample images, so layers cannot be compared."
        sections.append(_Section("Golden model against floating point", origin, charts.float_charts(floating)))
    if facts.runs:
        origin = "From the log of training: images that were held out; a point per epoch, a diamond for the last."
        sections.append(_Section("Accuracy and density", origin, [charts.run_chart(facts.runs)]))
    guess = facts.sources.estimate
    if guess is not None:
        origin = (
            f"Estimated from the configuration, for {guess.board}: nothing was synthesised. {_errors(guess)} Against "
            "which builds stands in the project's docs/boards.md."
        )
        used = [(resource.name, resource.used, resource.available) for resource in guess.resources]
        sections.append(_Section("Before a build", origin, [charts.resource_chart(used)]))
    if build is not None:
        origin = (
            f"From the build's report.json: {build.board}, {build.clock_mhz:g} MHz asked for, timing met up to "
            f"{build.fmax_mhz:g} MHz (seed {build.seed})."
        )
        sections.append(_Section("Build", origin, charts.build_charts(build)))
    return sections


def _errors(guess: Estimate) -> str:
    """How far each may be off, and the clock."""
    off = ", ".join(f"{entry.name} {f'+-{entry.error:g} %' if entry.error else 'exact'}" for entry in guess.resources)
    words = clock_words(guess)
    return f"Errors: {off}. {words[0].upper()}{words[1:]}."


def _time(facts: PageFacts) -> str:
    name = f"Cycle model, image {facts.names[0]}: share of cycles in which a unit works (array: a beat is under way)."
    sources = facts.sources
    if sources.clock_mhz is None or sources.baud is None:
        return name
    origin = "of the build" if sources.build else "computed for these rates, no build was given"
    return f"{name} Link: {sources.baud:,} baud and {sources.clock_mhz:g} MHz, {origin}."


def _uses(facts: PageFacts) -> Any:
    from .bars import COLOURS, Bars, bar_chart

    uses = facts.uses
    bars = Bars(
        title="Memories", unit="% used at any time", names=[use.resource for use in uses], most=100, number="0",
        values=[100 * use.used / use.available for use in uses],
        details=[f"{use.used:,} of {use.available:,}" for use in uses],
    )  # fmt: skip
    return bar_chart(bars, COLOURS[5])
