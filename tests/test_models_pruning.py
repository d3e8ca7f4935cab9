"""Dynamic data pruning: unbiased, reproducible, and resumed exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import write_brightness

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.augment import Augmentation
from reverb_fpga.models.checkpoint import read_tensors
from reverb_fpga.models.pruning import LossPruning
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.train import Progress, Trainer
from reverb_fpga.models.zoo import Options


def _scored(ratio: float, epochs: int = 16, count: int = 4000) -> LossPruning:
    pruning = LossPruning(count, ratio, epochs, seed=3)
    losses = np.random.default_rng(0).exponential(1.0, count).astype(np.float32)
    pruning.learn(losses, np.ones(count, bool))
    return pruning


def test_images_below_the_mean_are_left_out_at_the_ratio() -> None:
    pruning = _scored(0.5)
    weights = pruning.draw(4)
    below = pruning.scores < pruning.scores.mean()
    assert (weights[below] > 0).mean() == pytest.approx(0.5, abs=0.04)
    assert set(weights[below].tolist()) == {0.0, 2.0}
    assert set(weights[~below].tolist()) == {1.0}


def test_the_expected_sum_of_losses_is_that_of_all_images() -> None:
    pruning = _scored(0.7, epochs=1000)
    sums = [float((weights * pruning.scores).sum()) for weights in map(pruning.draw, range(1, 300))]
    assert np.mean(sums) == pytest.approx(float(pruning.scores.sum()), rel=0.01)


@pytest.mark.parametrize(("ratio", "epoch"), [(0.0, 4), (0.5, 0), (0.5, 14), (0.5, 15)])
def test_first_and_last_epochs_use_every_image(ratio: float, epoch: int) -> None:
    assert np.array_equal(_scored(ratio).draw(epoch), np.ones(4000))


def test_drawing_follows_from_seed_epoch_and_scores() -> None:
    one, two = _scored(0.5), _scored(0.5)
    assert np.array_equal(one.draw(3), two.draw(3))
    assert not np.array_equal(one.draw(3), one.draw(4))


def test_images_without_a_loss_are_never_left_out() -> None:
    pruning = LossPruning(100, 0.9, 10, 0)
    assert (pruning.draw(5) > 0).all()
    losses, trained = np.arange(100, dtype=np.float32), np.arange(100) < 50
    pruning.learn(losses, trained)
    assert (pruning.draw(5)[25:] > 0).all()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Two classes of 28x28 pictures, one brighter than the other, as idx files."""
    folder = tmp_path_factory.mktemp("data")
    write_brightness(folder, 300, 50)
    return TrainSettings(
        "scnn5", "mnist", str(folder), Options(act_bits=8, width=0.125), Augmentation(1, False), epochs=8,
        batch_size=16, prune_ratio=0.5, seed=3,
    )  # fmt: skip


def test_a_pruned_run_takes_fewer_steps_and_resumes_exactly(settings: TrainSettings, tmp_path: Path) -> None:
    result = Trainer(settings, tmp_path / "whole").run()
    assert result.accuracy > 90
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    images = [line["images"] for line in lines]
    assert images[0] == images[-1] == 240
    assert min(images[1:7]) < 200

    class Interrupted(Exception):
        pass

    def interrupt(state: Progress) -> None:
        if (state.epoch, state.step) == (3, 2):
            raise Interrupted

    with pytest.raises(Interrupted):
        Trainer(settings, tmp_path / "parts", progress=interrupt).run()
    Trainer(settings, tmp_path / "parts", resume=True).run()
    whole, _ = read_tensors(tmp_path / "whole/last.safetensors")
    parts, _ = read_tensors(tmp_path / "parts/last.safetensors")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole | parts)


def test_a_ratio_that_leaves_nothing_is_refused(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="left out"):
        Trainer(replace(settings, prune_ratio=1.0), tmp_path)
