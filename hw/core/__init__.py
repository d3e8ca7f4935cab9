"""The core: bus decode, sequencer, counters, and the data path they drive."""

from .bus import BusDecoder
from .core import Core
from .fetch import DescriptorFetch
from .section_hash import SectionHash
from .sequencer import Activity, Sequencer

__all__ = ["Activity", "BusDecoder", "Core", "DescriptorFetch", "SectionHash", "Sequencer"]
