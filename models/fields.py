"""Checks of single fields of a description that may come from a stranger: each raises InputError naming the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reverb_fpga.hw.errors import InputError

__all__ = ["boolean", "choice", "integer", "number", "pair", "require", "table", "text", "tuple_of"]


def require(ok: bool, where: str, what: str) -> None:
    """Raise InputError with the path of the field unless `ok`."""
    if not ok:
        raise InputError(f"network description: {where}: {what}")


def integer(value: object, where: str, low: int, high: int) -> int:
    """An int (no bool) in `low` .. `high`."""
    ok = not isinstance(value, bool) and isinstance(value, int) and low <= value <= high
    require(ok, where, f"expected an integer in {low}..{high}, got {value!r:.80}")
    assert isinstance(value, int)
    return value


def number(value: object, where: str, low: float, high: float) -> float:
    """A finite number in `low` .. `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"network description: {where}: expected a number, got {value!r:.80}")
    ok = low <= value <= high and math.isfinite(value)
    require(ok, where, f"expected a finite number in {low:g}..{high:g}, got {value!r:.80}")
    return float(value)


def boolean(value: object, where: str) -> None:
    """True or false."""
    require(isinstance(value, bool), where, f"expected true or false, got {value!r:.80}")


def text(value: object, where: str, limit: int = 200) -> None:
    """Printable text of 1 .. `limit` characters."""
    ok = isinstance(value, str) and 0 < len(value) <= limit and value.isprintable()
    require(ok, where, f"expected printable text of 1..{limit} characters, got {value!r:.80}")


def choice(value: object, where: str, allowed: Sequence[str]) -> None:
    """One of the texts `allowed`."""
    ok = isinstance(value, str) and value in allowed
    require(ok, where, f"expected one of {', '.join(allowed)}, got {value!r:.80}")


def pair(value: object, where: str, low: int, high: int) -> tuple[int, int]:
    """Two integers, (height, width), each in `low` .. `high`."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise InputError(f"network description: {where}: expected [height, width], got {value!r:.80}")
    return integer(value[0], where, low, high), integer(value[1], where, low, high)


def table(value: object, where: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """A JSON object with exactly these keys."""
    if not isinstance(value, dict):
        raise InputError(f"network description: {where}: expected an object, got {value!r:.80}")
    missing = [key for key in keys if key not in value]
    require(not missing, where, f"lacks {', '.join(missing)}")
    extra = [str(key)[:40] for key in value if key not in keys]
    require(not extra, where, f"has unknown fields: {', '.join(extra[:5])}")
    return value


def tuple_of(value: object, where: str, low: int, high: int) -> tuple[Any, ...]:
    """A JSON list of `low` .. `high` entries."""
    if not isinstance(value, list | tuple) or not low <= len(value) <= high:
        raise InputError(f"network description: {where}: expected a list of {low}..{high} entries, got {value!r:.80}")
    return tuple(value)
