"""Dynamic data pruning (InfoBatch): epochs that leave out images the network already knows, without bias.

Every training image keeps the loss it last had. An epoch leaves out each image below the mean loss with probability
``ratio`` and weights those below the mean that stay by ``1 / (1 - ratio)``, so that the expected gradient is that of
all images. The first epoch, when no loss is known, and the last eighth of the epochs use every image.

Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LossPruning"]

_WHOLE_FROM = 0.875  # share of the epochs after which nothing is left out: the end of training sees no variance of it
_STREAM = 1 << 21  # keeps the drawing apart from the random numbers of order and augmentation


class LossPruning:
    """The losses of all training images, and the drawing of epochs from them.

    Parameters
    ----------
    count : int
        Training images.
    ratio : float
        Probability that an image below the mean loss is left out; 0 leaves nothing out.
    epochs : int
        Length of the run.
    seed : int
        The drawing follows from it, the epoch's number and the losses.
    least : int
        An epoch that would keep fewer images leaves none out: batch normalisation needs two of them.

    Attributes
    ----------
    scores : array of float32, (count,)
        Loss of every image when it was last trained on; NaN before.
    """

    def __init__(self, count: int, ratio: float, epochs: int, seed: int, least: int = 2) -> None:
        self.ratio, self.seed, self.least = ratio, seed, least
        self.whole_from = _WHOLE_FROM * epochs
        self.scores: NDArray[np.float32] = np.full(count, np.nan, np.float32)

    def draw(self, epoch: int) -> NDArray[np.float32]:
        """The weight of every image's loss in `epoch`, (count,); 0: left out."""
        weights = np.ones(len(self.scores), np.float32)
        if self.ratio and 0 < epoch < self.whole_from:
            known = self.scores[~np.isnan(self.scores)].astype(np.float64)
            below = self.scores < known.sum() / max(1, len(known))  # false for NaN
            left_out = np.random.default_rng((self.seed, epoch, _STREAM)).random(len(below)) < self.ratio
            if np.count_nonzero(~(below & left_out)) >= self.least:
                weights[below] = 1 / (1 - self.ratio)
                weights[below & left_out] = 0
        return weights

    def learn(self, losses: NDArray[np.float32], trained: NDArray[np.bool_]) -> None:
        """Keep the `losses`, (count,), of those images that were `trained` on."""
        self.scores[trained] = losses[trained]
