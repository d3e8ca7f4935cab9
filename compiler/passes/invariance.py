"""Time that changes nothing is not spent: the proof of which tensors are the same at every step."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatNetwork

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

    The current of a layer is the same at every step if all its maps, shortcuts included, read tensors that are. With
    ``V_th = 0`` it then either fires and is reset in each step, or the membrane only sinks (``tau >= 0`` times
    something negative plus the same negative current) and it never fires: its spikes are ``max(y, 0)`` at every step.
    A gate whose factor is the same at every step multiplies equal currents alike.
    A soft reset keeps what is above it, so this holds of a hard one alone.
    With ``tau = 0`` nothing is kept from one step to the next, whatever the threshold. By induction over the graph
    from a static input. With one step there is nothing to prove.
    """
    once = network.static_input or network.timesteps == 1
    static = {INPUT: once}
    tensors = [(INPUT, once, "one image for all steps" if once else "changes from step to step")]
    for layer in network.layers:
        changing = [name for name in layer.sources if not static[name]]
        same, reason = _judge(layer, changing, network.timesteps)
        static[layer.name] = same
        tensors.append((layer.name, same, reason))
    # the mean of equal logits is any one of them
    return Invariance(tuple(tensors), network.timesteps, 1 if tensors[-1][1] else network.timesteps)


def _judge(layer: FloatLayer, changing: list[str], timesteps: int) -> tuple[bool, str]:
    if changing:
        return False, "its source changes" if len(layer.maps) == 1 else f"{changing[0]}, which it reads, changes"
    if layer.gate is not None and len(set(layer.gate.factor.tolist())) > 1:
        return False, "the factors of its gate change"
    if not layer.spiking:
        return True, "current of an unchanging source"
    if timesteps == 1 or (layer.v_th == 0 and layer.reset is None):
        return True, "V_th = 0: each step fires and resets, or the membrane only sinks"
    if layer.tau == 0:
        return True, "tau = 0: nothing is kept from step to step"
    if layer.v_th == 0:
        return False, "its reset is soft: the membrane gathers charge over steps"
    return False, f"V_th = {layer.v_th:g}: the membrane gathers charge over steps"


def drop_redundant_time(network: FloatNetwork, proof: Invariance) -> FloatNetwork:
    """The network with the steps that the proof leaves: tensors that never change are computed once."""
    static = {name: same for name, same, _ in proof.tensors}
    layers = tuple(
        dataclasses.replace(layer, timesteps=1 if static[layer.name] else proof.emitted) for layer in network.layers
    )
    return dataclasses.replace(network, layers=layers, timesteps=proof.emitted)
