"""Neuron unit and input encoder: currents to membranes to events."""

from .accumulator import SlotAccumulator
from .emitter import Emitter
from .encoder import InputEncoder
from .lane import NeuronLane, NeuronParams
from .unit import NeuronUnit

__all__ = ["Emitter", "InputEncoder", "NeuronLane", "NeuronParams", "NeuronUnit", "SlotAccumulator"]
