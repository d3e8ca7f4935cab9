"""The lane array: masked adder trees and accumulators, in clusters."""

from .array import LaneArray
from .cluster import Cluster
from .masked import MaskedPairs
from .tree import AdderTree

__all__ = ["AdderTree", "Cluster", "LaneArray", "MaskedPairs"]
