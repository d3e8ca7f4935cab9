"""A scale per channel of a tensor, where its readers' weights are integers times such a scale and one per output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.frontends.neurons import Neuron
from reverb_fpga.compiler.frontends.values import Term, Value
from reverb_fpga.compiler.frontends.weights import exact_integers
from reverb_fpga.models.description import ALPHA_RATIO

__all__ = ["find_alphas", "without_alpha"]

Reals = NDArray[np.float64]
Fired = Mapping[str, tuple[Value, Neuron | None]]


def find_alphas(fired: Fired, terms: Iterable[Term]) -> dict[str, Reals]:
    """Alpha (C,) of tensors of real-valued spikes whose readers need it for their weights to be exact.

    What a layer fires then carries alpha (``fold``), as with the trainer's. Max pooling keeps codes,
    so what is pooled has the alpha of its source. Where one reader's weights are no such product, there is none.
    """
    readers: dict[str, list[Term]] = {}
    for term in terms:
        if term.source in fired:
            readers.setdefault(_root(fired, term.source), []).append(term)
    alphas = {}
    for name, found in readers.items():
        neuron = fired[name][1]
        if neuron is None or neuron.binary or neuron.reset is not None:
            continue
        linear = [term.linear.weight for term in found if term.linear is not None]
        alpha = _common(linear)
        added = any(term.linear is None for term in found)  # a shortcut: it is divided by alpha, and keeps its codes
        if alpha is not None and not (added and alpha.max() > ALPHA_RATIO * alpha.min()):
            alphas[name] = alpha
    return {name: alphas[root] for name in fired if (root := _root(fired, name)) in alphas}


def without_alpha(weight: Reals, alpha: Reals | None) -> Reals:
    """What the weights (C_out, C, K_h, K_w) are to a source that carries alpha."""
    return weight if alpha is None else weight / alpha[None, :, None, None]


def _root(fired: Fired, name: str) -> str:
    """The layer whose spikes a tensor holds: itself, or what it is max-pooled from."""
    while fired[name][1] is None:
        name = fired[name][0].terms[0].source
    return name


def _common(weights: list[Reals]) -> Reals | None:
    """A scale per input channel, at most 1, that makes all of these exact; None if none is needed, or found."""
    if all(exact_integers(weight) is not None for weight in weights):
        return None
    for weight in weights:
        for alpha in _candidates(weight):
            if all(exact_integers(without_alpha(other, alpha)) is not None for other in weights):
                return alpha
    return None


def _candidates(weight: Reals) -> Iterator[Reals]:
    """Scales per input channel that weights (C_out, C_in, K_h, K_w) may have."""
    peak = np.abs(weight).reshape(*weight.shape[:2], -1).max(axis=2)
    rows = peak.max(axis=1, keepdims=True)
    for found in (peak.max(axis=0), (peak / np.where(rows > 0, rows, 1)).max(axis=0)):
        if found.max() > 0:
            yield np.where(found > 0, found / found.max(), 1.0)  # a channel that none of these reads has no scale
