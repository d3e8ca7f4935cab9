"""Max pooling: the network, its folded form and its program agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance  # noqa: E402
from reverb_fpga.compiler.pipeline import CompileOptions, compile_network  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import (  # noqa: E402
    GateSpec,
    InputSpec,
    LayerSpec,
    NetworkSpec,
    NeuronSpec,
    PoolSpec,
    TensorSpec,
    WeightSpec,
)
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402
from reverb_fpga.sim.golden import GoldenModel  # noqa: E402

SOURCE = InputSpec(2, 11, 9, (120, 90), (60.0, 60.0))
ROOMY = dataclasses.replace(preset("ulx3s-85f"), name="roomy", descriptors=512, count_words=8192)
WINDOWS = [  # window, stride, padding
    PoolSpec("max", (2, 2), (2, 2)),
    PoolSpec("max", (3, 3), (2, 2), (1, 1)),
    PoolSpec("max", (1, 3), (2, 1), (0, 1)),
    PoolSpec("max", (5, 2), (1, 3), (2, 1)),
    PoolSpec("max", (4, 1), (3, 2), (2, 0)),
    PoolSpec("max", (1, 1), (2, 2)),
]


@dataclasses.dataclass(frozen=True)
class Case:
    """Two convolutions and a classifier; what the first fires is pooled, in one of three places."""

    pool: PoolSpec
    place: str = "before"
    system: str = "reverb-learnable"
    steps: int = 1
    v_th: float = 0.0
    tau: float = 0.25
    bits: int | None = 8
    gate: bool = False
    bn: str = "affine"

    def network(self, seed: int = 0, negative: bool = False) -> Network:
        network = randomise(Network(self._spec()), seed).double()
        with torch.no_grad():
            for layer in network.stages():
                if layer.bn is not None and layer.bn.weight is not None and not negative:
                    layer.bn.weight.abs_()
            for tensor in network.activations():
                if tensor.alpha is not None:
                    tensor.alpha[:3] = torch.tensor([-0.8, 0.0, 0.6])
        return network

    def _spec(self) -> NetworkSpec:
        binary = self.system in ("snn", "bsnn", "agmm-bsnn")
        neuron = NeuronSpec(self.tau, self.v_th)
        signs = WeightSpec("binary")
        conv = {"kernel": (3, 3), "padding": (1, 1), "neuron": neuron}
        gate = GateSpec("channel") if self.gate else None
        current = self.pool if self.place == "current" else None
        layers = [
            LayerSpec("one", "conv", "input", 2, 6, weight=WeightSpec("multibit", 4), bn=self.bn, bias=True,
                      pool_after=current, gate=gate, **conv)
        ]  # fmt: skip
        shape = layers[0].map_shape(SOURCE.shape)
        pooled = self.pool.shape(shape)
        source, before = "one", self.pool if self.place == "before" else None
        if self.place == "layer":
            layers.append(
                LayerSpec("pooled", "pool", "one", 6, 6, weight=WeightSpec("unit"), bn="none", pool_before=self.pool,
                          neuron=NeuronSpec(0.0, 0.0))
            )  # fmt: skip
            source = "pooled"
        layers.append(LayerSpec("two", "conv", source, 6, 5, weight=signs, pool_before=before, **conv))
        features = 5 * pooled[1] * pooled[2]
        layers.append(
            LayerSpec("fc", "linear", "two", features, 4, weight=WeightSpec("multibit", 4), bias=True, bn="none")
        )
        bits = 1 if binary else self.bits
        of_pools = bits if not binary else self.bits if self.pool.kind == "avg" else None
        tensors = tuple(
            TensorSpec(layer.name, of_pools if layer.kind == "pool" else bits, self.system == "reverb-learnable")
            for layer in layers
            if layer.neuron
        )
        return NetworkSpec("pools", self.system, "random", tuple("abcd"), SOURCE, self.steps, tensors, tuple(layers))


CASES = [
    *(Case(pool) for pool in WINDOWS),
    *(Case(pool, "current") for pool in WINDOWS[:3]),
    *(Case(pool, "layer") for pool in WINDOWS[:2]),
    *(Case(pool, steps=3, v_th=0.25) for pool in WINDOWS[1:3]),
    Case(WINDOWS[1], "layer", steps=3, v_th=0.25),
    Case(WINDOWS[1], "current", steps=3, v_th=0.25, tau=0.0),
    Case(WINDOWS[1], "current", bn="plain"),
    Case(WINDOWS[1], bits=None),
    Case(WINDOWS[1], bits=4),
    Case(WINDOWS[1], "layer", bits=None),
    Case(WINDOWS[1], system="bsnn", steps=3, v_th=0.5),
    Case(WINDOWS[1], "current", system="bsnn", v_th=0.5),
    Case(WINDOWS[1], "layer", system="bsnn", steps=3, v_th=0.5),
]


def _checkpoint(network: Network) -> Checkpoint:
    state = network.state_dict()
    return Checkpoint(network.spec, {name: state[name].numpy() for name in network.spec.tensor_shapes()})


def _pixels(seed: int, images: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *SOURCE.shape), dtype=np.uint8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_folded_max_pooling_equals_the_float_network(case: Case) -> None:
    network = case.network()
    network.set_quantised(False)
    graph = import_checkpoint(_checkpoint(network))
    folded = fold(drop_redundant_time(graph, prove_invariance(graph)))
    pixels = _pixels(1)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    got = evaluate_folded(folded, pixels)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pooling_is_exact_on_codes(case: Case) -> None:
    """Whatever the first layer fires, the program's pooled codes are its largest, to the last bit."""
    pixels = _pixels(2)
    options = CompileOptions(images=pixels)
    compiled = compile_network(_checkpoint(case.network()), ROOMY, options)
    codes = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))[:, None]
    layers, _ = GoldenModel(compiled.program, ROOMY).run_layers(codes)
    fired = {info.name: found for info, found in zip(compiled.program.layers, layers, strict=True)}
    whole, largest = {
        "before": ("one", "one.max1"), "current": ("one.all", "one"), "layer": ("one", "one.max1")
    }[case.place]  # fmt: skip
    if case.place == "layer" and case.system == "bsnn":
        largest = "pooled"
    assert fired[whole].any()
    x = torch.from_numpy(fired[whole].astype(np.float64)).flatten(0, 1).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.max_pool2d(x, case.pool.window, case.pool.stride, case.pool.padding)
    n, steps = fired[whole].shape[:2]
    found = torch.from_numpy(fired[largest].astype(np.float64)).flatten(0, 1).permute(0, 3, 1, 2)
    assert fired[largest].shape[:2] == (n, steps)
    assert torch.equal(found, wanted)


REFUSED = [
    (Case(WINDOWS[0], "current", steps=2, v_th=0.25), "over several time steps with leak"),
    (Case(WINDOWS[0], "current", system="agmm-bsnn", v_th=0.5, gate=True), "with shortcuts or a gate"),
]


@pytest.mark.parametrize(("case", "why"), REFUSED, ids=str)
def test_max_pooling_that_is_not_exact_is_refused_by_name(case: Case, why: str) -> None:
    with pytest.raises(InputError, match=f"layer one: max pooling of its current is not supported {why}"):
        compile_network(_checkpoint(case.network()), ROOMY)


def test_max_pooling_in_front_of_a_negative_gamma_is_refused_by_name() -> None:
    network = Case(WINDOWS[0], "current").network(negative=True)
    with torch.no_grad():
        network.layer("one").bn.weight[0] = -0.5
    with pytest.raises(InputError, match="where its normalisation has a negative gamma"):
        compile_network(_checkpoint(network), ROOMY)


def _averages(bits: int | None, steps: int) -> Case:
    return Case(PoolSpec("avg", (3, 3), (2, 2), (1, 1)), "layer", system="bsnn", steps=steps, v_th=0.5, bits=bits)


@pytest.mark.parametrize("bits", [8, None])
@pytest.mark.parametrize("steps", [1, 2])
def test_averages_of_binary_spikes_are_exact(bits: int | None, steps: int) -> None:
    """Their codes are sums of spikes, 0 to 9, so that layers that read them fire as those of the real numbers do."""
    network = _averages(bits, steps).network()
    pixels = _pixels(3, 20)
    compiled = compile_network(_checkpoint(network), ROOMY, CompileOptions())
    layers, logits = GoldenModel(compiled.program, ROOMY).run_layers(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    found: dict[str, np.ndarray] = {}
    with torch.no_grad():
        wanted = network(torch.from_numpy(pixels).double(), traces := []).numpy()
    for trace in traces:
        if trace.events is not None:
            found[network.spec.layer(trace.name).source] = np.moveaxis(trace.events.numpy(), 2, -1).swapaxes(0, 1)
    assert [info.name for info in compiled.program.layers] == ["one", "pooled", "two", "fc"]
    assert set(np.unique(layers[1])) == set(range(10))
    for codes, name, one in ((layers[0], "one", 1.0), (layers[1], "pooled", 9.0), (layers[2], "two", 1.0)):
        np.testing.assert_allclose(codes.reshape(found[name].shape), found[name] * one, atol=1e-9)
    np.testing.assert_allclose(logits * compiled.program.logit_scale, wanted, atol=1e-3)


def test_steps_of_averages_of_binary_spikes_stay_in_training() -> None:
    network = _averages(8, 2).network().float().train()
    scale = network.tensor("pooled").scale
    assert scale is not None
    assert scale.item() == pytest.approx(1 / 9)
    with torch.no_grad():
        scale.mul_(1.5)
    network.constrain()
    assert scale.item() == pytest.approx(1 / 9)
    real = dataclasses.replace(_averages(8, 2), system="reverb-learnable").network()
    assert real.spec.grid("pooled") is None
