"""Spiking neurons of other frameworks, and what they are in the target's terms.

The target: ``U = tau * V + y``; fires where ``U >= v_th`` (or ``>``); then ``V = 0``, or ``V = U - reset``; ``y`` is
the current times ``gain``. A module is known by the name of its class and of the package it comes from, so that nothing
is imported that the user has not imported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RELU", "Neuron", "class_of", "framework_of", "neuron_of"]

Reals = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Neuron:
    """A layer of neurons.

    Parameters
    ----------
    tau : float
        What a membrane is multiplied by from step to step.
    v_th : float64 array, () or one per channel, or one per neuron
    gain : float
        Of the current.
    reset : float64 array or None
        Soft reset, as ``v_th``: what is taken off before the leak; None: hard.
    strict : bool
        Fires above the threshold, not at it.
    binary : bool
        Spikes of 1; else the membrane.
    factor : float
        Value of a spike.
    """

    tau: float
    v_th: Reals
    gain: float = 1.0
    reset: Reals | None = None
    strict: bool = False
    binary: bool = True
    factor: float = 1.0


RELU = Neuron(0.0, np.zeros(()), binary=False)
"""A real-valued spike of everything that is not negative."""


def framework_of(module: nn.Module) -> str:
    """The package of the nearest class of a known framework; ``""`` if there is none."""
    for kind in type(module).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("spikingjelly", "snntorch", "reverb_fpga"):
            return package
        if package == "torch":
            break
    return ""


def class_of(module: nn.Module) -> type:
    """A module's class as it was before ``parametrize`` made another of it."""
    return next(kind for kind in type(module).__mro__ if kind.__module__ != "torch.nn.utils.parametrize")


def neuron_of(module: nn.Module) -> Neuron | None:
    """What a module's neurons are; None if it has none.

    Raises
    ------
    InputError
        Neurons that the target does not have, with the reason.
    """
    kind, package = class_of(module), framework_of(module)
    read = _READERS.get((package, kind.__name__)) if kind.__module__.partition(".")[0] == package else None
    if read is not None:
        return read(module)
    known = _NEURON_BASES.get(package, ())
    if any(base.__name__ in known for base in kind.__mro__):
        ours = ", ".join(name for framework, name in _READERS if framework == package)
        raise InputError(f"{kind.__name__} neurons of {package} have no counterpart; supported are {ours}")
    return None


_NEURON_BASES = {"spikingjelly": ("BaseNode", "SimpleBaseNode", "MemoryModule"), "snntorch": ("SpikingNeuron",)}


def _one(value: Any, what: str) -> float:
    """A number that all neurons share."""
    values = _numbers(value)
    if not np.all(values == values.flat[0]):
        raise InputError(f"{what} differs from neuron to neuron; one per layer is supported")
    return float(values.flat[0])


def _numbers(value: Any) -> Reals:
    tensor = value.detach().cpu().double().numpy() if hasattr(value, "detach") else value
    return np.asarray(tensor, dtype=np.float64)


def _leak(tau: float) -> float:
    if not 0 <= tau <= 1:
        raise InputError(f"its membrane is multiplied by {tau:g} each step; 0 to 1 is supported")
    return tau


# SpikingJelly: heaviside(v - v_threshold) with v >= v_threshold; v_reset None is the soft reset


def _spikingjelly(module: Any, tau: float, gain: float) -> Neuron:
    threshold = _numbers(module.v_threshold)
    if module.v_reset is None:
        return Neuron(_leak(tau), threshold, gain, reset=threshold)
    return Neuron(_leak(tau), threshold - _one(module.v_reset, "v_reset"), gain)  # v - v_reset is the membrane


def _if_node(module: Any) -> Neuron:
    return _spikingjelly(module, 1.0, 1.0)


def _lif_node(module: Any) -> Neuron:
    rate = 1.0 / float(module.tau)
    return _spikingjelly(module, 1.0 - rate, rate if module.decay_input else 1.0)


def _plif_node(module: Any) -> Neuron:
    rate = 1.0 / (1.0 + math.exp(-_one(module.w, "its decay")))
    return _spikingjelly(module, 1.0 - rate, rate if module.decay_input else 1.0)


# snnTorch: spike where mem > threshold; the reset comes one step later, after the leak


def _snntorch(module: Any, tau: float, gain: float) -> Neuron:
    if module.inhibition:
        raise InputError(
            "inhibition lets one neuron of a layer fire alone; the target's neurons know nothing of others"
        )
    if module.state_quant:
        raise InputError("state_quant rounds the membrane in a way of its own")
    tau, threshold = _leak(tau), _numbers(module.threshold)
    factor = _one(getattr(module, "graded_spikes_factor", 1.0), "graded_spikes_factor")
    if module.reset_mechanism == "none":
        return Neuron(tau, threshold, gain, reset=np.zeros(()), strict=True, factor=factor)
    if module.reset_mechanism == "zero":
        return Neuron(tau, threshold, gain, strict=True, factor=factor)
    if not getattr(module, "reset_delay", True):
        raise InputError(
            "reset_delay=False with reset by subtraction takes the threshold off twice from a membrane above twice the "
            "threshold; use reset_delay=True"
        )
    if tau == 0:
        raise InputError("beta = 0 with reset by subtraction leaves a membrane of minus the threshold; use 'zero'")
    return Neuron(tau, threshold, gain, reset=threshold / tau, strict=True, factor=factor)


def _leaky(module: Any) -> Neuron:
    return _snntorch(module, float(np.clip(_one(module.beta, "beta"), 0, 1)), 1.0)


def _lapicque(module: Any) -> Neuron:
    if module.reset_mechanism == "zero":
        raise InputError(
            "Lapicque with reset_mechanism='zero' loses the current of the step after a spike; use snn.Leaky, or "
            "'subtract'"
        )
    resistance, capacity = _one(module.R, "R"), _one(module.C, "C")
    step = _one(module.time_step, "time_step")
    return _snntorch(module, 1.0 - step / (resistance * capacity), step / capacity)


def _euler(module: Any) -> Neuron:
    return Neuron(
        _leak(_one(module.tau, "its leak")), _numbers(module.v_th), _one(module.gain, "its resistance"), strict=True
    )


def _reverb(module: Any) -> Neuron:
    return Neuron(_leak(float(module.tau)), np.asarray(float(module.v_th)), binary=bool(module.binary))


_READERS: dict[tuple[str, str], Callable[[Any], Neuron]] = {
    ("spikingjelly", "IFNode"): _if_node,
    ("spikingjelly", "LIFNode"): _lif_node,
    ("spikingjelly", "ParametricLIFNode"): _plif_node,
    ("snntorch", "Leaky"): _leaky,
    ("snntorch", "Lapicque"): _lapicque,
    ("reverb_fpga", "EulerLIF"): _euler,
    ("reverb_fpga", "LIF"): _reverb,
}
