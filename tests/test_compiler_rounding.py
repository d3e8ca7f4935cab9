"""Bias and threshold are rounded so that neurons fire, and codes change, as often too early as too late."""

from __future__ import annotations

import numpy as np
import pytest

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, WeightKind
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.graph import FoldedInput, FoldedLayer, FoldedMap, FoldedNetwork
from reverb_fpga.compiler.passes.quantise import quantise
from reverb_fpga.compiler.passes.rounding import kept, rounded_biases, rounded_threshold
from reverb_fpga.compiler.reference import evaluate
from reverb_fpga.hw.config import preset

CHANNELS = 2000


def _compared(tau_q: int, steps: int, *, nearest: bool = False, whole: bool = False) -> tuple[float, float]:
    """Shares of the codes that come too high and too low, of random currents, biases and thresholds."""
    rng = np.random.default_rng((tau_q, steps))
    bias, threshold = rng.uniform(-300, 300, CHANNELS), rng.uniform(0, 600, CHANNELS)
    has = kept(tau_q, steps)
    (rounded,) = rounded_biases([bias], has.aim)
    edge = rounded_threshold(threshold, rounded - bias, has, strict=False)
    if nearest:
        rounded, edge = np.rint(bias), np.rint(threshold)
    u, v = np.zeros((2, 200, CHANNELS))
    high = low = 0.0
    for _ in range(steps):
        current = rng.uniform(-3000, 3000, u.shape)
        current = np.rint(current) if whole else current
        u, v = u * tau_q / 256 + current + bias, np.floor(v * tau_q / 256) + np.rint(current) + rounded
        code = np.where(u >= threshold, np.floor(u / 256 + 0.5).clip(0, 255), 0)
        found = np.where(v >= edge, np.floor(v / 256 + 0.5).clip(0, 255), 0)
        high, low = high + float(np.mean(found > code)), low + float(np.mean(found < code))
        fired = (u >= threshold) & (v >= edge)
        u, v = np.where(fired, 0, u), np.where(fired, 0, v)
    return high / steps, low / steps


@pytest.mark.parametrize(("tau_q", "steps"), [(0, 1), (0, 4), (64, 2), (128, 2), (128, 4), (256, 2), (256, 8)])
def test_codes_are_as_often_too_high_as_too_low(tau_q: int, steps: int) -> None:
    high, low = _compared(tau_q, steps)
    plain = _compared(tau_q, steps, nearest=True)  # nearly all of them too high
    shares = [f"{100 * share:.3f} %" for share in (*plain, high, low)]
    print(f"tau {tau_q}/256, {steps} steps, to the nearest {' and '.join(shares[:2])} of the codes too high and "
          f"too low; as it is {' and '.join(shares[2:])}")  # fmt: skip
    assert abs(high - low) < 0.4 * (high + low)
    assert high + low < 0.85 * sum(plain)


def test_what_is_exact_stays_exact() -> None:
    assert _compared(0, 1, whole=True) == (0, 0)
    whole = np.array([5.0, -3.0, 0.0])
    for tau_q, steps in ((0, 1), (128, 4), (256, 8)):
        found = rounded_biases([whole - 0.25, np.full(3, 0.25 - 1e-10)], kept(tau_q, steps).aim)
        np.testing.assert_array_equal(sum(found), whole)
    none, has = np.zeros(3), kept(256, 8)
    np.testing.assert_array_equal(rounded_threshold(whole + 1e-10, none, has, strict=False), whole)
    np.testing.assert_array_equal(rounded_threshold(whole - 1e-10, none, has, strict=True), whole + 1)


def test_a_rounded_gain_is_right_where_the_potential_is_zero() -> None:
    """Far from a current of 0, as pixels are: there the rounding of m alone would be worth several units."""
    rng = np.random.default_rng(0)
    number, sources, step = 64, 64, 0.02
    gain = step / 256 * np.exp(rng.uniform(np.log(0.05), np.log(2), number))
    weight = np.ones((number, sources, 1, 1), dtype=np.int64)
    bias = -gain * rng.integers(120, 135, number) * sources
    none = np.zeros(number)

    def layer(name: str, source: str, leg: tuple, *, spiking: bool) -> FoldedLayer:
        own = FoldedMap(source, leg[0], WeightKind.BINARY, 1, Geometry(), leg[1], leg[2])
        return FoldedLayer(name, (own,), threshold=none[: len(leg[1])], tau=0.25, spiking=spiking, binary=False,
                           timesteps=1, code_step=None, code_bits=None)  # fmt: skip

    last = (np.ones((2, number, 1, 1), dtype=np.int64), np.ones(2), np.zeros(2))
    zero = np.zeros(sources)
    network = FoldedNetwork(
        FoldedInput(1, 1, np.ones(sources), zero, zero.astype(np.int64), zero),
        (layer("one", INPUT, (weight, gain, bias), spiking=True), layer("two", "one", last, spiking=False)), 1, True,
    )  # fmt: skip
    done = quantise(network, {"one": Step(step, 8, "training")}, preset("tiny")).network
    pixels = rng.integers(100, 150, (4000, 1, 1, 1, sources), dtype=np.uint8)
    found = evaluate(done, pixels).codes[0].reshape(-1, number)
    real = (pixels.reshape(-1, sources).sum(axis=1, dtype=np.int64)[:, None] * gain + bias) / step
    wanted = np.floor(real + 0.5).clip(0, 255)
    edge = 256 * np.abs(real + 0.5 - np.rint(real + 0.5))
    assert np.count_nonzero(found != wanted) > 0
    assert edge[found != wanted].max() < 0.6
