"""Frames of the link: COBS between zero bytes, closed by a CRC-32. See ``docs/protocol.md``."""

from __future__ import annotations

import zlib

__all__ = ["FrameDecoder", "FramingError", "cobs_decode", "cobs_encode", "encode_frame"]

SEPARATOR = b"\0"
CRC_BYTES = 4
MAX_ENCODED = 2048  # no frame of the protocol is longer; bounds what garbage can occupy


class FramingError(Exception):
    """Bytes between two separators that are not a frame. Never leaves the host package: the request is repeated."""


def cobs_encode(data: bytes) -> bytes:
    """Encode ``data`` so that it holds no zero byte."""
    out = bytearray()
    blocks = data.split(SEPARATOR)
    for number, block in enumerate(blocks):
        while len(block) >= 254:
            out += b"\xff" + block[:254]
            block = block[254:]
            if not block and number == len(blocks) - 1:
                return bytes(out)  # a full last block stands for no zero, so nothing need follow it
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    """Inverse of :func:`cobs_encode`.

    Raises
    ------
    FramingError
        If ``data`` holds a zero or ends inside a block.
    """
    if 0 in data:
        raise FramingError("a zero inside a frame")
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        block = data[at + 1 : at + code]
        if len(block) != code - 1:
            raise FramingError("a frame that ends inside a block")
        out += block
        at += code
        if code != 255 and at < len(data):
            out.append(0)
    return bytes(out)


def encode_frame(content: bytes) -> bytes:
    """Bytes on the wire for ``content`` (opcode, sequence number, body)."""
    crc = zlib.crc32(content).to_bytes(CRC_BYTES, "little")
    return SEPARATOR + cobs_encode(content + crc) + SEPARATOR


def _decode(encoded: bytes) -> bytes:
    data = cobs_decode(encoded)
    content, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if len(content) < 2 or zlib.crc32(content).to_bytes(CRC_BYTES, "little") != crc:
        raise FramingError("a frame whose CRC is wrong")
    return content


class FrameDecoder:
    """Finds frames in a stream of bytes that may be damaged in any way."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes | None]:
        """Take received bytes.

        Returns
        -------
        list
            The content of every frame that ended within ``data``; None stands for a damaged one.
        """
        frames: list[bytes | None] = []
        *ended, rest = (bytes(self._pending) + data).split(SEPARATOR)
        for encoded in ended:
            if encoded:
                try:
                    frames.append(_decode(encoded))
                except FramingError:
                    frames.append(None)
        self._pending = bytearray(rest[-MAX_ENCODED - 1 :])  # one byte too many already cannot be a frame
        return frames

    def clear(self) -> None:
        """Forget a frame that has begun."""
        self._pending.clear()
