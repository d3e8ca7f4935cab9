"""Resets by way of a register: what RTL simulation is built of, and what depends on the pins in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator, SimulatorContext

from reverb_fpga.hw.config import preset
from reverb_fpga.sim import overlay, rtl_core, verilate
from reverb_fpga.sim.sampled import SampledResets


class _Counter(wiring.Component):
    """Adds ``port.step`` every cycle; ``reset`` as the core has it."""

    def __init__(self) -> None:
        port = wiring.Signature({"step": In(4), "count": Out(8), "odd": Out(1)})
        super().__init__({"port": Out(port), "reset": In(1)})

    def elaborate(self, platform: object) -> Module:
        m, inner = Module(), Module()
        count = Signal(8)
        inner.d.sync += count.eq(count + self.port.step)
        m.submodules.inner = ResetInserter(self.reset)(inner)
        m.d.comb += [self.port.count.eq(count), self.port.odd.eq(count[0] ^ self.port.step[0])]
        return m


def test_only_registers_hang_on_the_pins() -> None:
    text = verilate.to_verilog(SampledResets(_Counter()))
    top = next(part for part in text.split("endmodule") if re.search(r"^module top\(", part, re.MULTILINE))
    for pin in ("rst", "reset"):
        used = [line.strip() for line in top.splitlines()[2:] if re.search(rf"(?<![\\.\w]){pin}(?![\w$])", line)]
        used = [line for line in used if not re.match(r"(module|input|wire)\b", line)]
        assert len(used) == 1
        assert re.fullmatch(rf"\S+ +<= {pin};", used[0])


@pytest.mark.parametrize("pin", ["rst", "reset"])
def test_resets_one_clock_late_and_passes_the_rest(pin: str) -> None:
    top = SampledResets(_Counter())
    seen = []

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(top.port.step, 3)
        for given in (0, 0, 1, 0, 0, 0):
            ctx.set(getattr(top, pin), given)
            ctx.set(top.clk, 1)
            await ctx.delay(1e-6)
            ctx.set(top.clk, 0)
            await ctx.delay(1e-6)
            seen.append((ctx.get(top.port.count), ctx.get(top.port.odd)))

    simulator = Simulator(top)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [(3, 0), (6, 1), (9, 0), (0, 1), (3, 0), (6, 1)]


@pytest.mark.parametrize("trace", [False, True])
def test_cores_and_boards_are_built_so(trace: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for waveforms, in which signals keep their names."""
    built: list[wiring.Component] = []

    def build(component: wiring.Component, *others: object, **options: object) -> Path:
        built.append(component)
        return tmp_path

    for module in (rtl_core, overlay):
        monkeypatch.setattr(module, "build_executable", build)
        monkeypatch.setattr(module, "remembered", lambda key, make: make())
    rtl_core.build_core(preset("tiny"), trace=trace)
    overlay.build_overlay(preset("tiny"), trace=trace)
    assert [isinstance(component, SampledResets) for component in built] == [not trace] * 2
