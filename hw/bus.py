"""The host bus of the core: what the link, or a simulation harness, drives."""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .contract import ADDRESS_BITS, WORD_BITS

__all__ = ["HostBus"]


class HostBus(wiring.Signature):
    """Word bus with one outstanding request, seen from the initiator.

    Members
    -------
    valid, ready : Out(1), In(1)
        A request is accepted in the cycle in which both are 1.
    write : Out(1)
    addr : Out(24)
        ``contract.address(region, offset)``.
    w_data : Out(32)
    r_valid, r_data : In(1), In(32)
        Exactly one pulse per accepted read, before the next request is accepted. Writes have no response.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "write": Out(1),
                "addr": Out(ADDRESS_BITS),
                "w_data": Out(WORD_BITS),
                "r_valid": In(1),
                "r_data": In(WORD_BITS),
            }
        )
