"""The golden model: executes a compiled program in integers, vectorised over images.

``docs/numerics.md`` is its specification. It needs numpy, and threadpoolctl to share its threads; numba makes it faster
where there is much to compute.
"""

from .model import GoldenModel
from .trace import DescriptorStats, MemoryImage

__all__ = ["DescriptorStats", "GoldenModel", "MemoryImage"]
