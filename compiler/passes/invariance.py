"""Time that changes nothing is not spent: the proof of which tensors are the same at every step."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.passes.graph import FloatNetwork

__all__ = ["Invariance", "drop_redundant_time", "prove_invariance"]


@dataclasses.dataclass(frozen=True)
class Invariance:
    """What was proven.

    Parameters
    ----------
    tensors : tuple of (name, bool, reason)
        The input and every layer's output: whether it is the same at every step, and why.
    trained, emitted : int
        Time steps of training and of the program.
    """

    tensors: tuple[tuple[str, bool, str], ...]
    trained: int
    emitted: int


def prove_invariance(network: FloatNetwork) -> Invariance:
    """Tensors that are the same at every step.

    A layer with ``V_th = 0`` whose current is the same at every step either fires and is reset in each, or its membrane
    only sinks (``tau >= 0`` times something negative plus the same negative current) and it never fires: its spikes are
    ``max(y, 0)`` at every step. By induction from a static input. With one step there is nothing to prove.
    """
    static = network.static_input or network.timesteps == 1
    tensors = [("input", static, "one image for all steps" if static else "changes from step to step")]
    for layer in network.layers:
        if not static:
            reason = "its source changes"
        elif not layer.spiking:
            reason = "current of an unchanging source"
        elif layer.v_th == 0 or network.timesteps == 1:
            reason = "V_th = 0: each step fires and resets, or the membrane only sinks"
        else:
            static, reason = False, f"V_th = {layer.v_th:g}: the membrane gathers charge over steps"
        tensors.append((layer.name, static, reason))
    # the mean of equal logits is any one of them
    return Invariance(tuple(tensors), network.timesteps, 1 if static else network.timesteps)


def drop_redundant_time(network: FloatNetwork, proof: Invariance) -> FloatNetwork:
    """The network with the steps that the proof leaves."""
    return dataclasses.replace(network, timesteps=proof.emitted)
