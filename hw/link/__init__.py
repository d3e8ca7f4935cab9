"""The host link: UART, framing and the request processor of ``docs/protocol.md``."""

from __future__ import annotations

from .cobs import CobsDecoder, CobsEncoder
from .link import Link
from .processor import CommandProcessor
from .receiver import FrameReceiver
from .transmitter import FrameTransmitter
from .uart import UartReceiver, UartTransmitter

__all__ = [
    "CobsDecoder",
    "CobsEncoder",
    "CommandProcessor",
    "FrameReceiver",
    "FrameTransmitter",
    "Link",
    "UartReceiver",
    "UartTransmitter",
]
