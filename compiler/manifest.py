"""``manifest.json`` of a program file, read from strangers: every field checked for presence, type and range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from reverb_fpga.compiler.program import INPUT_TENSOR, ArrayInput, InputTransform, LayerInfo, MapInfo
from reverb_fpga.compiler.upgrade import OLD_VERSION
from reverb_fpga.hw.contract import CONTRACT_VERSION, Gate
from reverb_fpga.hw.errors import InputError

__all__ = ["FORMAT_VERSION", "MAX_TEXT", "parse_manifest"]

FORMAT_VERSION = 2
MAX_TEXT = 200
"""Characters of a name or a label."""
_READABLE = (1, FORMAT_VERSION)

_KEYS = (
    "format", "version", "contract", "name", "arch", "system", "dataset", "timesteps", "accuracy", "labels",
    "logit_scale", "input", "layers", "target", "sections",
)  # fmt: skip
_SECTIONS = ("desc", "slot", "param", "weight", "act", "count")
_MAX_SIDE = 4096
_MAX_LAYERS = 256
_MAX_MAPS = 16
_HEX = re.compile(r"[0-9a-f]+")

T = TypeVar("T")


def _fail(where: str, what: str) -> InputError:
    return InputError(f"manifest: {where}: {what}")


def _table(value: object, where: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise _fail(where, f"expected an object with the fields {', '.join(keys)}")
    return value


def _integer(value: object, where: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _fail(where, f"expected an integer in {low}..{high}, got {value!r:.60}")
    return value


def _number(value: object, where: str, low: float = -1e12, high: float = 1e12) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise _fail(where, f"expected a finite number in {low:g}..{high:g}, got {value!r:.60}")
    return float(value)  # type: ignore[arg-type]


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _fail(where, f"expected true or false, got {value!r:.60}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise _fail(where, f"expected printable text of 1..{MAX_TEXT} characters, got {value!r:.60}")
    return value


def _hex(value: object, where: str, digits: int) -> str:
    if not isinstance(value, str) or len(value) != digits or not _HEX.fullmatch(value):
        raise _fail(where, f"expected {digits} hexadecimal digits, got {value!r:.60}")
    return value


def _list(value: object, where: str, low: int, high: int, item: Callable[[Any, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list) or not low <= len(value) <= high:
        raise _fail(where, f"expected a list of {low}..{high} entries, got {value!r:.60}")
    return tuple(item(entry, f"{where}[{index}]") for index, entry in enumerate(value))


def _input(value: object) -> InputTransform:
    keys: tuple[str, ...] = ("channels", "height", "width", "scale", "offset", "invert")
    table = _table(value, "input", (*keys, "array") if isinstance(value, dict) and "array" in value else keys)
    channels = _integer(table["channels"], "input.channels", 1, 4096)
    return InputTransform(
        channels=channels,
        height=_integer(table["height"], "input.height", 1, _MAX_SIDE),
        width=_integer(table["width"], "input.width", 1, _MAX_SIDE),
        scale=_list(table["scale"], "input.scale", channels, channels, _number),
        offset=_list(table["offset"], "input.offset", channels, channels, _number),
        invert=_boolean(table["invert"], "input.invert"),
        array=_array(table["array"], math.prod((channels, table["height"], table["width"])))
        if "array" in table
        else None,
    )


def _array(value: object, size: int) -> ArrayInput:
    where = "input.array"
    table = _table(value, where, ("shape", "scale", "offset"))
    shape = _list(table["shape"], f"{where}.shape", 1, 3, lambda entry, at: _integer(entry, at, 1, 1 << 20))
    if len(shape) == 2 or math.prod(shape) != size:
        raise _fail(f"{where}.shape", f"{shape} is not what the program reads, {size} numbers")
    channels = shape[0] if len(shape) == 3 else 1
    return ArrayInput(
        shape=shape,
        scale=_list(table["scale"], f"{where}.scale", channels, channels, _number),
        offset=_list(table["offset"], f"{where}.offset", channels, channels, _number),
    )


def _strip(value: object, where: str) -> tuple[int, int, int]:
    numbers = _list(value, where, 3, 3, lambda entry, at: _integer(entry, at, 0, 1 << 16))
    return numbers[0], numbers[1], numbers[2]


def _map(value: object, where: str) -> MapInfo:
    table = _table(value, where, ("source", "additions", "gate"))
    return MapInfo(
        source=_integer(table["source"], f"{where}.source", INPUT_TENSOR, _MAX_LAYERS - 1),
        additions=_integer(table["additions"], f"{where}.additions", 0, 1 << 48),
        gate=_integer(table["gate"], f"{where}.gate", 0, max(Gate)),
    )


def _layer(value: object, where: str) -> LayerInfo:
    keys: tuple[str, ...] = ("name", "shape", "timesteps", "spiking", "strips", "maps")
    table = _table(value, where, (*keys, "order") if isinstance(value, dict) and "order" in value else keys)
    shape = _list(table["shape"], f"{where}.shape", 3, 3, lambda entry, at: _integer(entry, at, 1, 1 << 16))
    maps = _list(table["maps"], f"{where}.maps", 1, _MAX_MAPS, _map)
    if not any(leg.additions for leg in maps):  # a report divides by them
        raise _fail(f"{where}.maps", "a layer without additions")
    spiking = _boolean(table["spiking"], f"{where}.spiking")
    if "order" in table and not spiking:
        raise _fail(f"{where}.order", "logits have an order of their own")
    return LayerInfo(
        name=_text(table["name"], f"{where}.name"),
        shape=(shape[0], shape[1], shape[2]),
        timesteps=_integer(table["timesteps"], f"{where}.timesteps", 1, 31),
        spiking=spiking,
        strips=_list(table["strips"], f"{where}.strips", 1, 1 << 16, _strip),
        maps=maps,
        order=_order(table["order"], f"{where}.order", shape[0]) if "order" in table else None,
    )


def _order(value: object, where: str, channels: int) -> tuple[int, ...]:
    order = _list(value, where, channels, channels, lambda entry, at: _integer(entry, at, 0, channels - 1))
    if len(set(order)) < channels:
        raise _fail(where, "a channel twice")
    return order


def _chained(value: object, position: int) -> object:
    """A layer of version 1, where every layer read the one before it, as one of this version."""
    if not isinstance(value, dict) or "additions" not in value:
        return value
    rest = {key: entry for key, entry in value.items() if key != "additions"}
    return {**rest, "maps": [{"source": position - 1, "additions": value["additions"], "gate": 0}]}


def _section(value: object, where: str) -> tuple[int, str]:
    table = _table(value, where, ("words", "sha256"))
    return _integer(table["words"], f"{where}.words", 0, 1 << 20), _hex(table["sha256"], f"{where}.sha256", 64)


def parse_manifest(value: object) -> dict[str, Any]:
    """Arguments of :class:`~reverb_fpga.compiler.program.Program` but for the sections.

    ``sections`` maps each section to its (words, SHA-256), ``contract`` is the version it was compiled for.

    Raises
    ------
    InputError
        Another format or version, or a field that is missing, unknown, mistyped or out of range; names it.
    """
    if not isinstance(value, dict) or value.get("format") != "reverb-fpga program":
        raise InputError("not a reverb-fpga program")
    for field, known in (("version", _READABLE), ("contract", (OLD_VERSION, CONTRACT_VERSION))):
        if type(value.get(field)) is not int or value[field] not in known:
            readable = " and ".join(map(str, known))
            raise InputError(
                f"program file of {field} {value.get(field)!r:.20}, this release reads {readable}; compile it again"
            )
    table = _table(value, "top level", _KEYS)
    layers = table["layers"]
    if value["version"] == 1 and isinstance(layers, list):
        layers = [_chained(layer, position) for position, layer in enumerate(layers)]
    target = _table(table["target"], "target", ("name", "digest"))
    sections = _table(table["sections"], "sections", _SECTIONS)
    return {
        "contract": table["contract"],
        **{field: _text(table[field], field) for field in ("name", "arch", "system", "dataset")},
        "timesteps": _integer(table["timesteps"], "timesteps", 1, 31),
        "accuracy": None if table["accuracy"] is None else _number(table["accuracy"], "accuracy", 0, 100),
        "labels": _list(table["labels"], "labels", 1, 2048, _text),
        "logit_scale": _number(table["logit_scale"], "logit_scale"),
        "input": _input(table["input"]),
        "layers": _list(layers, "layers", 1, _MAX_LAYERS, _layer),
        "config_name": _text(target["name"], "target.name"),
        "config_digest": int(_hex(target["digest"], "target.digest", 16), 16),
        "sections": {name: _section(sections[name], f"sections.{name}") for name in _SECTIONS},
    }
