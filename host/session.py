"""Requests over a line that may lose, damage or repeat bytes: each is executed exactly once, or reported as failed."""

from __future__ import annotations

import dataclasses
import secrets
import struct
from typing import Self

from reverb_fpga.hw import contract
from reverb_fpga.hw.contract import LinkOp, LinkStatus
from reverb_fpga.hw.errors import DeviceError

from .framing import FrameDecoder, encode_frame
from .transport import Transport

__all__ = ["SIMULATED", "Identity", "Session", "SilenceError", "Timing"]

HELLO_BODY = struct.Struct("<IIIIIHB")
BYTE_BITS = 10  # on the line
SLACK = 1.5  # a line may pause between bytes
GRACE = 0.25  # share of the time for an answer that is waited on after a sign that there may be none
FRAME_OVERHEAD = 16  # separators, COBS codes, opcode, sequence number, status, CRC; rounded up


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds of the transport's clock.

    Parameters
    ----------
    response : float
        For a response, beside the time of its bytes on the line.
    per_byte : float
        For a byte on the line, either way.
    tries, hello_tries : int
        Times that a request is sent before it is reported as failed.
    lost : float
        Waiting in vain, in all, beyond what answers make up for: a line that answers now and then is given up.
    run : float
        For the core to check a program, or to compute one image.
    """

    response: float = 0.8
    per_byte: float = 2e-4
    lost: float = 20.0
    tries: int = 8
    hello_tries: int = 3
    run: float = 30.0

    @classmethod
    def at(cls, baud: int) -> Self:
        """For a line of this rate, 8N1."""
        return cls(per_byte=BYTE_BITS * SLACK / baud)


SIMULATED = Timing(response=20.0, per_byte=0.02, tries=4, lost=600.0, run=7200.0)
"""For gateware in simulation on a busy machine: slower than a board by a factor of a thousand."""


def remedy(heard: int, state: str) -> str:
    """What to do where no answer comes: the board may be in no state to answer, or something else may be talking."""
    if not heard:
        return f"is the board {state}"
    return f"{heard:,} bytes came that are none: does something else speak there, or is the rate another one?"


class SilenceError(DeviceError):
    """A request has not been answered, however often it was sent."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a device says of itself.

    Parameters
    ----------
    version : int
        Contract version.
    config_digest : int
        Of its configuration.
    max_payload : int
        Bytes of words or input per frame.
    credits : int
        Frames that may be in flight.
    """

    version: int
    config_digest: int
    max_payload: int
    credits: int


class Session:
    """One host's conversation with one device.

    Parameters
    ----------
    transport : Transport
    timing : Timing

    Attributes
    ----------
    heard : int
        Bytes that have come while an answer was awaited.
    """

    def __init__(self, transport: Transport, timing: Timing) -> None:
        self.transport = transport
        self.timing = timing
        self.decoder = FrameDecoder()
        self._sequence = secrets.randbelow(256)
        self._lost = 0.0
        self.heard = 0

    def hello(self) -> Identity:
        """Begin a session; whatever an earlier one has left on the line is ignored.

        Raises
        ------
        DeviceError
            If nothing answers, or something that is not this version's overlay.
        """
        self.transport.discard()
        self.decoder.clear()
        self._lost = 0.0
        nonce = secrets.token_bytes(4)
        status, body = self._exchange(LinkOp.HELLO, nonce, HELLO_BODY.size, self.timing.hello_tries)
        if status != LinkStatus.OK or len(body) != HELLO_BODY.size:
            raise DeviceError(f"the device at {self.transport.name} does not speak this protocol")
        _, magic, version, low, high, max_payload, credits = HELLO_BODY.unpack(body)
        if magic != contract.MAGIC:
            raise DeviceError(f"the device at {self.transport.name} is no reverb-fpga overlay (magic {magic:#010x})")
        if version != contract.CONTRACT_VERSION:
            raise DeviceError(
                f"the overlay at {self.transport.name} has contract version {version}, this program has "
                f"{contract.CONTRACT_VERSION}; build and program the bitstream again"
            )
        return Identity(version, high << 32 | low, max_payload, credits)

    def request(self, opcode: LinkOp, body: bytes, response_bytes: int = 0) -> tuple[int, bytes]:
        """Send a request until its response arrives.

        Parameters
        ----------
        response_bytes : int
            Expected length of the response's body; for its time on the line.

        Returns
        -------
        (status, body) of the response.

        Raises
        ------
        DeviceError
            If no response came within the bounds of :class:`Timing`, or the device has lost the session.
        """
        self._sequence = (self._sequence + 1) % 256
        status, answer = self._exchange(opcode, body, response_bytes, self.timing.tries)
        if status == LinkStatus.BAD_SEQUENCE:
            raise DeviceError(
                f"the device at {self.transport.name} was restarted or taken over; connect and load again"
            )
        if status == LinkStatus.CORE_TIMEOUT:
            raise DeviceError(f"the core at {self.transport.name} does not answer its link; program the board again")
        return status, answer

    def _exchange(self, opcode: LinkOp, body: bytes, response_bytes: int, tries: int) -> tuple[int, bytes]:
        frame = encode_frame(bytes([opcode, self._sequence]) + body)
        expected = bytes([opcode | contract.RESPONSE_BIT, self._sequence])
        wait = self.timing.response + self.timing.per_byte * (len(frame) + response_bytes + FRAME_OVERHEAD)
        heard = self.heard
        for _ in range(tries):
            begin = self.transport.clock()
            self.transport.write(frame)
            answer = self._await(expected, body if opcode is LinkOp.HELLO else b"", wait)
            if answer:
                self._lost = max(0.0, self._lost - self.timing.response / 2)
                return answer[0], answer[1:]
            self._lost += self.transport.clock() - begin
            if self._lost > self.timing.lost:
                raise DeviceError(
                    f"{self.transport.name} leaves too many requests unanswered ({self._lost:.0f} s waited in vain); "
                    "check cable and rate"
                )
        raise SilenceError(
            f"no answer from {self.transport.name} after {tries} tries of {wait:.1f} s ({opcode.name}); "
            + remedy(self.heard - heard, "powered, programmed and set to this baud rate?")
        )

    def _await(self, expected: bytes, prefix: bytes, wait: float) -> bytes | None:
        """Status and body of the response that begins with ``expected``; None when it is time to ask again.

        A damaged frame may have been ours, and a refused one, too; or they are what an earlier session left on the
        line, and our answer is on its way: it is given a share of the time.
        """
        deadline = self.transport.clock() + wait
        doubted = False
        while (left := deadline - self.transport.clock()) > 0:
            data = self.transport.read(left)
            self.heard += len(data)
            for content in self.decoder.feed(data):
                if content is not None and content[:2] == expected and content[3:].startswith(prefix):
                    return content[2:]
                if not doubted and (content is None or content[0] == contract.NAK):
                    doubted = True
                    deadline = min(deadline, self.transport.clock() + wait * GRACE)
        return None
