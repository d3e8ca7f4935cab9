"""What the blocks of the link say to each other."""

from __future__ import annotations

from amaranth.hdl import unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..contract import Field
from ..signatures import byte_stream

__all__ = [
    "COUNT_BITS",
    "DATA_HEADER",
    "REPORT_HEADER",
    "REQUEST_HEADER",
    "Decoded",
    "HeldRequest",
    "Response",
    "StreamState",
    "header_layout",
    "received_bytes",
]

COUNT_BITS = 11  # of the bytes of a frame


def header_layout(fields: tuple[Field, ...]) -> data.StructLayout:
    """Layout of the first bytes of a frame, the first byte in the low bits."""
    return data.StructLayout({field.name: unsigned(field.width) for field in fields})


REQUEST_HEADER = header_layout(contract.REQUEST_HEADER)
DATA_HEADER = header_layout(contract.DATA_HEADER)
REPORT_HEADER = header_layout(contract.REPORT_HEADER)


def received_bytes() -> stream.Signature:
    """Bytes from a PHY; ``error``: this one arrived damaged, or others before it were lost."""
    return stream.Signature(data.StructLayout({"data": 8, "error": 1}))


class Decoded(wiring.Signature):
    """Frames as they are decoded, byte by byte.

    Members
    -------
    strobe, data : Out(1), Out(8)
        A byte.
    count : Out(11)
        Bytes of this frame before it; all of them, CRC included, with ``end``. Stays at its largest value.
    end : Out(1)
        Pulse, never with ``strobe``: the frame is over.
    good : Out(1)
        With ``end``: its COBS and its CRC are right, and no byte arrived damaged.
    """

    def __init__(self) -> None:
        super().__init__({"strobe": Out(1), "data": Out(8), "count": Out(COUNT_BITS), "end": Out(1), "good": Out(1)})


class HeldRequest(wiring.Signature):
    """A request, seen from the receiver that holds it.

    Members
    -------
    valid : Out(1)
        A request is held, until ``release``.
    header : Out(layout of REQUEST_HEADER)
        Its first bytes; those beyond ``length`` mean nothing.
    length : Out(11)
        Its bytes without the CRC.
    addr : In(11)
        Byte to be read.
    data : Out(8)
        The byte at the ``addr`` of one cycle ago. Not of the header, and only while no stream is open.
    release : In(1)
        The request is done with.
    bad : Out(1)
        Pulse: a frame was dropped that may have been a request (damaged, too short, too long, or one was held).
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "header": Out(REQUEST_HEADER),
                "length": Out(COUNT_BITS),
                "addr": In(COUNT_BITS),
                "data": Out(8),
                "release": In(1),
                "bad": Out(1),
            }
        )


class Response(wiring.Signature):
    """A frame to be sent, seen from who makes it.

    Members
    -------
    start : Out(1)
        Begins a frame (also in the middle of another, which is lost).
    aside : Out(1)
        With ``start``: a short frame that leaves the kept one as it is.
    payload : Out(byte stream)
        Its bytes without the CRC. Not in a cycle with ``start``.
    finish : Out(1)
        All bytes are in: close it and send it.
    repeat : Out(1)
        Send the kept frame again.
    busy : In(1)
        A frame is being closed or sent; nothing may be asked for.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": Out(1),
                "aside": Out(1),
                "payload": Out(byte_stream()),
                "finish": Out(1),
                "repeat": Out(1),
                "busy": In(1),
            }
        )


class StreamState(wiring.Signature):
    """How far a stream's input is, seen from the receiver.

    Members
    -------
    position, limit : Out(32)
        Of the next byte, and of the first for which there is no room; the latter a clock late.
    turn : Out(8)
        Of the last DATA frame.
    epoch : Out(32)
        Of the last DATA frame, ours or not.
    taken : Out(32)
        Of the last DATA frame that was ours.
    acknowledge : Out(1)
        Pulse: ``taken`` is new.
    question, gap, stranger : Out(1)
        Pulses: a report is wanted because the host asks, bytes are missing, or the frame belongs to no stream of ours.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "position": Out(32),
                "limit": Out(32),
                "turn": Out(8),
                "epoch": Out(32),
                "taken": Out(32),
                "acknowledge": Out(1),
                "question": Out(1),
                "gap": Out(1),
                "stranger": Out(1),
            }
        )
