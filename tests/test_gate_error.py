"""AGMM: the integer gate against the gate that was trained, on the same currents."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler import reference  # noqa: E402
from reverb_fpga.compiler.backend import lower  # noqa: E402
from reverb_fpga.compiler.passes.calibrate import calibrate  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
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
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], steps))
        network.layer("two").gate.copy_(signs * torch.from_numpy(rng.uniform(0.1, 8, steps)))
    return network


def errors(seed: int) -> np.ndarray:
    """Integer gates less the trained ones (N, T, C), of the currents that the program really has."""
    network = _network(seed)
    state = network.state_dict()
    spec = network.spec
    graph = import_checkpoint(
        Checkpoint(spec, {name: state[name].numpy() for name in spec.tensor_shapes()}), static_input=False
    )
    folded = fold(graph)
    steps = calibrate(graph, folded, None)
    done = quantise(folded, steps, CONFIG).network
    codes = np.random.default_rng(seed).integers(
        0, 256, (4, spec.timesteps, spec.input.height, spec.input.width, 2), dtype=np.uint8
    )
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
    wanted = 1 / (1 + np.exp(-gate.factor[:, None] * mean))
    got = np.stack([reference.gates(integer, z[:, t], t) for t in range(spec.timesteps)], axis=1) / 256
    return got - wanted


def test_the_integer_gate_is_the_trained_one_but_for_its_rounding() -> None:
    found = np.concatenate([errors(seed).ravel() for seed in range(NETWORKS)])
    print(f"{NETWORKS} networks, {len(found):,} gates: largest error {np.abs(found).max():.4f}, "
          f"mean {np.abs(found).mean():.4f}, bias {found.mean():+.4f}")  # fmt: skip
    assert np.abs(found).max() < _BOUND
    assert np.abs(found.mean()) < 0.001
