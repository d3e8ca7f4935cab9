"""Imported modules on real images: how often golden model and module name the same class, with and without rounding.

Four networks (SpikingJelly, snnTorch, NIR, plain torch with a shortcut) are trained briefly on Fashion-MNIST, once with
weights that the target holds exactly (binary, ternary or four bits, each with a scale per output channel) and once with
float weights, which are rounded to 8 bits; compiled for the ULX3S-85F; compared on 1,000 test images.

    python benchmarks/imported.py --data-dir data --out out/imported
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
from snntorch import utils
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn.utils import parametrize

import reverb_fpga as rf
from reverb_fpga.models.layers import WeightSpec
from reverb_fpga.models.quant import effective_weight

sys.path.insert(0, str(Path(__file__).parent.parent / "examples/own"))
from training import fashion_mnist, train

GOALS = {"exact": 99.0, "rounded": 97.0}


class Quantised(nn.Module):
    """For parametrize: latent weights as those that are used."""

    def __init__(self, spec: WeightSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, weight: Tensor) -> Tensor:
        return effective_weight(weight, self.spec)


def quantised(net: nn.Module, exact: bool) -> nn.Module:
    """With four bits in the first and last layer and signs with a scale between, if wanted."""
    layers = [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for index, part in enumerate(layers if exact else []):
        edge = index in (0, len(layers) - 1)
        spec = WeightSpec("multibit", 4) if edge else WeightSpec("scaled")
        parametrize.register_parametrization(part, "weight", Quantised(spec))
    return net


def spikingjelly_network() -> nn.Module:
    """As in examples/own, with one convolution more."""
    return nn.Sequential(
        layer.Conv2d(1, 16, 3, 2, 1), layer.BatchNorm2d(16), neuron.LIFNode(v_reset=None),
        layer.Conv2d(16, 32, 3, 2, 1), layer.BatchNorm2d(32), neuron.LIFNode(),
        layer.Flatten(), layer.Linear(1568, 10),
    )  # fmt: skip


def snntorch_network() -> nn.Module:
    leaky = {"beta": 0.75, "init_hidden": True}
    hidden = [nn.Linear(784, 128), snn.Leaky(**leaky), nn.Linear(128, 64), snn.Leaky(**leaky)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10), snn.Leaky(**leaky))


def nir_source() -> nn.Module:
    """What becomes a NIR graph after training."""
    leaky = {"beta": 0.75, "init_hidden": True, "reset_mechanism": "zero"}
    hidden = [nn.Linear(784, 128), snn.Leaky(**leaky), nn.Linear(128, 64), snn.Leaky(**leaky)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))


def nir_graph(net: Any) -> nir.NIRGraph:
    def affine(part: Any) -> nir.Affine:
        return nir.Affine(part.weight.detach().numpy(), part.bias.detach().numpy())

    def lif(count: int) -> nir.LIF:
        return nir.LIF(np.full(count, 4e-4), np.full(count, 4.0), np.zeros(count), np.ones(count))

    flat = nir.Flatten({"input": np.array([1, 28, 28])}, 0)
    return nir.NIRGraph.from_list(flat, affine(net[1]), lif(128), affine(net[3]), lif(64), affine(net[5]))


class Shortcut(nn.Module):
    """As in examples/own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 16, 3, s, 1) for n, s in ((1, 2), (16, 2), (16, 1)))
        self.norms, self.fc = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3)), nn.Linear(16 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[1](self.b(torch.relu(self.norms[0](self.a(x))))))
        return self.fc(torch.relu(self.norms[2](self.c(y)) + y).flatten(1))


@dataclasses.dataclass(frozen=True)
class Network:
    """How a network is made and run."""

    make: Callable[[], nn.Module]
    steps: int | None = None
    reset: Callable[[nn.Module], object] | None = None
    export: Callable[[Any], Any] = lambda net: net


NETWORKS = {
    "SpikingJelly": Network(spikingjelly_network, 4, functional.reset_net),
    "snnTorch": Network(snntorch_network, 8, utils.reset),
    "NIR": Network(nir_source, 8, utils.reset, nir_graph),
    "shortcut": Network(Shortcut),
}


def measure(name: str, kind: str, data: tuple[Tensor, ...]) -> dict[str, Any]:
    """Train, compile and compare one network."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    net = quantised(network.make(), kind == "exact")
    train(net, data[0], data[1], steps=network.steps or 1, reset=network.reset)
    model = rf.compile(network.export(net), data[2], timesteps=network.steps, truth=data[3])
    assert model.agreement is not None
    assert model.agreement.right is not None
    images = model.agreement.images
    return {
        "network": name,
        "weights": kind,
        "images": images,
        "agree": 100 * model.agreement.agree / images,
        "float": 100 * model.agreement.right[0] / images,
        "golden": 100 * model.agreement.right[1] / images,
        "difference": model.agreement.difference / model.agreement.spread,
        "goal": GOALS[kind],
        "notes": list(model.notes),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("out/imported"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = fashion_mnist(args.data_dir)
    rows = []
    for kind in GOALS:
        for name in NETWORKS:
            rows.append(row := measure(name, kind, data))
            print(
                f"{name:13}{kind:8} float {row['float']:5.1f} %  golden {row['golden']:5.1f} %  same class "
                f"{row['agree']:5.1f} % of {row['images']} (goal {row['goal']:g} %)",
                flush=True,
            )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "imported.json").write_text(json.dumps(rows, indent=1))
    return 0 if all(row["agree"] >= row["goal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
