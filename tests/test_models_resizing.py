"""Smaller images first: one set of weights for two sizes, in networks that allow it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_idx

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.augment import Augmentation
from reverb_fpga.models.checkpoint import read_tensors
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.network import LayerTrace, Network
from reverb_fpga.models.resizing import resized, twin
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.train import Progress, Trainer
from reverb_fpga.models.zoo import DatasetSpec, Options, build, describe

OPTIONS = Options(act_bits=8, width=0.25)


def _data(side: int) -> DatasetSpec:
    return DatasetSpec("toy", InputSpec(3, side, side, (120, 110, 100), (60.0,) * 3), ("a", "b", "c"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Bright squares whose size tells the class: visible at half the size."""
    folder = tmp_path_factory.mktemp("data") / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for stem, count in (("train", 300), ("t10k", 60)):
        labels = rng.integers(0, 2, count).astype(np.uint8)
        images = rng.integers(0, 90, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 : 12 + 12 * label, 4 : 12 + 12 * label] += 120
        write_idx(folder, stem, images, labels)
    return TrainSettings(
        "resnet20-classic", "mnist", str(folder.parent), OPTIONS, Augmentation(1, False), epochs=3, batch_size=30,
        lr=5e-3, qat_start=0.3, seed=3, small_side=14, small_until=0.6,
    )  # fmt: skip


def test_pixels_are_averaged() -> None:
    pixels = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    wanted = pixels.float().reshape(2, 3, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(resized(pixels, 2), wanted)
    frames = torch.stack([pixels, pixels], dim=1)
    torch.testing.assert_close(resized(frames, 2), torch.stack([wanted, wanted], dim=1))


def test_a_twin_trains_the_same_weights() -> None:
    network = build("resnet20-classic", _data(32), OPTIONS)
    small = twin(network, describe("resnet20-classic", _data(16), OPTIONS))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    small.train()
    small(torch.randint(0, 256, (4, 3, 16, 16))).square().sum().backward()
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {"layers.conv1.weight", "layers.conv1.bn.running_mean", "layers.fc1.weight"} <= changed
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in network.state_dict().items())


def test_networks_without_a_mean_are_refused() -> None:
    network = build("scnn5", _data(32), OPTIONS)
    with pytest.raises(InputError, match=r"layers.fc1.weight is .*only networks that end in a mean"):
        twin(network, describe("scnn5", _data(16), OPTIONS))


def test_a_run_begins_small_and_is_resumed_as_it_was(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = Network.forward

    def spy(network: Network, pixels: torch.Tensor, traces: list[LayerTrace] | None = None) -> torch.Tensor:
        if network.training:
            seen.append(pixels.shape[-1])
        return forward(network, pixels, traces)

    monkeypatch.setattr(Network, "forward", spy)
    result = Trainer(settings, tmp_path / "whole").run()
    assert result.accuracy > 80
    assert seen == [14] * 16 + [28] * 8

    class Interrupted(Exception):
        pass

    def interrupt(state: Progress) -> None:
        if state.epoch == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        Trainer(settings, tmp_path / "parts", progress=interrupt).run()
    Trainer(settings, tmp_path / "parts", resume=True).run()
    whole, _ = read_tensors(tmp_path / "whole/best.safetensors")
    parts, _ = read_tensors(tmp_path / "parts/best.safetensors")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole | parts)


def test_sizes_that_are_not_smaller_are_refused(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--small-side 28: the images have no more than that, 28 x 28"):
        Trainer(replace(settings, small_side=28), tmp_path)
    assert not list(tmp_path.iterdir())
