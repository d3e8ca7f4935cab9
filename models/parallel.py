"""Data-parallel training under ``torchrun``: every process takes its share of each batch, gradients are averaged.

One process on its own is a team of one, and nothing here costs it anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.network import Network

__all__ = ["Team", "join_team"]


@dataclass(frozen=True)
class Team:
    """The processes of one run.

    Attributes
    ----------
    rank, size : int
        This process and how many there are; rank 0 writes the files.
    device : torch.device
        Where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def share(self, network: Network) -> None:
        """Give every process the parameters and statistics of rank 0."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of `values` over all processes; float32, any shape."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    @torch.no_grad()
    def average_gradients(self, network: Network) -> None:
        """Mean of the gradients over all processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].reshape(gradient.shape))
            start += gradient.numel()


def join_team(device: str = "auto") -> Team:
    """The team of this process: that of ``torchrun`` where it was started by it, else a team of one.

    `device` is ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``. Raises InputError where there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this torch sees no GPU; use --device cpu")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not dist.is_torchelastic_launched():
        return Team(device=torch.device("cuda" if on_gpu else "cpu"))
    local = int(os.environ["LOCAL_RANK"])  # set by torchrun, like the addresses that init_process_group reads
    chosen = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return Team(dist.get_rank(), dist.get_world_size(), chosen)
