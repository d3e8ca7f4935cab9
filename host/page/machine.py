"""What the page shows, for machines: `report --json`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .facts import PageFacts

__all__ = ["machine_facts"]


def machine_facts(facts: PageFacts) -> dict[str, Any]:
    """Of plain values that JSON has; what there is no source for, and what is not finite, is None.

    Returns
    -------
    dict
        The fields of ``ModelReport``, and ``clock_mhz``, ``images_per_second``, ``latency``, ``estimate``,
        ``images_named``, ``network``, ``memories``, ``memory``, ``precision``, ``timeline``, ``floating``, ``runs``,
        ``build``.
    """
    sources, late, clock = facts.sources, facts.latency, facts.sources.clock_mhz
    found: dict[str, Any] = dataclasses.asdict(facts.report) | {
        "clock_mhz": clock,
        "images_per_second": facts.report.images_per_second(clock) if clock else None,
        "latency": dataclasses.asdict(late) | {"total_us": late.total_us} if late else None,
        "estimate": _fields(sources.estimate),
        "images_named": facts.names,
        "network": [_fields(layer) for layer in facts.layers],
        "memories": [_fields(use) for use in facts.uses],
        "memory": _fields(facts.memory) | {"peak": facts.memory.peak},
        "precision": [_fields(layer) for layer in facts.precision],
        "timeline": _fields(facts.timeline),
        "floating": _fields(facts.floating),
        "runs": [_fields(run) for run in facts.runs],
        "build": _fields(sources.build),
    }
    return {name: _plain(value) for name, value in found.items()}


def _fields(value: Any) -> Any:
    return None if value is None else {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    """Lists, dicts, texts and finite numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(_fields(value))
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
