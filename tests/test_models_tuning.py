"""What makes training faster on a processor, and changes nothing else."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from reverb_fpga.models.augment import Augmentation, TrainingSet
from reverb_fpga.models.image_set import ImageSet
from reverb_fpga.models.tuning import bfloat16_pays, keep_memory


def test_glibc_is_told_to_keep_memory() -> None:
    assert keep_memory() is (platform.libc_ver()[0] == "glibc")


def test_bfloat16_follows_the_processor() -> None:
    assert bfloat16_pays(torch.device("cuda"))
    assert bfloat16_pays(torch.device("cpu")) is torch.cpu._is_avx512_bf16_supported()
    assert not bfloat16_pays(torch.device("meta"))


@pytest.mark.parametrize("epoch", [0, 7])
def test_an_image_is_mirrored_every_other_epoch(epoch: int) -> None:
    images = np.arange(40 * 4 * 4 * 1, dtype=np.uint8).reshape(40, 4, 4, 1)
    data = TrainingSet(ImageSet(images, np.arange(40), tuple("ab")), Augmentation(0, True), (0,))

    def drawn(number: int) -> np.ndarray:
        (batch,) = data.epoch(40, 3, number)
        found = np.zeros_like(images)
        found[batch.positions] = batch.images.permute(0, 2, 3, 1).numpy()
        return found

    first, second, third = (drawn(epoch + step) for step in range(3))
    assert np.array_equal(second, first[:, :, ::-1])
    assert np.array_equal(third, first)
    mirrored = (first != images).any((1, 2, 3)).mean()
    assert 0.2 < mirrored < 0.8
