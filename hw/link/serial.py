"""A link behind a UART, without a core."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..bus import HostBus
from ..config import Config
from ..signatures import byte_stream
from .link import Link
from .processor import PATIENCE
from .receiver import MIN_RING
from .uart import UartPhy

__all__ = ["SerialLink"]


class SerialLink(wiring.Component):
    """A Link with its UartPhy, for simulation.

    Parameters
    ----------
    config, ring, patience
        See :class:`Link`.
    divisor, fill
        See :class:`UartPhy`.

    Members
    -------
    rx, tx : In(1), Out(1)
        Pins of the UART.
    bus, input, state, input_bytes
        See :class:`Link`.
    """

    def __init__(
        self, config: Config, divisor: int, *, ring: int = MIN_RING, fill: int = 0, patience: int = PATIENCE
    ) -> None:
        self.phy = UartPhy(divisor, fill)
        self.link = Link(config, ring, patience)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(4),
                "input_bytes": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.phy = phy = self.phy
        m.submodules.link = link = self.link
        m.d.comb += [
            phy.rx.eq(self.rx),
            self.tx.eq(phy.tx),
            link.state.eq(self.state),
            link.input_bytes.eq(self.input_bytes),
        ]
        connect(m, phy.received, link.received)
        connect(m, link.bytes, phy.bytes)
        connect(m, link.bus, flipped(self.bus))
        connect(m, link.input, flipped(self.input))
        return m
