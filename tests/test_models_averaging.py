"""The average of weights: its formula, its batch statistics, and signs taken of the average."""

from __future__ import annotations

import pytest
import torch

from reverb_fpga.models.averaging import WeightAverage
from reverb_fpga.models.description import ALPHA_RATIO, InputSpec
from reverb_fpga.models.network import Network
from reverb_fpga.models.zoo import DatasetSpec, Options, build

DATA = DatasetSpec("toy", InputSpec(1, 28, 28, (30,), (60.0,)), ("a", "b", "c"))


@pytest.fixture
def network() -> Network:
    return build("fmnist", DATA, Options(width=0.25, act_bits=8), seed=1)


def _move(network: Network, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.rand(parameter.shape, generator=generator)


def test_the_average_is_exponential_and_starts_with_the_first_step(network: Network) -> None:
    average = WeightAverage(network, steps=4)
    for begin in (0, 10):  # what was added before a restart does not count
        average.restart()
        expected: dict[str, torch.Tensor] = {}
        for seed in range(begin, begin + 5):
            _move(network, seed)
            average.add(network)
            now = {name: value.detach().clone() for name, value in network.named_parameters()}
            expected = {n: 0.75 * expected[n] + 0.25 * now[n] for n in now} if expected else now
        for name, value in average.network.named_parameters():
            torch.testing.assert_close(value, expected[name], msg=name)


def test_batch_statistics_are_those_of_the_average(network: Network) -> None:
    average = WeightAverage(network, steps=2)
    for seed in range(3):
        _move(network, seed)
        average.add(network)
    images = torch.randint(0, 256, (64, 1, 28, 28), generator=torch.Generator().manual_seed(5))
    norm = average.network.layer("conv1").bn
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.running_mean is not None
    norm.running_mean.fill_(99)
    average.settle(images.split(32))
    first = average.network.layer("conv1")
    pixels = (images - 30) / 60.0
    current = torch.nn.functional.conv2d(pixels, first.effective_weight(), padding=first.spec.padding)
    torch.testing.assert_close(norm.running_mean, current.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert norm.momentum is not None, "training goes on as before"


def test_a_weight_has_the_sign_of_its_average(network: Network) -> None:
    weight = network.layer("conv2").weight
    assert weight is not None
    average = WeightAverage(network, steps=1000)
    for value in (0.5, -0.25, -0.25):  # equal shares would make it positive, and so does the slow average
        with torch.no_grad():
            weight.fill_(value)
        average.add(network)
    assert bool((average.network.layer("conv2").effective_weight() > 0).all())
    assert bool((network.layer("conv2").effective_weight() < 0).all())


def test_an_average_of_alphas_keeps_its_ratio() -> None:
    """One that changed its sign has been both, and the mean of both is next to nothing."""
    data = DatasetSpec("toy", InputSpec(3, 8, 8, (30,) * 3, (60.0,) * 3), ("a", "b", "c"))
    network = build("resnet20-classic", data, Options(width=0.125), seed=1)
    average = WeightAverage(network, steps=2)
    alpha, averaged = (tensor.alpha for tensor in (network.tensor("conv1"), average.network.tensor("conv1")))
    assert alpha is not None
    assert averaged is not None
    for value in (1.0, -1.0):
        with torch.no_grad():
            alpha[0] = value
        network.constrain()
        average.add(network)
    assert float(averaged.detach().abs().min()) < 0.1 / ALPHA_RATIO
    average.settle([torch.randint(0, 256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(5))])
    assert float(averaged.detach().abs().min()) == pytest.approx(1 / ALPHA_RATIO)
