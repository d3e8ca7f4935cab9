"""Weights that are integers times a scale per input channel: exact where spikes are real-valued and readers agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.compiler.frontends.modules import import_module  # noqa: E402
from reverb_fpga.compiler.frontends.running import Samples, run_module  # noqa: E402
from reverb_fpga.compiler.passes.evaluate import evaluate_folded  # noqa: E402
from reverb_fpga.compiler.passes.fold import fold  # noqa: E402
from reverb_fpga.hw.config import preset  # noqa: E402

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 1, 12, 12), dtype=np.uint8)
IMAGES = torch.tensor(PIXELS).float() / 255
ROUNDED = "float weights are rounded to 8 bits"


class Net(nn.Module):
    """Two convolutions of one tensor, one with signs and one with -1, 0, 1, times one alpha per channel of it."""

    def __init__(self, pool: bool = False, shortcut: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def integers(top: int, *shape: int) -> Any:
            return torch.randint(-top, top + 1, shape, generator=generator).float()

        self.alpha = torch.rand(8, generator=generator) * 2 + 0.3
        self.alpha[3] *= -1
        self.stem, self.fc = nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(8 * (9 if pool else 36), 10)
        self.signs, self.ternary = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1, bias=False)
        self.stem.weight.data, self.fc.weight.data = (
            integers(7, 8, 1, 3, 3) / 14,
            integers(3, *self.fc.weight.shape) / 8,
        )
        scale = torch.rand(8, 1, 1, 1, generator=generator) + 0.5
        self.signs.weight.data = self.alpha[:, None, None] * scale * torch.where(integers(9, 8, 8, 3, 3) > 0, 0.1, -0.1)
        self.ternary.weight.data = self.alpha[:, None, None] * integers(1, 8, 8, 1, 1) / 2
        self.pool, self.shortcut = pool, shortcut

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.stem(x))
        if self.pool:
            x = torch.max_pool2d(x, 2)
        y = self.signs(x) + self.ternary(x)
        return self.fc(torch.relu(y + x if self.shortcut else y).flatten(1))


def exact(net: nn.Module) -> float:
    """Largest difference of logits, over their spread, between the module and its import with integer weights."""
    samples = Samples(IMAGES.numpy())
    imported, _ = import_module(net, samples, preset("large"), None)
    wanted = run_module(net, samples, None)
    found = evaluate_folded(fold(imported.network), PIXELS)
    return float(np.abs(found - wanted).max() / np.ptp(wanted, axis=1).max())


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("shortcut", [False, True])
def test_a_scale_per_input_channel_is_exact(pool: bool, shortcut: bool) -> None:
    net = Net(pool, shortcut)
    assert exact(net) < 1e-5
    model = rf.compile(net, IMAGES, target="large")
    assert not [note for note in model.notes if ROUNDED in note]
    assert model.agreement is not None
    assert model.agreement.difference < 0.01 * model.agreement.spread


def test_a_product_with_a_constant_per_channel_is_such_a_scale() -> None:
    class Scaled(Net):
        def forward(self, x: Any) -> Any:
            x = torch.relu(self.stem(x)) * (self.alpha[:, None, None].abs() + 1)
            return self.fc(torch.relu(nn.functional.conv2d(x, self.signs.weight.sign(), padding=1)).flatten(1))

    net = Scaled()
    assert exact(net) < 1e-5
    assert not [note for note in rf.compile(net, IMAGES, target="large").notes if ROUNDED in note]


def test_readers_that_disagree_are_noted() -> None:
    net = Net()
    net.ternary.weight.data = torch.randint(-1, 2, (8, 8, 1, 1), generator=torch.Generator().manual_seed(4)) / 2.0
    notes = [note for note in rf.compile(net, IMAGES, target="large").notes if ROUNDED in note]
    assert len(notes) == 1
    assert notes[0].startswith("layer signs: ")


def test_a_shortcut_keeps_its_resolution() -> None:
    """What a shortcut reads is divided by alpha: one that spans more than the trainer allows is not taken."""
    net = Net(shortcut=True)
    for part in (net.signs, net.ternary):
        part.weight.data[:, 0] /= 40
    assert [note for note in rf.compile(net, IMAGES, target="large").notes if ROUNDED in note]
    net.shortcut = False
    assert not [note for note in rf.compile(net, IMAGES, target="large").notes if ROUNDED in note]


def test_spikes_of_one_have_no_scale() -> None:
    snn = pytest.importorskip("snntorch")
    signs = torch.where(torch.rand(10, 8, generator=torch.Generator().manual_seed(2)) > 0.5, 1.0, -1.0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), snn.Leaky(beta=0.5, init_hidden=True), nn.Linear(8, 10))
    net[1].weight.data = torch.randint(-3, 4, (8, 144), generator=torch.Generator().manual_seed(3)) / 8.0
    net[3].weight.data = signs * torch.linspace(0.3, 1.7, 8) ** 3
    notes = [note for note in rf.compile(net, IMAGES, timesteps=4, target="large").notes if ROUNDED in note]
    assert len(notes) == 1
    assert notes[0].startswith("layer 3: ")
