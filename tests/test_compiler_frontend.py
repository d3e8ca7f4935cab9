"""Folding against the float network, and quantisation against both."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.description import InputSpec, NetworkSpec  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402
from reverb_fpga.models.zoo import DatasetSpec, Options, describe  # noqa: E402

INPUT = InputSpec(3, 12, 12, (120, 100, 90), (60.0, 55.0, 70.0))


def _network(options: Options, seed: int, source: InputSpec = INPUT) -> Network:
    dataset = DatasetSpec("random", source, tuple("abcde"))
    spec = _small(describe("fmnist", dataset, options))
    return _with_bad_scales(randomise(Network(spec), seed))


def _with_bad_scales(network: Network) -> Network:
    """Negative and zero alpha and gamma in every layer that has them, whatever the seed."""
    with torch.no_grad():
        for layer in network.stages():
            for scale in (layer.alpha, layer.bn.weight if layer.bn is not None else None):
                if scale is not None:
                    scale[:3] = torch.tensor([-0.8, 0.0, 0.6])
    return network


def _small(spec: NetworkSpec) -> NetworkSpec:
    """Two convolutions, the second pooled, and the classifier."""
    first, second, last = spec.layers[0], spec.layers[1], spec.layers[-1]
    side = spec.input.height // second.pool
    last = dataclasses.replace(last, in_channels=second.out_channels * side * side)
    return dataclasses.replace(spec, layers=(first, second, last))


def _checkpoint(network: Network) -> Checkpoint:
    state = network.state_dict()
    return Checkpoint(network.spec, {name: state[name].numpy() for name in network.spec.tensor_shapes()})


def _pixels(seed: int, source: InputSpec = INPUT, images: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *source.shape), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(12))
def test_folded_form_equals_the_float_network(seed: int) -> None:
    options = Options(
        system="reverb" if seed % 4 == 3 else "reverb-learnable",
        timesteps=1 + seed % 2,
        v_th=0.25 if seed % 3 else 0.0,
        pool_mode="spike" if seed % 4 < 2 else "current",
        width=0.25,
        first_bits=1 if seed % 5 == 0 else 4,
    )
    network = _network(options, seed).double()
    checkpoint = _checkpoint(network)
    graph = import_checkpoint(checkpoint)
    proof = prove_invariance(graph)
    assert proof.emitted == (1 if options.v_th == 0 else options.timesteps)
    folded = fold(drop_redundant_time(graph, proof))
    pixels = _pixels(seed)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    got = evaluate_folded(folded, pixels)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))
