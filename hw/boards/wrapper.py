"""The overlay on a board: clocks, reset, the link's pins and LEDs around a core."""

from __future__ import annotations

import importlib
from typing import Any

from amaranth.build import Attrs, Clock, Resource, Subsignal, res
from amaranth.build import Pins as Balls
from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module, Signal, Value
from amaranth.lib import io, wiring
from amaranth.vendor import LatticeECP5Platform

from ..link import UsbPhy
from .clocking import Ecp5Clock, Ecp5UsbClock, solve_pll
from .table import Board, Flow, LinkKind, Pins

__all__ = ["BoardTop", "platform_for"]

_HEARTBEAT_BITS = 25  # the slowest LED toggles about once a second at 50 MHz


def platform_for(board: Board) -> Any:
    """A fresh amaranth platform of this board."""
    if isinstance(board.platform, Pins):
        return _platform(board.platform, board.input_mhz)
    if isinstance(board.platform, type):
        return board.platform()
    module, _, name = board.platform.partition(":")
    return getattr(importlib.import_module(module), name)()


def _platform(pins: Pins, input_mhz: float) -> Any:
    """A platform of amaranth's with the pins of a board, and nothing else that may be on it."""
    attributes = Attrs(IO_TYPE=pins.io_standard)
    uart = (Subsignal("rx", Balls(pins.rx, dir="i")), Subsignal("tx", Balls(pins.tx, dir="o")))
    leds = [
        Resource("led", index, Balls(ball, dir="o", invert=pins.leds_inverted), attributes)
        for index, ball in enumerate(pins.leds)
    ]
    members = {
        "device": pins.device,
        "package": pins.package,
        "speed": pins.speed,
        "default_clk": "clock",
        "resources": [
            Resource("clock", 0, Balls(pins.clock, dir="i"), Clock(input_mhz * 1e6), attributes),
            Resource("uart", 0, *uart, attributes),
            *leds,
        ],
        "connectors": [],
    }
    return type("OwnPlatform", (LatticeECP5Platform,), members)()


class BoardTop(Elaboratable):
    """Everything between the pins and the core.

    Parameters
    ----------
    board : Board
    core : component
        ``reset`` in, and ``state``, four bits of status for the LEDs, out. Behind a UART ``rx`` in and ``tx`` out as
        well, pins; behind USB ``received`` and ``bytes``, as of :class:`~reverb_fpga.hw.top.Overlay`. On ECP5 its
        domain has no reset: ``reset`` is the only one, and it need only reach what must not run before the PLL has
        locked.
    clock_mhz : float
        Of domain ``sync``; made by the PLL on ECP5, the crystal itself elsewhere.
    link : LinkKind
    """

    def __init__(self, board: Board, core: Any, clock_mhz: float, link: LinkKind = LinkKind.UART) -> None:
        self.link = link
        self.board = board
        self.core = core
        self.clock_mhz = clock_mhz
        self.pll = solve_pll(board.input_mhz, clock_mhz) if board.flow is Flow.TRELLIS else None

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if self.pll is not None:
            m.domains.sync = ClockDomain("sync", reset_less=True)
            m.submodules.clock = clock = Ecp5Clock(self.pll)
            locked = clock.locked
            m.d.comb += self.core.reset.eq(clock.reset)
        else:
            locked = Signal(init=1)
        m.submodules.core = self.core
        usb = self.link is LinkKind.USB
        busy = self._usb(m, platform, clock.crystal) if usb else self._uart(m, platform)
        self._leds(m, platform, locked, busy)
        return m

    def _uart(self, m: Module, platform: Any) -> tuple[Value, Value]:
        """Pins; whether bytes come and go."""
        port = platform.request("uart", 0, dir=dict.fromkeys(_uart_signals(platform), "-"))
        m.submodules.rx = rx = io.Buffer("i", port.rx)
        m.submodules.tx = tx = io.Buffer("o", port.tx)
        m.d.comb += [self.core.rx.eq(rx.i), tx.o.eq(self.core.tx)]
        return ~self.core.rx, ~self.core.tx

    def _usb(self, m: Module, platform: Any, crystal: Signal) -> tuple[Value, Value]:
        """The same, with clocks of the USB's own. The PHY has no other reset than theirs: it lives in both worlds."""
        for name in ("usb", "usb_io"):
            m.domains += ClockDomain(name)
        m.submodules.usb_clock = Ecp5UsbClock(crystal, self.board.input_mhz)
        m.submodules.phy = phy = UsbPhy(platform.request("usb", 0))
        wiring.connect(m, phy.received, self.core.received)
        wiring.connect(m, self.core.bytes, phy.bytes)
        return phy.received.valid, phy.bytes.valid

    def _leds(self, m: Module, platform: Any, locked: Any, busy: tuple[Value, Value]) -> None:
        """LED 0 beats, 1 tells lock, 2 and 3 the link, 4 and up the state of the sequencer."""
        beat = Signal(_HEARTBEAT_BITS)
        m.d.sync += beat.eq(beat + 1)
        lights = Cat(beat[-1], locked, *busy, self.core.state)
        for index in range(len(lights)):
            port = _led(platform, index)
            if port is None:
                break
            m.submodules[f"led{index}"] = led = io.Buffer("o", port)
            m.d.comb += led.o.eq(lights[index])


def _uart_signals(platform: Any) -> list[str]:
    return [sub.name for sub in platform.lookup("uart", 0).ios]


def _led(platform: Any, index: int) -> Any:
    """A LED, or the green one of three; None if there is none, or the link has its pin."""
    for name in ("led", "rgb_led"):
        if (name, index) in platform.resources:
            try:
                port = platform.request(name, index, dir="-" if name == "led" else dict.fromkeys("rgb", "-"))
            except res.ResourceError:
                return None
            return port if name == "led" else port.g
    return None
