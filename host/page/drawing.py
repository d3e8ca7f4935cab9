"""The network as a picture: a box per layer from the image down, shortcuts at the side. SVG, every text escaped."""

from __future__ import annotations

from xml.etree import ElementTree

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import printable

from .graph import LayerFacts, Leg
from .text import shorten

__all__ = ["network_svg"]

_WIDTH, _BOX, _HEIGHT, _GAP = 360, 262, 46, 24
_LEFT = _WIDTH - _BOX - 4
_TRACK = 11  # between two shortcuts that run side by side
_NAME, _LINE = 20, 44  # characters that a box has room for


def network_svg(program: Program, layers: tuple[LayerFacts, ...]) -> str:
    """An ``svg`` element."""
    source = program.input
    height = (len(layers) + 1) * (_HEIGHT + _GAP)
    label = printable(f"The network {program.name}: {len(layers)} layers")
    svg = ElementTree.Element("svg", {"viewBox": f"0 0 {_WIDTH} {height}", "role": "img", "aria-label": label})
    shape = f"{source.channels}x{source.height}x{source.width}"
    _box(svg, 0, ("image", shape), "8 bit codes", "image")
    for number, layer in enumerate(layers):
        end = f"codes of {layer.code_bits} bit" if layer.code_bits else "logits"
        steps = f", T = {layer.timesteps}" if layer.timesteps > 1 else ""
        _box(svg, number + 1, (layer.name, "x".join(map(str, layer.shape))), f"{layer.legs[-1].what}; {end}{steps}", "")
    for number, layer in enumerate(layers):
        for place, leg in enumerate(layer.legs):
            _edge(svg, leg, number, shortcut=place < len(layer.legs) - 1)
    return ElementTree.tostring(svg, encoding="unicode")


def _top(place: int) -> int:
    return place * (_HEIGHT + _GAP) + 2


def _box(svg: ElementTree.Element, place: int, head: tuple[str, str], line: str, kind: str) -> None:
    top = _top(place)
    group = ElementTree.SubElement(svg, "g", {"class": f"box {kind}".strip()})
    size = {"x": str(_LEFT), "y": str(top), "width": str(_BOX), "height": str(_HEIGHT), "rx": "6"}
    ElementTree.SubElement(group, "rect", size)
    ElementTree.SubElement(group, "title").text = printable(f"{head[0]}, {head[1]}: {line}")
    for text, x, y, style, anchor in (
        (shorten(head[0], _NAME), _LEFT + 10, 19, "name", "start"),
        (head[1], _LEFT + _BOX - 10, 19, "shape", "end"),
        (shorten(line, _LINE), _LEFT + 10, 36, "line", "start"),
    ):
        place_of = {"x": str(x), "y": str(top + y), "class": style, "text-anchor": anchor}
        ElementTree.SubElement(group, "text", place_of).text = text


def _edge(svg: ElementTree.Element, leg: Leg, number: int, *, shortcut: bool) -> None:
    """From the box of a leg's source to that of layer `number`."""
    start, end = _top(leg.source + 1) + _HEIGHT, _top(number + 1)
    kind = "edge shortcut" if shortcut else "edge"
    group = ElementTree.SubElement(svg, "g", {"class": kind})
    ElementTree.SubElement(group, "title").text = f"{leg.what}{', gated' if leg.gate else ''}"
    if leg.source == number - 1 and not shortcut:
        x = _LEFT + _BOX // 2
        path, tip = f"M{x} {start}V{end - 2}", f"{x - 4},{end - 7} {x + 4},{end - 7} {x},{end}"
    else:
        near = _LEFT - 20 - _TRACK * (number % 4)
        start, end = start - 12, end + (12 if shortcut else 30)
        path = f"M{_LEFT} {start}H{near}V{end}H{_LEFT - 2}"
        tip = f"{_LEFT - 7},{end - 4} {_LEFT - 7},{end + 4} {_LEFT},{end}"
    ElementTree.SubElement(group, "path", {"d": path})
    ElementTree.SubElement(group, "polygon", {"points": tip})
