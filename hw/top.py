"""The overlay with its link: what a board wrapper or a simulation instantiates."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .config import Config
from .core import Core
from .lanes.masked import Platform
from .link import Link

__all__ = ["Top"]


class Top(wiring.Component):
    """A core behind a UART. One clock domain, ``sync``; the wrapper holds its reset until the clock is stable.

    Parameters
    ----------
    config : Config
    divisor : int
        Clocks per bit of the UART, at least 4.
    platform : "generic" or "ecp5"
        Technology of the lanes' adders.

    Members
    -------
    reset : In(1)
        As the reset of the clock domain, which may have none; see :class:`~reverb_fpga.hw.core.Core`.
    rx, tx : In(1), Out(1)
        UART, 8N1, idle 1. ``rx`` may be asynchronous.
    state : Out(4)
        Of the sequencer, :class:`contract.State`; for LEDs, and for a simulation that wants to rest.

    Raises
    ------
    InputError
        If the divisor is too small.
    """

    def __init__(self, config: Config, divisor: int, platform: Platform = "generic") -> None:
        self.config = config
        self.divisor = divisor
        self.platform: Platform = platform
        self._link = Link(config, divisor)
        self._core = Core(config, platform)
        super().__init__({"reset": In(1), "rx": In(1, init=1), "tx": Out(1, init=1), "state": Out(4)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        link = self._link
        m.submodules.link = ResetInserter(self.reset)(link)
        m.submodules.core = core = self._core
        m.d.comb += [
            core.reset.eq(self.reset),
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            link.state.eq(core.state),
            link.input_bytes.eq(core.input_bytes),
            self.state.eq(core.state),
        ]
        wiring.connect(m, link.bus, core.bus)
        wiring.connect(m, link.input, core.input)
        return m
