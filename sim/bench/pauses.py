"""Pause generators: one truth value per cycle, true where a side of a stream or a bus rests."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

__all__ = ["Pauses", "bursts", "independent", "mixed", "never"]

Pauses = Iterator[bool]


def never() -> Pauses:
    """Full speed."""
    return itertools.repeat(False)


def independent(rng: random.Random, chance: float) -> Pauses:
    """Rests in each cycle with that probability."""
    while True:
        yield rng.random() < chance


def bursts(rng: random.Random, longest: int) -> Pauses:
    """Runs of work and of rest, each 1 to ``longest`` cycles."""
    while True:
        yield from itertools.repeat(False, rng.randint(1, longest))
        yield from itertools.repeat(True, rng.randint(1, longest))


def mixed(rng: random.Random) -> Pauses:
    """Changes its manner every few dozen cycles: full speed, rare or frequent pauses, bursts."""
    while True:
        manner = rng.choice((never(), independent(rng, 0.1), independent(rng, 0.7), bursts(rng, 9)))
        yield from itertools.islice(manner, rng.randint(10, 60))
