"""One channel does not take everybody's bits; and where it must, the compiler says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntLayer, WeightKind
from reverb_fpga.compiler.passes.calibrate import Step
from reverb_fpga.compiler.passes.graph import FoldedInput, FoldedLayer, FoldedMap, FoldedNetwork
from reverb_fpga.compiler.passes.precision import Channels, flattened, measure, needed_gain, silent, turned
from reverb_fpga.compiler.passes.quantise import quantise
from reverb_fpga.hw.config import preset

LIMIT = float((1 << 23) - 1)
FULL = (255 << 8) - 128


def _channels(rng: np.random.Generator, number: int) -> Channels:
    """Ordinary and wild ones; currents of -40..40."""
    gain = np.exp(rng.uniform(0, 16, number))
    bias = rng.normal(0, 30_000, number) * rng.integers(0, 2, number)
    threshold = rng.choice([0.0, 500.0, 70_000.0, -3000.0], number)
    return Channels(gain, bias, threshold, -40 * gain, 40 * gain)


def _codes(channels: Channels, z: np.ndarray) -> np.ndarray:
    """Codes (currents, channels) of one step, roundings included."""
    u = np.floor(z[:, None] * channels.gain + 0.5) + np.rint(channels.bias)
    code = np.clip(np.floor((u + 128) / 256), 0, 255)
    return np.where(u >= np.rint(channels.threshold), code, 0)


def test_less_gain_gives_the_same_codes() -> None:
    rng = np.random.default_rng(0)
    channels = _channels(rng, 4000)
    less = needed_gain(channels, FULL, 1, LIMIT)
    wild = less < channels.gain
    assert np.count_nonzero(wild) > 1000
    z = np.arange(-40, 41)
    wanted = _codes(channels, z)
    np.testing.assert_array_equal(_codes(turned(channels, less), z), wanted)
    rounded = _codes(turned(channels, np.rint(less)), z)  # as coarse as m may be
    np.testing.assert_array_equal(rounded[:, wild], wanted[:, wild])


def test_a_constant_channel_keeps_its_value_when_its_jump_is_flattened() -> None:
    """Far from 0, as a normalisation of variance 0 leaves it: 97 units of current are a potential of 5000."""
    gain = np.array([60_000.0, 10.0, 12.0, 14.0])
    bias = np.array([5000 - 97 * 60_000.0, 0, 0, 0])
    reach = 8000 * gain
    channels = Channels(gain, bias, np.zeros(4), -reach, reach)
    cut, units = flattened(gain, reach, FULL, 65535.0)
    assert units > 2
    assert cut.tolist() == [FULL / units, 10.0, 12.0, 14.0]
    now = turned(channels, cut)
    assert now.gain[0] * 97 + now.bias[0] == pytest.approx(5000)
    left = measure(np.floor(cut * 2 ** np.floor(np.log2(65535 / cut[0]))).astype(np.int64), reach, FULL)
    assert left.worst <= 2.0
    far = np.array([97 - units, 97 + units])
    np.testing.assert_array_equal(_codes(now, far)[:, 0], _codes(channels, far)[:, 0])
    assert flattened(gain[1:], reach[1:], FULL, 65535.0)[1] == 1


def test_less_gain_saturates_as_before_where_potentials_are_kept() -> None:
    gain = np.array([1e9, 1e4])
    less = needed_gain(Channels(gain, gain * 0, gain * 0, -gain, gain), FULL, 2, LIMIT)
    assert less[0] < 2e7
    assert less[0] > LIMIT
    assert less[1] == gain[1]


def test_silent_channels_never_fire() -> None:
    rng = np.random.default_rng(1)
    channels = _channels(rng, 4000)
    channels = dataclasses.replace(channels, bias=channels.bias - 1e5 * rng.integers(0, 2, 4000))
    dead = silent(channels, 1)
    assert 50 < np.count_nonzero(dead) < 2000
    potentials = np.arange(-40, 41)[:, None] * channels.gain + channels.bias
    np.testing.assert_array_equal(dead, (potentials < channels.threshold).all(axis=0))
    assert not (silent(channels, 3) & ~dead).any()


def test_a_channel_without_current_needs_no_gain() -> None:
    none = np.zeros(2)
    channels = Channels(np.array([1e6, 10.0]), none, none, np.array([0.0, -5.0]), np.array([0.0, 5.0]))
    assert needed_gain(channels, FULL, 1, LIMIT).tolist() == [0.0, 10.0]


def test_little_precision_is_told() -> None:
    reach = np.full(4, 60_000.0)
    fine = measure(np.array([40_000, 30_000, 20_000, 0]), reach, FULL)
    assert fine.note("conv1") is None
    poor = measure(np.array([60_000, 20, 30, 25]), reach, FULL)
    note = poor.note("conv1")
    assert note is not None
    assert note.startswith("layer conv1: one gain is 2182 times the median, which leaves 3 of 4 channels less")
    assert poor.worst == pytest.approx(255 * 60_000 / FULL * 0.5 / 20)


def _first_layer(legs: list[tuple[np.ndarray, np.ndarray]]) -> IntLayer:
    """What becomes of a layer that is the sum of maps of these gains and biases, (8,) each."""
    rng = np.random.default_rng(2)

    def layer(name: str, source: str, shape: tuple[int, ...], parts: list, *, spiking: bool) -> FoldedLayer:
        weights = [rng.choice([-1, 1], shape) for _ in parts]
        for weight in weights:
            weight[3:4] = 1
        maps = tuple(
            FoldedMap(source, weight, WeightKind.BINARY, 1, Geometry(), gain, bias)
            for weight, (gain, bias) in zip(weights, parts, strict=True)
        )
        return FoldedLayer(
            name, maps, threshold=np.zeros(shape[0]), tau=0.25, spiking=spiking, binary=False, timesteps=1,
            code_step=None, code_bits=None,
        )  # fmt: skip

    first = layer("first", INPUT, (8, 4, 3, 3), legs, spiking=True)
    last = layer("last", "first", (3, 8, 1, 1), [(np.full(3, 0.1), np.zeros(3))], spiking=False)
    source = FoldedInput(3, 3, np.ones(4), np.zeros(4), np.zeros(4, dtype=np.int64), np.zeros(4))
    network = FoldedNetwork(source, (first, last), 1, True)
    return quantise(network, {"first": Step(0.02, 8, "training")}, preset("tiny")).network.layers[0]


def test_a_silent_channel_of_several_maps_takes_no_bits() -> None:
    """Its potential is below the threshold whatever both maps bring: 36 sources of 255 codes each."""
    gain, none = np.full(8, 0.001), np.zeros(8)
    wild, low = gain.copy(), none.copy()
    wild[3] *= 30
    low[3] = -36 * 255 * (wild[3] + gain[3]) - 0.1
    tame = _first_layer([(gain, none), (gain, none)])
    done = _first_layer([(wild, none), (gain, low)])
    for leg, usual in zip(done.maps, tame.maps, strict=True):
        others = np.arange(8) != 3
        np.testing.assert_array_equal(leg.gain[others], usual.gain[others])
        assert (leg.gain[3], leg.bias[3], leg.r_shift) == (0, 0, usual.r_shift)
    assert done.threshold[3] == (1 << 23) - 1
    # one unit more, and it may fire
    low[3] += 0.2
    fires = _first_layer([(wild, none), (gain, low)])
    assert fires.maps[0].gain[3] > 0
    assert fires.maps[0].r_shift < tame.maps[0].r_shift


def test_one_wild_channel_leaves_the_others_their_bits() -> None:
    """A normalisation of variance 0: 30,000 times the gain of its neighbours."""
    rng = np.random.default_rng(2)

    def layer(name: str, source: str, shape: tuple[int, ...], gain: np.ndarray, *, spiking: bool) -> FoldedLayer:
        none = np.zeros(len(gain))
        leg = FoldedMap(source, rng.choice([-1, 1], shape), WeightKind.BINARY, 1, Geometry(), gain, none)
        return FoldedLayer(
            name,
            (leg,),
            threshold=none,
            tau=0.25,
            spiking=spiking,
            binary=False,
            timesteps=1,
            code_step=None,
            code_bits=None,
        )

    def network(wild: float) -> FoldedNetwork:
        gain = np.full(8, 0.01)
        gain[3] *= wild
        first = layer("first", INPUT, (8, 4, 3, 3), gain, spiking=True)
        last = layer("last", "first", (3, 8, 1, 1), np.full(3, 0.1), spiking=False)
        source = FoldedInput(3, 3, np.ones(4), np.zeros(4), np.zeros(4, dtype=np.int64), np.zeros(4))
        return FoldedNetwork(source, (first, last), 1, True)

    step = {"first": Step(0.02, 8, "training")}
    tame, wild = (quantise(network(factor), step, preset("tiny")) for factor in (1.0, 30_000.0))
    tame_bits, wild_bits = (np.log2(np.median(done.network.layers[0].maps[0].gain)) for done in (tame, wild))
    assert tame_bits >= 15
    assert wild_bits > 15 - 9  # 128 units each against 65280 that are enough; it could not even be compiled
    assert not any("gain is" in note for note in tame.notes)
    assert any(note.startswith("layer first: one gain is") for note in wild.notes)
