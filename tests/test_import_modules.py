"""Modules of SpikingJelly, snnTorch and torch, by the real packages: each compiles and agrees, or is refused."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")
pytest.importorskip("nir")

import nir  # noqa: E402
import snntorch as snn  # noqa: E402
from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402

IMAGES = torch.randint(0, 256, (60, 1, 12, 12), generator=torch.Generator().manual_seed(1)).float() / 255
SIMULATED = "large"


def rounded(module: nn.Module, bits: int = 3) -> nn.Module:
    """With random weights that are integers of `bits` times a scale per layer, so that nothing need be rounded."""
    generator = torch.Generator().manual_seed(3)
    top = (1 << (bits - 1)) - 1
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            scale = 5 * part.weight.detach().abs().max() / top
            part.weight.data = torch.randint(-top, top + 1, part.weight.shape, generator=generator) * scale
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.data = torch.randn(part.running_mean.shape, generator=generator) / 4
            part.weight.data = torch.randn(part.weight.shape, generator=generator)
    return module


def jelly(first: nn.Module, second: nn.Module) -> nn.Module:
    return rounded(
        nn.Sequential(
            layer.Conv2d(1, 8, 3, padding=1), layer.BatchNorm2d(8), first, layer.AvgPool2d(2),
            layer.Conv2d(8, 8, 3), second, layer.Flatten(), layer.Linear(128, 10),
        )
    )  # fmt: skip


class Torchy(nn.Module):
    """A snnTorch network as tutorials write it: the loop over time in its forward."""

    def __init__(self, make: Any, steps: int = 6) -> None:
        super().__init__()
        self.steps = steps
        self.fc1, self.lif1 = nn.Linear(144, 40), make()
        self.fc2, self.lif2 = nn.Linear(40, 10), make()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes, membranes = [], []
        for _ in range(self.steps):
            spk1, mem1 = self.lif1(self.fc1(x.flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class Block(nn.Module):
    """A residual block whose shortcut is added to the current, or to the spikes (SEW)."""

    def __init__(self, spikes: bool) -> None:
        super().__init__()
        self.stem, self.sn0 = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), neuron.IFNode()
        self.conv1, self.bn1, self.sn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), neuron.IFNode()
        self.conv2, self.sn2 = nn.Conv2d(8, 8, 3, padding=1), neuron.IFNode()
        self.fc, self.spikes = nn.Linear(8, 10), spikes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.sn0(self.stem(x))
        y = self.conv2(self.sn1(self.bn1(self.conv1(x))))
        y = self.sn2(y) + x if self.spikes else self.sn2(y + x)
        return self.fc(F.adaptive_avg_pool2d(y, 2).mean((2, 3)))


class Binarised(nn.Module):
    """Weights made binary in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3, stride=2, bias=False), nn.Linear(8 * 25, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight
        x = F.relu(F.conv2d(x, weight.sign() * weight.abs().mean((1, 2, 3), keepdim=True), stride=2))
        return F.linear(x.view(x.size(0), -1), self.fc.weight.sign(), self.fc.bias)


class Steps(nn.Module):
    """All steps at once, SpikingJelly's step mode m, its own number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = jelly(neuron.IFNode(), neuron.LIFNode())
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.unsqueeze(0).repeat(5, 1, 1, 1, 1)).mean(0)


def plain() -> nn.Module:
    return rounded(
        nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2), nn.Dropout(),
            nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
        )
    )  # fmt: skip


LAPICQUE = {"R": 2.0, "C": 2.0, "threshold": 0.6}
EXACT = {
    "IFNode": (lambda: jelly(neuron.IFNode(), neuron.IFNode()), 4),
    "IFNode, soft reset": (lambda: jelly(neuron.IFNode(v_reset=None), neuron.IFNode(v_reset=None)), 4),
    "LIFNode": (lambda: jelly(neuron.LIFNode(), neuron.LIFNode(tau=4.0)), 4),
    "LIFNode, soft reset": (lambda: jelly(neuron.LIFNode(v_reset=None), neuron.LIFNode(v_reset=None)), 4),
    "LIFNode, input not decayed": (lambda: jelly(neuron.LIFNode(decay_input=False), neuron.IFNode()), 4),
    "LIFNode, v_reset -0.5": (lambda: jelly(neuron.LIFNode(v_reset=-0.5, v_threshold=0.5), neuron.IFNode()), 4),
    "ParametricLIFNode": (lambda: jelly(neuron.ParametricLIFNode(init_tau=2.0), neuron.IFNode()), 4),
    "spikes voted upon": (
        lambda: nn.Sequential(*list(jelly(neuron.IFNode(), neuron.IFNode()))[:-1], rounded(nn.Linear(128, 20)),
                              neuron.IFNode(), layer.VotingLayer(2)), 4,
    ),
    "max pooling of spikes": (
        lambda: rounded(nn.Sequential(nn.Conv2d(1, 8, 3), neuron.IFNode(), nn.MaxPool2d(2), nn.Flatten(),
                                      nn.Linear(200, 10))), 4,
    ),
    "step mode m": (Steps, None),
    "Leaky, subtract": (lambda: rounded(Torchy(lambda: snn.Leaky(beta=0.75))), None),
    "Leaky, zero": (lambda: rounded(Torchy(lambda: snn.Leaky(beta=0.75, reset_mechanism="zero"))), None),
    "Leaky, none": (lambda: rounded(Torchy(lambda: snn.Leaky(beta=0.75, reset_mechanism="none"))), None),
    "Leaky, threshold": (lambda: rounded(Torchy(lambda: snn.Leaky(beta=0.5, threshold=0.3))), None),
    "Lapicque": (lambda: rounded(Torchy(lambda: snn.Lapicque(**LAPICQUE))), None),
    "shortcut to the current": (lambda: rounded(Block(spikes=False)), 4),
    "shortcut to the spikes": (lambda: rounded(Block(spikes=True)), 4),
    "binarised in the forward": (Binarised, None),
    "plain convolutions": (plain, None),
}  # fmt: skip
REAL_SPIKES = ("binarised in the forward", "plain convolutions")


@pytest.mark.parametrize("name", EXACT)
def test_modules_that_need_no_rounding_of_weights_agree(name: str) -> None:
    make, steps = EXACT[name]
    torch.manual_seed(5)
    model = rf.compile(make(), IMAGES, timesteps=steps, target=SIMULATED)
    agreed = model.agreement
    assert agreed is not None
    assert not [note for note in model.notes if "rounded to 8 bits" in note]
    assert agreed.spread > 0
    assert agreed.agree >= 0.99 * agreed.images - 1, str(agreed)
    if name not in REAL_SPIKES:  # spikes of 0 and 1: logits are the same but for a spike on the edge here and there
        assert agreed.difference <= 0.25 * agreed.spread, str(agreed)


REFUSED = {
    "max pooling of a current": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), neuron.IFNode(), nn.Flatten(), nn.Linear(100, 3)),
        r"layer 2: reads the largest of currents or sums",
    ),
    "sigmoid": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 9), nn.Sigmoid()), r"layer 2: nn.Sigmoid has no"),
    "two layers": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 9), nn.Linear(9, 3)),
        r"layer 2: follows 1 with no neurons",
    ),
    "other neurons": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 9), neuron.QIFNode(), nn.Linear(9, 3)),
        r"layer 2: QIFNode neurons of spikingjelly have no counterpart; supported are IFNode",
    ),
    "a leak per neuron": (
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(144, 40),
            snn.Leaky(beta=torch.linspace(0, 1, 40), init_hidden=True),
            nn.Linear(40, 10),
        ),
        r"layer 2: beta differs",
    ),
    "inhibition": (lambda: Torchy(lambda: snn.Leaky(beta=0.5, inhibition=True)), r"layer lif1: inhibition"),
    "Lapicque, zero": (
        lambda: Torchy(lambda: snn.Lapicque(**LAPICQUE, reset_mechanism="zero")),
        r"layer lif1: Lapicque with reset_mechanism='zero' loses",
    ),
    "no delay": (lambda: Torchy(lambda: snn.Leaky(beta=0.5, reset_delay=False)), r"layer lif1: reset_delay=False"),
}


@pytest.mark.filterwarnings("ignore:Inhibition")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_layer_and_reason(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        rf.compile(make(), IMAGES, target=SIMULATED)


def nir_graph() -> nir.NIRGraph:
    rng = np.random.default_rng(4)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape) / 3.0

    one = np.ones((6, 5, 5))
    nodes = {
        "input": nir.Input(np.array([1, 12, 12])),
        "conv": nir.Conv2d((12, 12), weights(6, 1, 3, 3), (2, 2), (0, 0), (1, 1), 1, rng.normal(size=6)),
        "lif": nir.LIF(tau=2e-4 * one, r=2 * one, v_leak=0 * one, v_threshold=one),
        "flat": nir.Flatten({"input": np.array([6, 5, 5])}, 0),
        "fc": nir.Affine(weights(4, 150), rng.normal(size=4)),
        "output": nir.Output(np.array([4])),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)), type_check=False)


def test_nir_graphs_agree_with_their_equations() -> None:
    graph = nir_graph()
    model = rf.compile(graph, IMAGES, timesteps=5, target=SIMULATED)
    assert model.agreement is not None
    assert model.agreement.agree >= len(IMAGES) - 1, str(model.agreement)
    conv, lif, fc = (graph.nodes[name] for name in ("conv", "lif", "fc"))
    current = F.conv2d(IMAGES.double(), torch.tensor(conv.weight), torch.tensor(conv.bias), 2)
    v, total = torch.zeros_like(current), torch.zeros(len(IMAGES), 4, dtype=torch.float64)
    for _ in range(5):
        v = v + 1e-4 / torch.tensor(lif.tau) * (torch.tensor(lif.r) * current - v)
        z = (v > 1).double()
        v = v * (1 - z)
        total += F.linear(z.flatten(1), torch.tensor(fc.weight), torch.tensor(fc.bias)) / 5
    same = (torch.tensor(model.logits(IMAGES)).argmax(1) == total.argmax(1)).sum()
    assert int(same) >= len(IMAGES) - 1


def test_nodes_of_nir_without_a_counterpart_are_refused_by_name() -> None:
    graph = nir_graph()
    graph.nodes["lif"] = nir.LI(tau=np.ones(1), r=np.ones(1), v_leak=np.zeros(1))
    with pytest.raises(InputError, match="layer lif: LI nodes have no counterpart; supported are Linear"):
        rf.compile(graph, IMAGES, timesteps=5)


def test_rounded_weights_are_told_and_agree() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 5))
    model = rf.compile(module, IMAGES, target=SIMULATED)
    assert [note for note in model.notes if "layer 0: float weights are rounded to 8 bits" in note]
    assert model.agreement is not None
    assert model.agreement.agree >= 0.97 * len(IMAGES) - 1
    assert not hasattr(module[1], "fired") or module.training  # nothing of the module is left changed


def test_a_saved_model_takes_what_the_module_took(tmp_path: Path) -> None:
    module = rounded(nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.ReLU(), nn.Linear(20, 4)))
    model = rf.compile(module, 3 * IMAGES - 1, labels=("a", "b", "c", "d"))
    again = rf.load(model.save(tmp_path / "own.rvb"))
    assert again.input == model.input == rf.Input("array", (1, 12, 12), 1)
    x = 3 * IMAGES[:7] - 1
    np.testing.assert_array_equal(again.logits(x), model.logits(x.numpy()))
    np.testing.assert_array_equal(again.logits(x[0]), model.logits(x)[:1])
    wanted = module(x).argmax(1).tolist()
    assert again.classify(x) == ["abcd"[index] for index in wanted]
    with pytest.raises(InputError, match=r"shape .*7, 12, 12.*; the model takes float \(N, 1, 12, 12\)"):
        again.logits(x[:, 0])


def test_bundled_models_take_images() -> None:
    model = rf.load("fashion-mnist")
    assert str(model.input) == "images, uint8 (N, 28, 28, 1)"
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    assert model.logits(images).shape == (2, 10)
    assert model.layers(images)["conv1"].dtype == np.uint8
    with pytest.raises(InputError, match=r"shape \(2, 10, 10\); the model takes images, uint8 \(N, 28, 28, 1\)"):
        model.classify(images[:, :10, :10])
    with pytest.raises(InputError, match="float64"):
        model.classify(images / 255)


def test_importing_takes_neither_torch_nor_amaranth() -> None:
    code = (
        "import sys, reverb_fpga as rf; rf.__version__; print([m for m in ('torch', 'amaranth') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    loaded = code.replace("rf.__version__", "rf.load()")
    result = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def small_model() -> tuple[rf.Model, NDArray[np.float32]]:
    """For the tiny configuration, which simulates in seconds."""
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2)]
    samples = torch.rand(20, 1, 8, 8).numpy()
    return rf.compile(nn.Sequential(*first, nn.Flatten(), nn.Linear(64, 3)), samples, target="tiny"), samples


def test_the_gateware_runs_an_imported_module_as_the_golden_model_does() -> None:
    model, samples = small_model()
    assert model.verify(samples[:2]).difference is None
    assert model.verify().difference is None
    np.testing.assert_array_equal(model.logits(samples[:3]), model.logits(samples[:3], backend="rtl"))


def test_inputs_beyond_the_samples_are_not_clipped_in_silence() -> None:
    model, samples = small_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.logits(samples)
    with pytest.warns(UserWarning, match=r"64 of 1280 input values lie outside the range of the samples"):
        model.logits(np.where(np.arange(20)[:, None, None, None] == 3, 9.0, samples))
