"""The project's own layers in modules of one's own: they train as the trainer's do, and compile without rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reverb_fpga as rf
from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.modules import LIF, QuantConv2d, QuantLinear, Scale, reset
from reverb_fpga.models.neuron import lif

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 1, 12, 12), dtype=np.uint8)
IMAGES = torch.tensor(PIXELS).float() / 255


class Net(nn.Module):
    """A residual block of own layers, its loop over time in the forward."""

    def __init__(self, steps: int, v_th: float) -> None:
        super().__init__()
        self.stem, self.bn1, self.lif1 = QuantConv2d(1, 8, 3, 2, 1, weights=4), nn.BatchNorm2d(8), LIF(0.5, v_th)
        self.alpha, self.conv = Scale(8), QuantConv2d(8, 8, 3, 1, 1)
        self.bn2, self.lif2 = nn.BatchNorm2d(8), LIF(0.5, v_th)
        self.down, self.lif3 = QuantConv2d(8, 8, 3, 1, 1, weights="ternary"), LIF(0.0, 0.5, binary=True)
        self.fc, self.steps = QuantLinear(8 * 36, 10), steps

    def forward(self, x: Any) -> Any:
        reset(self)
        total = 0
        for _ in range(self.steps):
            y = self.lif1(self.bn1(self.stem(x)))
            y = self.lif2(self.bn2(self.conv(self.alpha(y))) + y)
            total = total + self.fc(self.lif3(self.down(y) * 0.1).flatten(1))
        return total / self.steps


@pytest.mark.parametrize(("steps", "v_th"), [(1, 0.0), (3, 0.25)])
def test_any_forward_of_own_layers_compiles_without_rounding_a_weight(steps: int, v_th: float) -> None:
    torch.manual_seed(3)
    net = Net(steps, v_th)
    net.alpha.alpha.data = torch.rand(8) + 0.5
    net.alpha.alpha.data[2] *= -1
    net.train()(IMAGES)  # statistics for the normalisation
    model = rf.compile(net, IMAGES, target="large")
    assert not [note for note in model.notes if "float weights" in note]
    assert model.program.timesteps == steps
    agreed = model.agreement
    assert agreed is not None
    assert agreed.agree >= 36
    assert agreed.difference < 0.25 * agreed.spread  # a spike of 1 on the edge here and there


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("v_th", [0.25, 0.5])
def test_a_step_at_a_time_is_what_the_trainer_computes_at_once(v_th: float, binary: bool) -> None:
    current = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    once, stepped = current.clone().requires_grad_(), current.clone().requires_grad_()
    wanted = lif(once, 4, 0.5, v_th, binary)
    neurons = LIF(0.5, v_th, binary)
    found = torch.stack([neurons(step) for step in stepped])
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(2))
    (wanted * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(stepped.grad, once.grad)


def test_own_layers_learn() -> None:
    torch.manual_seed(0)
    truth = torch.arange(40) % 10
    net, before = Net(2, 0.25), float("inf")
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for turn in range(30):
        loss = nn.functional.cross_entropy(net(IMAGES), truth)
        if turn == 0:
            before = loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert loss.item() < 0.8 * before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantConv2d(1, 1, 1, weights=9), "weights 9; binary, scaled, ternary, or 2 to 8 bits"),
        (lambda: QuantLinear(1, 1, weights="real"), "weights 'real'"),
        (lambda: QuantLinear(1, 1, weights=True), "weights True"),
        (lambda: LIF(tau=1.5), "tau 1.5"),
        (lambda: LIF(v_th=-1), "v_th -1"),
        (lambda: LIF(binary=True), "above 0 for binary spikes"),
    ],
)
def test_what_they_cannot_be_is_told(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_gateware_runs_them() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        QuantConv2d(1, 4, 3, 1, 1, weights=3), LIF(0.5, 0.25), Scale(4), QuantConv2d(4, 4, 3, 2, 1), LIF(0.5, 0.25),
        nn.Flatten(), QuantLinear(64, 3),
    )  # fmt: skip
    net[2].alpha.data = torch.tensor([0.5, -1.0, 1.5, 0.7])
    samples = torch.randint(0, 256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(2)).float() / 255
    model = rf.compile(net, samples, timesteps=3, target="tiny")
    assert not [note for note in model.notes if "float weights" in note]
    assert model.verify(samples[:2]).difference is None
