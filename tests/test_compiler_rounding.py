"""Bias and threshold are rounded so that neurons fire, and codes change, as often too early as too late."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, WeightKind
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.graph import FoldedInput, FoldedLayer, FoldedMap, FoldedNetwork
from reverb_fpga.compiler.passes.quantise import quantise
from reverb_fpga.compiler.passes.rounding import exact_edges, grain_of, kept, rounded_biases, rounded_threshold
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


def _graph(rng: np.random.Generator, tau: float, steps: int, bits: int, *, strict: bool) -> FoldedNetwork:
    """Spikes of 0 and 1, then neurons that add an identity and a convolution, then ones that add two convolutions."""
    width = 24

    def leg(source: str, weight: np.ndarray, kind: WeightKind, number: int) -> FoldedMap:
        gain = rng.uniform(0.3, 1.5, width) / np.sqrt(np.sum(weight**2, axis=(1, 2, 3)))
        return FoldedMap(source, weight, kind, number, Geometry(), gain, rng.normal(size=width) / 2)

    def random(source: str) -> FoldedMap:
        if bits == 1:
            return leg(source, rng.choice([-1, 1], (width, width, 1, 1)), WeightKind.BINARY, 1)
        top = (1 << (bits - 1)) - 1
        return leg(source, rng.integers(-top, top + 1, (width, width, 1, 1)), WeightKind.MULTIBIT, bits)

    def same(source: str) -> FoldedMap:
        weight = np.eye(width, dtype=np.int64)[:, :, None, None]
        return FoldedMap(source, weight, WeightKind.UNIT, 1, Geometry(), np.ones(width), np.zeros(width))

    def layer(name: str, maps: tuple[FoldedMap, ...], *, spiking: bool = True) -> FoldedLayer:
        return FoldedLayer(name, maps, np.full(width, 0.5), tau, spiking, binary=spiking, timesteps=steps,
                           code_step=None, code_bits=None, strict=strict)  # fmt: skip

    zero = np.zeros(width)
    source = FoldedInput(1, 1, np.ones(width), zero, zero.astype(np.int64), zero)
    first = random(INPUT)
    first = dataclasses.replace(first, gain=first.gain / 60)
    layers = (
        layer("one", (first,)), layer("two", (same("one"), random("one"))),
        layer("three", (random("one"), random("two"))), layer("four", (random("three"),)),
        layer("out", (random("four"),), spiking=False),
    )  # fmt: skip
    return FoldedNetwork(source, layers, steps, static_input=False)


def _spikes(layer: FoldedLayer, held: dict[str, np.ndarray]) -> np.ndarray:
    """Of real numbers; tensors are (N, T, C)."""
    current = sum(held[leg.source] @ leg.weight[:, :, 0, 0].T * leg.gain + leg.bias for leg in layer.maps)
    membrane, fired = np.zeros_like(current[:, 0]), []
    for step in range(layer.timesteps):
        membrane = layer.tau * membrane + current[:, step]
        fired.append(membrane > layer.threshold if layer.strict else membrane >= layer.threshold)
        membrane = np.where(fired[-1], 0, membrane)
    return np.stack(fired, axis=1).astype(float)


@pytest.mark.parametrize(
    ("tau", "steps", "bits", "strict"),
    [
        (0.25, 2, 1, False), (0.5, 2, 1, True), (0.25, 1, 1, False), (0.0, 3, 1, False), (1.0, 2, 4, False),
        (0.25, 2, 4, False),
    ],
)  # fmt: skip
def test_binary_spikes_are_those_of_real_numbers(tau: float, steps: int, bits: int, strict: bool) -> None:
    """Not one of them falls the other way: gains are whole, leaks round nothing, bias and threshold move together."""
    rng = np.random.default_rng((int(100 * tau), steps, bits))
    network = _graph(rng, tau, steps, bits, strict=strict)
    config = preset("large")
    done = quantise(
        network, {layer.name: Step(1.0, 1, "binary spikes") for layer in network.layers[:-1]}, config
    ).network
    pixels = rng.integers(0, 256, (4000, steps, 1, 1, 24), dtype=np.uint8)
    found = evaluate(done, pixels, skip_width=config.skip_width)
    held = {INPUT: pixels[:, :, 0, 0].astype(float)}
    for number, layer in enumerate(network.layers[:-1]):
        held[layer.name] = _spikes(layer, held)
        assert 0.1 < held[layer.name].mean() < 0.9
        wrong = np.count_nonzero(found.codes[number][:, :, 0, 0] != held[layer.name])
        assert wrong == 0, f"{layer.name}: {wrong}"


def test_more_steps_than_can_be_exact_are_as_good_as_they_were() -> None:
    """A leak by 0.3 is no fraction of 256; ten steps of 1/4 take more bits than there are."""
    assert grain_of(0.3, 2) == 0
    assert grain_of(0.25, 10) == 0
    assert grain_of(0.3, 1) == grain_of(1.0, 8) == grain_of(0.0, 8) == 1
    assert (grain_of(0.25, 2), grain_of(0.5, 4)) == (4, 8)


@pytest.mark.parametrize(("tau", "steps"), [(0.25, 2), (0.5, 2), (0.5, 3), (0.25, 4), (1.0, 4)])
def test_edges_lie_between_the_same_two_currents(tau: float, steps: int) -> None:
    """Currents that are multiples of the grain: all of them fire as with the real bias and threshold."""
    rng = np.random.default_rng((int(100 * tau), steps))
    number, grain = 1000, grain_of(tau, steps)
    bias, threshold = rng.uniform(-3000, 3000, number), rng.uniform(4096, 9000, number)
    low, edge = exact_edges(bias, threshold, (tau, steps), grain=grain, strict=False)
    assert np.all(low == np.rint(low))
    assert np.all(low % grain == 0)
    assert np.abs(low - bias).max() < 17 * grain
    current = rng.integers(-4000, 4000, (300, steps, number)) * grain
    u, v, wrong = np.zeros((300, number)), np.zeros((300, number)), 0
    for step in range(steps):
        u, v = tau * u + current[:, step] + bias, np.floor(tau * v) + current[:, step] + low
        wrong += np.count_nonzero((u >= threshold) != (v >= edge))
        fired = u >= threshold
        u, v = np.where(fired, 0, u), np.where(fired, 0, v)
    assert wrong <= (0 if steps <= 2 else 1e-4 * 300 * number)
