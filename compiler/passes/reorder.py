"""The channels of tensors in another order: the same network to the bit.

Channel ``c`` of a tensor lies in bank ``c % banks``, so that the order decides which channels share a bank
(:mod:`~reverb_fpga.compiler.backend.banks` looks for a good one). Every map has a whole matrix, those of identity
shortcuts and of pooling, too: each tensor has an order of its own, and none is tied to another's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.intnet import IntGate, IntLayer, IntMap, IntNetwork
from reverb_fpga.hw.errors import InputError

__all__ = ["in_first_order", "reordered"]

Order = NDArray[np.int64]


def reordered(network: IntNetwork, orders: Mapping[str, Order]) -> IntNetwork:
    """A network whose tensors have their channels in other orders.

    Whatever is per channel goes along: rows and columns of weights, gains, biases, thresholds, gates. A linear layer
    reads every position of a tensor in its order. Layers note in ``order`` which channels of the network that was
    compiled theirs are.

    Parameters
    ----------
    network : IntNetwork
    orders : mapping of str to int array (C,)
        By tensor: for each new channel the present one. Tensors that are not named stay as they are.

    Raises
    ------
    InputError
        The input, the logits, or a tensor that there is not; or no permutation of its channels.
    """
    for name, order in orders.items():
        _check(network, name, order)
    return dataclasses.replace(network, layers=tuple(_layer(layer, orders) for layer in network.layers))


def in_first_order(network: IntNetwork) -> IntNetwork:
    """The network with the channels of all tensors as they were before they were reordered."""
    back = {layer.name: np.argsort(layer.order) for layer in network.layers if layer.order is not None}
    layers = (dataclasses.replace(layer, order=None) for layer in reordered(network, back).layers)
    return dataclasses.replace(network, layers=tuple(layers))


def _check(network: IntNetwork, name: str, order: Order) -> None:
    hidden = {layer.name: layer.channels for layer in network.layers[:-1]}
    if name not in hidden:
        raise InputError(f"tensor {name}: not one between two layers; only channels of those have another order")
    if not np.array_equal(np.sort(order), np.arange(hidden[name])):
        raise InputError(f"layer {name}: the order is no permutation of its {hidden[name]} channels")


def _layer(layer: IntLayer, orders: Mapping[str, Order]) -> IntLayer:
    maps = tuple(_read(leg, orders.get(leg.source)) for leg in layer.maps)
    order = orders.get(layer.name)
    if order is None:
        return dataclasses.replace(layer, maps=maps)
    before = np.arange(layer.channels) if layer.order is None else np.array(layer.order)
    return dataclasses.replace(
        layer,
        maps=tuple(_fired(leg, order) for leg in maps),
        threshold=layer.threshold[order],
        gate=None if layer.gate is None else _gate(layer.gate, order),
        order=tuple(int(channel) for channel in before[order]),
    )


def _read(leg: IntMap, order: Order | None) -> IntMap:
    """A map whose source has another order."""
    return leg if order is None else dataclasses.replace(leg, weight=np.ascontiguousarray(leg.weight[:, order]))


def _fired(leg: IntMap, order: Order) -> IntMap:
    """A map whose layer has another order."""
    weight = np.ascontiguousarray(leg.weight[order])
    return dataclasses.replace(leg, weight=weight, gain=leg.gain[order], bias=leg.bias[order])


def _gate(gate: IntGate, order: Order) -> IntGate:
    return dataclasses.replace(gate, gain=gate.gain[order], bias=gate.bias[order])
