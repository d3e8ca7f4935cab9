"""Mean, deviation, and Welch's t-test of two small samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of the sample (n - 1); 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def p_value(one: Sequence[float], two: Sequence[float]) -> float:
    """Two-sided probability that samples of equal means lie at least so far apart.

    Variances may differ. NaN for fewer than two values on a side; where neither side varies, 1 if they are equal,
    else 0.
    """
    if len(one) < 2 or len(two) < 2:
        return math.nan
    a, b = statistics.variance(one) / len(one), statistics.variance(two) / len(two)
    gap = abs(statistics.fmean(one) - statistics.fmean(two))
    if a + b == 0:
        return float(gap == 0)
    freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(two) - 1))
    return _both_tails(gap / math.sqrt(a + b), freedom)


def _both_tails(t: float, freedom: float) -> float:
    """With x = sqrt(freedom) * tan(angle), Student's density is cos(angle) ** (freedom - 1), up to a constant."""
    start = math.atan(t / math.sqrt(freedom))

    def area(low: float) -> float:
        angles = np.linspace(low, math.pi / 2, 20_001)
        return float(np.trapezoid(np.cos(angles).clip(0) ** (freedom - 1), angles))

    return area(start) / area(0.0)
