"""Time of one image alone: its bytes on the line, the core, the logits on the line."""

from __future__ import annotations

import dataclasses

from reverb_fpga.compiler.program import Program

from .session import BYTE_BITS

__all__ = ["Latency", "latency"]

_LOGIT_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Microseconds, one after the other. Frames and what the host adds are left out.

    Parameters
    ----------
    baud : int
        Rate of the line.
    input_bytes, output_bytes : int
    input_us, core_us, output_us : float
    """

    baud: int
    input_bytes: int
    output_bytes: int
    input_us: float
    core_us: float
    output_us: float

    @property
    def total_us(self) -> float:
        """From the first byte of the image to the last of the logits.

        An image that is taken by rows is computed while it arrives, which this does not count.
        """
        return self.input_us + self.core_us + self.output_us


def latency(program: Program, cycles: float, clock_mhz: float, baud: int) -> Latency:
    """Of an image that takes so many cycles, through a UART."""
    sent = program.input_records * program.input.channels
    received = _LOGIT_BYTES * program.descriptor(0)[1]["n_outputs"]
    return Latency(
        baud=baud,
        input_bytes=sent,
        output_bytes=received,
        input_us=1e6 * sent * BYTE_BITS / baud,
        core_us=cycles / clock_mhz,
        output_us=1e6 * received * BYTE_BITS / baud,
    )
