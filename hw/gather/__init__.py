"""The gather: finds the events of every output position and reads their weight rows."""

from .gather import Gather
from .model import GatherMemory, Sources, gather_events, pass_flags, source_records

__all__ = ["Gather", "GatherMemory", "Sources", "gather_events", "pass_flags", "source_records"]
