"""CRC-32 as zlib computes it, one byte per clock."""

from __future__ import annotations

from amaranth.lib import crc

from .. import contract

__all__ = ["crc32"]


def crc32() -> crc.Processor:
    """A byte-wise CRC-32 processor, see :class:`amaranth.lib.crc.Processor`.

    ``crc`` follows ``data`` by one clock; ``match_detected`` holds while the bytes so far end in
    their own CRC, low byte first.
    """
    algorithm = crc.Algorithm(
        crc_width=32,
        polynomial=contract.CRC32_POLY,
        initial_crc=0xFFFFFFFF,
        reflect_input=True,
        reflect_output=True,
        xor_output=0xFFFFFFFF,
    )
    return algorithm(data_width=8).create()
