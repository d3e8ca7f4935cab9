"""The overlay with its link: what a board wrapper or a simulation instantiates."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from . import contract
from .carry import Platform
from .config import Config
from .core import Core
from .link import Link, UartPhy
from .link.receiver import MIN_RING
from .link.signatures import received_bytes
from .signatures import byte_stream

__all__ = ["Overlay", "Top"]


class Overlay(wiring.Component):
    """A core behind a link, without a PHY. One clock domain, ``sync``.

    Parameters
    ----------
    config : Config
    platform : "generic" or "ecp5"
        Technology of the lanes' adders.
    ring : int
        See :class:`~reverb_fpga.hw.link.Link`.

    Members
    -------
    reset : In(1)
        As the reset of the clock domain, which may have none; see :class:`~reverb_fpga.hw.core.Core`.
    received, bytes : In(received bytes), Out(byte stream)
        From and to a PHY.
    state : Out(4)
        Of the sequencer, :class:`contract.State`; for LEDs, and for a simulation that wants to rest.
    """

    def __init__(self, config: Config, platform: Platform = "generic", ring: int = MIN_RING) -> None:
        self.config = config
        self.platform: Platform = platform
        self._link = Link(config, ring)
        self._core = Core(config, platform)
        super().__init__(
            {
                "reset": In(1),
                "received": In(received_bytes()),
                "bytes": Out(byte_stream()),
                "state": Out(contract.STATE_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        link = self._link
        m.submodules.link = ResetInserter(self.reset)(link)
        m.submodules.core = core = self._core
        m.d.comb += [
            core.reset.eq(self.reset),
            link.state.eq(core.state),
            link.input_bytes.eq(core.input_bytes),
            self.state.eq(core.state),
        ]
        connect(m, flipped(self.received), link.received)
        connect(m, link.bytes, flipped(self.bytes))
        connect(m, link.bus, core.bus)
        connect(m, link.input, core.input)
        return m


class Top(wiring.Component):
    """An overlay behind a UART. One clock domain, ``sync``; the wrapper holds its reset until the clock is stable.

    Parameters
    ----------
    config : Config
    divisor : int
        Clocks per bit of the UART, at least 4.
    platform, ring
        As of :class:`Overlay`.
    fill : int
        See :class:`~reverb_fpga.hw.link.UartPhy`.

    Members
    -------
    reset, state
        As of :class:`Overlay`.
    rx, tx : In(1), Out(1)
        UART, 8N1, idle 1. ``rx`` may be asynchronous.

    Raises
    ------
    InputError
        If the divisor is too small.
    """

    def __init__(
        self,
        config: Config,
        divisor: int,
        platform: Platform = "generic",
        *,
        ring: int = MIN_RING,
        fill: int = 0,
    ) -> None:
        self.config = config
        self.divisor = divisor
        self.platform: Platform = platform
        self._overlay = Overlay(config, platform, ring)
        self._phy = UartPhy(divisor, fill)
        super().__init__({"reset": In(1), "rx": In(1, init=1), "tx": Out(1, init=1), "state": Out(contract.STATE_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.overlay = overlay = self._overlay
        phy = self._phy
        m.submodules.phy = ResetInserter(self.reset)(phy)
        m.d.comb += [
            overlay.reset.eq(self.reset),
            phy.rx.eq(self.rx),
            self.tx.eq(phy.tx),
            self.state.eq(overlay.state),
        ]
        connect(m, phy.received, overlay.received)
        connect(m, overlay.bytes, phy.bytes)
        return m
