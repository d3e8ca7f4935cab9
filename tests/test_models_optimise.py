"""The optimiser's groups, the course of the learning rate, and what is kept in range."""

from __future__ import annotations

import pytest
import torch

from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.network import Network
from reverb_fpga.models.optimise import Schedule, make_optimiser
from reverb_fpga.models.zoo import DatasetSpec, Options, build


@pytest.fixture
def network() -> Network:
    shape = DatasetSpec("toy", InputSpec(1, 28, 28, (128,), (70.0,)), tuple("abc"))
    return build("scnn5", shape, Options(act_bits=8, width=0.125))


def test_schedule_goes_by_share_of_the_epoch() -> None:
    schedule = Schedule(peak=2.0, warmup=0.1, steps=100)
    assert schedule.rate(0) == pytest.approx(0.2)
    assert schedule.rate(9.5) == 2.0
    assert schedule.rate(10) == 2.0
    assert schedule.rate(55) == pytest.approx(1.0)
    assert schedule.rate(99) < 0.001


def test_every_parameter_has_the_factor_of_its_kind(network: Network) -> None:
    optimiser = make_optimiser(network, lr=1.0, weight_decay=0.5, latent_rate=4.0)
    factor = {
        id(p): (group["factor"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]
    }
    found = {name: factor[id(parameter)] for name, parameter in network.named_parameters()}
    assert found["layers.conv2.weight"] == (4.0, 0.0)  # latent binary
    assert found["layers.conv1.weight"] == found["layers.fc1.weight"] == (1.0, 0.5)  # multi-bit
    assert found["tensors.conv1.alpha"] == found["layers.conv1.bn.weight"] == (1.0, 0.0)
    assert found["tensors.conv1.scale"] == (0.02, 0.0)


def test_latent_weights_stay_where_their_gradient_passes(network: Network) -> None:
    with torch.no_grad():
        for layer in network.stages():
            layer.weight.mul_(100)
        for tensor in network.activations():
            tensor.scale.fill_(-1)
    network.constrain()
    for layer in network.stages():
        assert (float(layer.weight.detach().abs().max()) <= 1) == (layer.spec.weight.kind == "binary")
    assert all(tensor.scale > 0 for tensor in network.activations())
