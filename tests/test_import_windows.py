"""Average pooling whose window, with the kernel that reads it, is larger than the target gathers."""

from __future__ import annotations

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
from reverb_fpga.hw.errors import InputError  # noqa: E402

PIXELS = np.random.default_rng(1).integers(0, 256, (30, 1, 16, 16), dtype=np.uint8)
IMAGES = torch.tensor(PIXELS).float() / 255


def integers(net: nn.Module) -> nn.Module:
    """With weights that need no rounding."""
    generator = torch.Generator().manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data = torch.randint(-3, 4, part.weight.shape, generator=generator) / 8
    return net


def pooled(fires: nn.Module, size: int = 2) -> nn.Module:
    features = {2: 6 * 16, 3: 6}[size]
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), fires, nn.AvgPool2d(size), nn.Conv2d(4, 6, 5), nn.ReLU(), nn.Flatten(),
        nn.Linear(features, 5),
    )  # fmt: skip


def test_averages_of_real_spikes_are_a_layer_of_their_own_and_noted() -> None:
    net = integers(pooled(nn.ReLU()))
    model = rf.compile(net, IMAGES, target="large")
    assert [layer.name for layer in model.program.layers] == ["1", "1.mean1", "4", "6"]
    assert "layer 1.mean1: the averages of what 1 fires are rounded to 8 bits" in model.notes
    assert model.agreement is not None
    assert model.agreement.difference < 0.02 * model.agreement.spread


def test_averages_of_spikes_of_one_are_exact() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    net = integers(pooled(neuron.IFNode()))
    samples = Samples(IMAGES.numpy())
    imported, _ = import_module(net, samples, preset("large"), 4)
    wanted = run_module(net, samples, 4)
    np.testing.assert_allclose(evaluate_folded(fold(imported.network), PIXELS), wanted, atol=1e-4 * np.ptp(wanted))
    assert not imported.notes
    model = rf.compile(net, IMAGES, timesteps=4, target="large")
    assert not [note for note in model.notes if "averages" in note]


def test_a_scale_per_channel_goes_through_averages() -> None:
    net = integers(pooled(nn.ReLU()))
    net[3].weight.data = torch.where(net[3].weight >= 0, 0.1, -0.1) * torch.tensor([0.5, 1.1, 0.7, 1.9])[:, None, None]
    samples = Samples(IMAGES.numpy())
    imported, _ = import_module(net, samples, preset("large"), None)
    wanted = run_module(net, samples, None)
    found = evaluate_folded(fold(imported.network), PIXELS)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.ptp(wanted))
    assert not [note for note in imported.notes if "float weights" in note]


def test_an_average_of_a_current_goes_into_a_kernel_that_is_rounded_anyway() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 5, 2), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
    model = rf.compile(net, IMAGES, target="large")  # the importer compares it with the module before rounding
    assert model.program.layers[0].shape == (4, 3, 3)
    assert model.agreement is not None
    assert model.agreement.difference < 0.02 * model.agreement.spread
    with pytest.raises(InputError, match="layer 2 needs 100 table entries"):
        rf.compile(integers(net), IMAGES, target="large")  # exact weights stay what they are


def test_the_gateware_runs_averages_of_their_own() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 5), nn.ReLU(), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    samples = IMAGES[:, :, :10, :10]
    model = rf.compile(integers(net), samples, target="tiny")
    assert "1.mean1" in [layer.name for layer in model.program.layers]
    assert model.verify(samples[:2]).difference is None
