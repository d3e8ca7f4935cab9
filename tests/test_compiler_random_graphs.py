"""Random descriptions: what compiles computes what was described, what does not is refused by name."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.compiler.passes.importing import import_checkpoint  # noqa: E402
from reverb_fpga.compiler.passes.invariance import drop_redundant_time, prove_invariance  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402
from reverb_fpga.models.checkpoint import Checkpoint  # noqa: E402
from reverb_fpga.models.network import Network  # noqa: E402
from reverb_fpga.models.random_graphs import random_graph  # noqa: E402
from reverb_fpga.models.testing import randomise  # noqa: E402

REFUSED = (
    "max pooling of its current is not supported",
    "a gate whose mean runs over the whole layer is not supported",
)


def _network(seed: int) -> Network:
    """Random, with negative and zero alpha and gamma wherever there are any."""
    network = randomise(Network(random_graph(seed)), seed).double()
    bad = torch.tensor([-0.8, 0.0, 0.6], dtype=torch.float64)
    with torch.no_grad():
        for layer in network.stages():
            if layer.bn is not None and layer.bn.weight is not None:
                size = min(3, len(layer.bn.weight))
                layer.bn.weight[:size] = bad[:size]
        for tensor in network.activations():
            if tensor.alpha is not None:
                size = min(3, len(tensor.alpha))
                tensor.alpha[:size] = bad[:size]
    network.set_quantised(False)
    return network


def difference(seed: int) -> float | str:
    """Largest difference of the folded form's logits, relative to the largest logit; or why it is refused."""
    network = _network(seed)
    spec, state = network.spec, network.state_dict()
    checkpoint = Checkpoint(spec, {name: state[name].numpy() for name in spec.tensor_shapes()})
    try:
        graph = import_checkpoint(checkpoint, static_input=spec.static_input)
    except InputError as error:
        return re.sub(r"layer \w+: ", "", str(error))
    folded = fold(drop_redundant_time(graph, prove_invariance(graph)))
    shape = spec.input.shape if spec.static_input else (spec.timesteps, *spec.input.shape)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, *shape), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels)).numpy()
    got = evaluate_folded(folded, pixels)
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_folded_random_graphs_equal_the_float_network(first: int) -> None:
    found = {seed: difference(seed) for seed in range(first, first + 25)}
    refused = Counter(value for value in found.values() if isinstance(value, str))
    assert all(any(reason in told for reason in REFUSED) for told in refused), refused
    compared = {seed: value for seed, value in found.items() if not isinstance(value, str)}
    assert len(compared) >= 12
    far = {seed: value for seed, value in compared.items() if value > 1e-5}
    assert not far, far
