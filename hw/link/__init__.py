"""The host link: PHY, framing, requests and streams of ``docs/protocol.md``."""

from __future__ import annotations

from .arbiter import BusArbiter
from .cobs import CobsDecoder, CobsEncoder
from .deframer import Deframer
from .engine import StreamEngine
from .handover import Handover
from .link import Link
from .processor import CommandProcessor
from .receiver import FrameReceiver
from .reporter import Reporter
from .results import ResultStore
from .serial import SerialLink, UsbLink
from .transmitter import FrameTransmitter
from .uart import UartPhy, UartReceiver, UartTransmitter
from .usb import UsbPhy

__all__ = [
    "BusArbiter",
    "CobsDecoder",
    "CobsEncoder",
    "CommandProcessor",
    "Deframer",
    "FrameReceiver",
    "FrameTransmitter",
    "Handover",
    "Link",
    "Reporter",
    "ResultStore",
    "SerialLink",
    "StreamEngine",
    "UartPhy",
    "UartReceiver",
    "UartTransmitter",
    "UsbLink",
    "UsbPhy",
]
