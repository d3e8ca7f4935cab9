"""The average of the weights over the last steps of training, which is what a run keeps where it is asked for.

Latent weights are averaged before their signs are taken: a weight that swings about zero gets the sign that it had for
longer (Izmailov et al. 2018 average whole networks; the exponential form is Polyak's with forgetting).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from reverb_fpga.models.network import Network

__all__ = ["SETTLED_ON", "WeightAverage"]

SETTLED_ON = 4096
"""Training images that the batch statistics of an average are measured on: they are those of no other network."""


class WeightAverage:
    """The exponential average of a network's parameters.

    Parameters
    ----------
    network : Network
        What is averaged.
    steps : float
        Over about how many steps, at least 1: the weight of a step falls by a factor e in so many.
    """

    def __init__(self, network: Network, steps: float) -> None:
        average = get_ema_multi_avg_fn(1 - 1 / max(1.0, steps))
        self._model = AveragedModel(network, multi_avg_fn=average)

    @property
    def network(self) -> Network:
        """The averaged network; its batch statistics are valid after :meth:`settle`."""
        network = self._model.module
        assert isinstance(network, Network)
        return network

    def restart(self) -> None:
        """Begin with the weights of the next step: those so far are of a network that computes something else."""
        self._model.n_averaged.zero_()

    def go_on(self) -> None:
        """Take the weights in :attr:`network` for the average so far."""
        self._model.n_averaged.fill_(1)

    def add(self, network: Network) -> None:
        """After a step of `network`."""
        self._model.update_parameters(network)

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Measure the batch statistics on `batches` of pixel codes (N, C, H, W) or (N, T, C, H, W).

        What the network itself is held to after every step is made good first: an average of alphas that changed their
        signs may be next to nothing.
        """
        self.network.constrain()
        update_bn(batches, self._model, self.network.mean.device)
