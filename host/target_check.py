"""Whether a network fits its target, asked before it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError

if TYPE_CHECKING:
    from reverb_fpga.models.network import Network

__all__ = ["fits"]


def fits(target: str) -> Callable[[Network], None]:
    """A check that compiles an untrained network for a configuration: what it needs does not depend on its weights.

    The check raises InputError with what is too large and what to do; networks that are never compiled (with
    real weights) pass.
    """

    def check(network: Network) -> None:
        if any(layer.weight.kind == "real" for layer in network.spec.layers):
            return
        from reverb_fpga.compiler.pipeline import compile_network
        from reverb_fpga.models.checkpoint import Checkpoint

        state = network.state_dict()
        tensors = {name: state[name].detach().cpu().float().numpy() for name in network.spec.tensor_shapes()}
        try:
            compile_network(Checkpoint(network.spec, tensors), preset(target))
        except InputError as error:
            raise InputError(
                f"{error}; choose smaller images (--image-size, for data set folder), --arch, --width or --target; "
                "--target none trains without a target"
            ) from None

    return check
