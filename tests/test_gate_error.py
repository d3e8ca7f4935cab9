"""AGMM: the integer gate against the gate that was trained, on the same currents."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler import reference  # noqa: E402
from reverb_fpga.compiler.backend import lower  # noqa: E402
from reverb_fpga.compiler.geometry import Geometry  # noqa: E402
from reverb_fpga.compiler.intnet import WeightKind  # noqa: E402
from reverb_fpga.compiler.passes.calibrate import calibrate  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.gating import sum_of  # noqa: E402
from reverb_fpga.compiler.passes.graph import FloatNetwork, FoldedGate, FoldedMap  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.quantise import quantise  # noqa: E402
from reverb_fpga.compiler.testing import plain_meta  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import (  # noqa: E402
    EVENTS,
    GateSpec,
    InputSpec,
    LayerSpec,
    NetworkSpec,
    NeuronSpec,
    TensorSpec,
    WeightSpec,
)
from reverb_fpga.models.gate import rounded_sigmoid  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402
from reverb_fpga.sim.golden import GoldenModel  # noqa: E402

NETWORKS = 60
CONFIG = dataclasses.replace(
    preset("tiny"), name="roomy", table_entries=256, act_words=65536, count_words=16384, skip_words=4096
)
# the argument is cut to a sixteenth and taken in its middle: half of one times the steepest slope, a quarter; the gate
# is rounded to a 256th; the rest is what the sum rounds at every position
_BOUND = (1 / 32) / 4 + 1 / 512 + 0.002


def _network(seed: int) -> Network:
    """One gated convolution between the first and the last layer; factors from a tenth to eight."""
    rng = np.random.default_rng((seed, 5))
    steps, side, channels = int(rng.integers(1, 5)), int(rng.integers(3, 13)), int(rng.integers(2, 9))
    neuron = NeuronSpec(0.25, 0.5)
    conv = {"kernel": (3, 3), "padding": (1, 1), "neuron": neuron}
    layers = (
        LayerSpec("one", "conv", "input", 2, 6, weight=WeightSpec("multibit", 8), **conv),
        LayerSpec("two", "conv", "one", 6, channels, weight=WeightSpec("scaled"), gate=GateSpec(), **conv),
        LayerSpec("three", "conv", "two", channels, 4, weight=WeightSpec("scaled"),
                  **conv | {"kernel": (side, side), "padding": (0, 0)}),
        LayerSpec("fc", "linear", "three", 4, 3, weight=WeightSpec("multibit", 8), bias=True, bn="none"),
    )  # fmt: skip
    source = InputSpec(2, side, side, (120, 90), (60.0, 60.0))
    tensors = tuple(TensorSpec(layer.name, 1) for layer in layers[:-1])
    spec = NetworkSpec("gated", "agmm-bsnn", EVENTS, tuple("abc"), source, steps, tensors, layers)
    network = randomise(Network(spec), seed)
    with torch.no_grad():
        _normalise(network, torch.from_numpy(_pixels(spec, seed + 1000)))
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], steps))
        network.layer("two").gate.copy_(signs * torch.from_numpy(rng.uniform(0.1, 8, steps)))
    return network


def _pixels(spec: NetworkSpec, seed: int) -> np.ndarray:
    shape = (4, spec.timesteps, 2, spec.input.height, spec.input.width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _normalise(network: Network, pixels: torch.Tensor) -> None:
    """Normalisation has the statistics of its currents, as after training."""
    for layer in network.stages():
        if layer.bn is not None:
            layer.bn.momentum = None
    network.train()
    network(pixels)
    network.eval()


def _imported(network: Network) -> FloatNetwork:
    state, spec = network.state_dict(), network.spec
    checkpoint = Checkpoint(spec, {name: state[name].numpy() for name in spec.tensor_shapes()})
    return import_checkpoint(checkpoint, static_input=False)


def gates(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer gates, 0..256, and the arguments of the trained ones, (N, T, C), of the program's own currents."""
    network = _network(seed)
    spec, graph = network.spec, _imported(network)
    folded = fold(graph)
    steps = calibrate(graph, folded, None)
    done = quantise(folded, steps, CONFIG).network
    codes = np.ascontiguousarray(_pixels(spec, seed).transpose(0, 1, 3, 4, 2))
    found = reference.evaluate(done, codes)
    np.testing.assert_array_equal(
        GoldenModel(lower(done, CONFIG, plain_meta(done)), CONFIG).run(codes), found.logits
    )  # these are the gates of the program
    at = done.index("two")
    own, gate, z = folded.layers[at].maps[-1], folded.layers[at].gate, found.currents[at]
    integer = done.layers[at].gate
    assert gate is not None
    assert integer is not None
    current = z * (own.gain * steps[own.source].step) + own.bias
    mean = current.mean(axis=(2, 3)) * gate.scale
    got = np.stack([reference.gates(integer, z[:, t], t) for t in range(spec.timesteps)], axis=1)
    return got, gate.factor[:, None] * mean


@pytest.fixture(scope="module")
def found() -> tuple[np.ndarray, np.ndarray]:
    """Those of all networks."""
    every = [gates(seed) for seed in range(NETWORKS)]
    got, arguments = (np.concatenate([pair[part].ravel() for pair in every]) for part in range(2))
    return got, arguments


def test_the_integer_gate_is_the_trained_one_but_for_its_rounding(found: tuple[np.ndarray, np.ndarray]) -> None:
    got, arguments = found
    errors = got / 256 - 1 / (1 + np.exp(-arguments))
    print(f"{NETWORKS} networks, {len(got):,} gates: largest error {np.abs(errors).max():.4f}, "
          f"mean {np.abs(errors).mean():.4f}, bias {errors.mean():+.4f}")  # fmt: skip
    assert np.abs(errors).max() < _BOUND
    assert np.abs(errors.mean()) < 0.001


def test_the_gate_in_training_is_the_integer_gate_but_for_the_sum(found: tuple[np.ndarray, np.ndarray]) -> None:
    """What training cannot know is the unit of the sum: it matters where an argument is next to a sixteenth."""
    got, arguments = found
    rounded = 256 * rounded_sigmoid(torch.from_numpy(arguments)).numpy()
    others = rounded != got
    border = np.abs(16 * arguments - np.rint(16 * arguments))
    print(f"{100 * others.mean():.2f} % of {len(got):,} gates are others, by {np.abs(rounded - got).max():.0f}/256 at "
          f"most, within {border[others].max():.3f} sixteenths of a border")  # fmt: skip
    assert others.mean() < 0.05
    assert np.abs(rounded - got).max() <= 4  # a sixteenth where the sigmoid is steepest
    assert border[others].max() < 16 * 4 * 0.002  # what the bound above grants the sum, a gate being a quarter steep


def test_the_gradient_of_a_rounded_gate_is_that_of_the_sigmoid() -> None:
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64, requires_grad=True)
    gate = rounded_sigmoid(x)
    steps = np.clip(np.floor(16 * x.detach().numpy()), -128, 127)
    np.testing.assert_array_equal(256 * gate.detach().numpy(), np.floor(256 / (1 + np.exp(-(steps + 0.5) / 16)) + 0.5))
    weight = torch.rand(len(x), dtype=torch.float64)
    (grad,) = torch.autograd.grad((weight * gate).sum(), x)
    (wanted,) = torch.autograd.grad((weight * torch.sigmoid(x)).sum(), x)
    torch.testing.assert_close(grad, wanted)
    assert torch.isnan(rounded_sigmoid(torch.tensor([float("nan"), 1.0]))).tolist() == [True, False]


def test_rounding_reaches_gates_and_their_factors_learn() -> None:
    network = _network(0)
    pixels = torch.randint(0, 256, (4, network.spec.timesteps, *network.spec.input.shape))
    layer = network.layer("two")
    logits = {}
    for on in (True, False):
        network.set_quantised(on)
        logits[on] = network(pixels)
        (grad,) = torch.autograd.grad(logits[on].square().sum(), layer.gate)
        assert torch.isfinite(grad).all()
        assert (grad != 0).any()
    assert network.spec.rounds  # for its gates alone: its spikes are 0 and 1
    current = torch.rand(network.spec.timesteps, 2, layer.spec.out_channels, 3, 3)
    with torch.no_grad():
        network.set_quantised(True)
        factors = layer._gated(current, layer.gate) / current * 256
        assert torch.allclose(factors, factors.round(), atol=1e-3)
        network.set_quantised(False)
        factors = layer._gated(current, layer.gate) / current * 256
        assert not torch.allclose(factors, factors.round(), atol=1e-3)


def test_a_gated_layer_without_any_current_compiles() -> None:
    """Its mean has no reach to take a unit from."""
    network = _network(1)
    with torch.no_grad():
        norm = network.layer("two").bn
        assert isinstance(norm, torch.nn.BatchNorm2d)
        norm.weight.zero_()
        norm.bias.zero_()
    graph = _imported(network)
    folded = fold(graph)
    done = quantise(folded, calibrate(graph, folded, None), CONFIG).network
    assert done.layers[done.index("two")].maps[-1].gain.max() == 0
    codes = np.full((1, network.spec.timesteps, network.spec.input.height, network.spec.input.width, 2), 200, np.uint8)
    found = reference.evaluate(done, codes).logits
    np.testing.assert_array_equal(GoldenModel(lower(done, CONFIG, plain_meta(done)), CONFIG).run(codes), found)


def test_channels_without_current_keep_their_gain() -> None:
    """A bias that rounds by more than all of its current is nothing that a gain could make up for."""
    channels = 2
    weight = np.ones((channels, 1, 1, 1), dtype=np.int64)
    own = FoldedMap("one", weight, WeightKind.BINARY, 1, Geometry(), np.array([1.0, 1e-9]), np.array([0.4, 3.3e-6]))
    gate = FoldedGate(np.array([0.5]), np.ones(channels), 64, 3.0, np.array([0.4, 3.4e-6]), np.array([1.0, 1e-9]))
    found = sum_of(own, gate, 1.0, CONFIG)
    assert np.all(found.gain > 0)
    share = found.gain[0] / own.gain[0]
    assert 0.5 * own.gain[1] * share <= found.gain[1] * 1.01 <= 4 * own.gain[1] * share
