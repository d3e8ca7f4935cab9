"""The overlay as it is simulated: behind its UART, or its core alone, driven directly; one program for both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from amaranth.hdl import Module, Mux, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from reverb_fpga.hw import contract
from reverb_fpga.hw.bus import HostBus
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.core import Core
from reverb_fpga.hw.link import Link, UartPhy
from reverb_fpga.hw.link.receiver import MIN_RING
from reverb_fpga.hw.link.uart import BRIDGE_FILL
from reverb_fpga.hw.signatures import byte_stream

from .line import Line
from .remember import remembered
from .sampled import SampledResets
from .verilate import Progress, build_executable

__all__ = ["SimulatedOverlay", "build_overlay"]

HARNESS = Path(__file__).parent / "cpp" / "overlay_harness.cpp"


class SimulatedOverlay(wiring.Component):
    """A core that is reached through its link and UART, or directly.

    What boards have is :class:`reverb_fpga.hw.top.Top`; this has the same link, UART and core, and where they meet a
    way past the link.

    Parameters
    ----------
    config : Config
    divisor, fill : int
        As of :class:`~reverb_fpga.hw.top.Top`.

    Members
    -------
    reset, rx, tx, state
        As of :class:`~reverb_fpga.hw.top.Top`.
    direct : In(1)
        The core listens to `bus` and `input`, and the link is held in reset. Not to be changed after a reset.
    bus, input : In(HostBus), In(byte stream)
        As of :class:`~reverb_fpga.hw.core.Core`.
    """

    def __init__(self, config: Config, divisor: int, fill: int = 0) -> None:
        self._core = Core(config)
        self._link = Link(config, MIN_RING)
        self._phy = UartPhy(divisor, fill)
        super().__init__(
            {
                "reset": In(1),
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "state": Out(contract.STATE_BITS),
                "direct": In(1),
                "bus": In(HostBus()),
                "input": In(byte_stream()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self._core
        m.submodules.link = ResetInserter(self.reset | self.direct)(self._link)
        m.submodules.phy = ResetInserter(self.reset)(self._phy)
        link, phy = self._link, self._phy
        m.d.comb += [
            core.reset.eq(self.reset),
            link.state.eq(core.state),
            link.input_bytes.eq(core.input_bytes),
            phy.rx.eq(self.rx),
            self.tx.eq(phy.tx),
            self.state.eq(core.state),
        ]
        connect(m, phy.received, link.received)
        connect(m, link.bytes, phy.bytes)
        for inner, outer, linked in ((core.bus, self.bus, link.bus), (core.input, self.input, link.input)):
            for (name,), member, signal in inner.signature.flatten(inner):
                mine, its = getattr(outer, name), getattr(linked, name)
                if member.flow == In:
                    m.d.comb += signal.eq(Mux(self.direct, mine, its))
                else:
                    m.d.comb += [mine.eq(signal), its.eq(signal)]
        return m


def build_overlay(
    config: Config, line: Line | None = None, *, trace: bool = False, progress: Progress | None = None
) -> Path:
    """Its executable; see :func:`~reverb_fpga.sim.verilate.build_executable` for errors.

    Run with the word ``core`` it is what :class:`~reverb_fpga.sim.rtl_core.RtlCore` drives, else a board.
    """
    line = line or Line()
    # zeros cost simulated clocks, so there are none where no bridge waits for them
    fill = BRIDGE_FILL if line.latency_ms else 0

    def build() -> Path:
        top = SimulatedOverlay(config, line.divisor, fill)
        built = top if trace else SampledResets(top)  # a waveform keeps the names of the gateware
        return build_executable(built, f"board-{config.name}", HARNESS, trace=trace, progress=progress)

    return remembered(f"board {dataclasses.astuple(config)} {(line.divisor, fill, trace)}", build)
