"""A link behind a PHY, without a core: for simulation."""

from __future__ import annotations

import types
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .. import contract
from ..bus import HostBus
from ..config import Config
from ..signatures import byte_stream
from .link import Link
from .processor import PATIENCE
from .receiver import MIN_RING
from .uart import UartPhy
from .usb import UsbPhy

__all__ = ["SerialLink", "UsbEcho", "UsbLink", "UsbPins"]


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
                "state": In(contract.STATE_BITS),
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


class UsbPins(wiring.Signature):
    """Pins of a USB, seen from the device: what it drives, whether it does, and what the line says."""

    def __init__(self) -> None:
        super().__init__(
            {
                "d_p_i": In(1, init=1),
                "d_p_o": Out(1),
                "d_p_oe": Out(1),
                "d_n_i": In(1),
                "d_n_o": Out(1),
                "d_n_oe": Out(1),
                "pullup": Out(1),
            }
        )


def pins_as_bus(pins: Any) -> Any:
    """Members of UsbPins as UsbPhy takes them from a board's platform."""
    return types.SimpleNamespace(
        d_p=types.SimpleNamespace(i=pins.d_p_i, o=pins.d_p_o, oe=pins.d_p_oe),
        d_n=types.SimpleNamespace(i=pins.d_n_i, o=pins.d_n_o, oe=pins.d_n_oe),
        pullup=types.SimpleNamespace(o=pins.pullup),
    )


class UsbEcho(wiring.Component):
    """A UsbPhy that sends back what it receives; domains as of :class:`UsbLink`.

    Members
    -------
    usb : Out(UsbPins)
    """

    def __init__(self) -> None:
        super().__init__({"usb": Out(UsbPins())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.phy = phy = UsbPhy(pins_as_bus(self.usb))
        m.d.comb += [
            phy.bytes.valid.eq(phy.received.valid),
            phy.bytes.payload.eq(phy.received.payload.data),
            phy.received.ready.eq(phy.bytes.ready),
        ]
        return m


class UsbLink(wiring.Component):
    """A Link with its UsbPhy, for simulation; domains ``sync``, ``usb`` and ``usb_io``.

    Parameters
    ----------
    config, ring, patience
        See :class:`Link`.

    Members
    -------
    usb : Out(UsbPins)
    bus, input, state, input_bytes
        See :class:`Link`.
    """

    def __init__(self, config: Config, *, ring: int = MIN_RING, patience: int = PATIENCE) -> None:
        self.link = Link(config, ring, patience)
        super().__init__(
            {
                "usb": Out(UsbPins()),
                "bus": Out(HostBus()),
                "input": Out(byte_stream()),
                "state": In(contract.STATE_BITS),
                "input_bytes": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.phy = phy = UsbPhy(pins_as_bus(self.usb))
        m.submodules.link = link = self.link
        m.d.comb += [link.state.eq(self.state), link.input_bytes.eq(self.input_bytes)]
        connect(m, phy.received, link.received)
        connect(m, link.bytes, phy.bytes)
        connect(m, link.bus, flipped(self.bus))
        connect(m, link.input, flipped(self.input))
        return m
