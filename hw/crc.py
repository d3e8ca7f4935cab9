"""CRC-32 as zlib computes it, a byte or a word a clock."""

from __future__ import annotations

from amaranth.lib import crc

from . import contract

__all__ = ["crc32"]


def crc32(data_width: int) -> crc.Processor:
    """A CRC-32 processor of `data_width` bits a clock, see :class:`amaranth.lib.crc.Processor`.

    ``crc`` follows ``data`` by one clock; ``match_detected`` holds while the data so far end in their own CRC, low byte
    first.
    """
    algorithm = crc.Algorithm(
        crc_width=32,
        polynomial=contract.CRC32_POLY,
        initial_crc=0xFFFFFFFF,
        reflect_input=True,
        reflect_output=True,
        xor_output=0xFFFFFFFF,
    )
    return algorithm(data_width=data_width).create()
