"""The state of a run between epochs: network, optimiser and counters, in one safetensors file (no pickle)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.checkpoint import STATE_KEY, read_tensors, write_tensors
from reverb_fpga.models.network import Network

__all__ = ["RunState", "load_state", "save_state"]

_SCORES = "scores"


@dataclass(frozen=True)
class RunState:
    """Counters of a run.

    Attributes
    ----------
    epoch : int
        Finished epochs.
    best : float
        Best held-out accuracy (percent) among epochs that count; -1 before the first.
    sparse : bool
        Whether that epoch had the density that the penalty aims at.
    quantised : bool
        Whether rounding has begun (the input scales are initialised).
    last_accuracy : float or None
        Held-out accuracy of the last epoch.
    """

    epoch: int = 0
    best: float = -1.0
    quantised: bool = False
    last_accuracy: float | None = None
    sparse: bool = False


def save_state(
    path: Path,
    networks: Mapping[str, Network],
    optimiser: torch.optim.Optimizer,
    state: RunState,
    scores: NDArray[np.float32],
) -> None:
    """Write everything that the next epoch depends on; the file is replaced whole.

    `networks` are ``network``, the one that is trained, and others of its shape by other names; `scores` the losses of
    the training images, (images,).
    """
    tensors = {
        f"{kind}.{name}": value for kind, network in networks.items() for name, value in network.state_dict().items()
    }
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()} | {_SCORES: scores}
    write_tensors(path, arrays, {STATE_KEY: json.dumps(asdict(state)), "network": networks["network"].spec.to_json()})


def load_state(
    path: Path, networks: Mapping[str, Network], optimiser: torch.optim.Optimizer, scores: NDArray[np.float32]
) -> RunState:
    """Restore `networks`, `optimiser` and `scores` in place; returns the counters.

    Raises InputError where they do not fit.
    """
    arrays, metadata = read_tensors(path)
    if metadata.get("network") != networks["network"].spec.to_json():
        raise InputError(f"{path}: the state of another network; resume with the settings of that run")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    own = {kind: network.state_dict() for kind, network in networks.items()}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, torch.Tensor]] = {}
    try:
        state = RunState(**json.loads(metadata[STATE_KEY]))
        scores[:] = arrays[_SCORES]
        for kind, entries_of in own.items():
            for name, value in entries_of.items():
                value.copy_(tensors[f"{kind}.{name}"])
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, field = name.split(".", 2)
                entries.setdefault(int(index), {})[field] = _ordered_like(parameters[int(index)], value)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: damaged state: {str(error)[:120]}") from None
    optimiser.load_state_dict(optimiser.state_dict() | {"state": entries})
    return state


def _ordered_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A moment in the memory order of its parameter, as the fused optimiser takes for granted; a counter as it is."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
