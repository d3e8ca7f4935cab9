"""Neuron unit and input encoder: currents to membranes to events."""

from .accumulator import SlotAccumulator
from .emitter import Emitter
from .encoder import InputEncoder
from .lane import NeuronPair, NeuronParams
from .unit import NeuronUnit

__all__ = ["Emitter", "InputEncoder", "NeuronPair", "NeuronParams", "NeuronUnit", "SlotAccumulator"]
