"""Dual-read memory: latency, contents across segments, and the collision assertion."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from amaranth.sim import Simulator, SimulatorContext

from reverb_fpga.hw.memory import DualReadMemory, segments

PERIOD = 1e-8


@pytest.mark.parametrize("depth", [1, 2, 100, 1024, 1025, 2048, 3072, 5120, 7168, 14336])
def test_segments_cover_the_depth(depth: int) -> None:
    parts = segments(depth)
    assert [base for base, _ in parts] == [sum(words for _, words in parts[:k]) for k in range(len(parts))]
    assert sum(words for _, words in parts) == depth
    assert all(words & (words - 1) == 0 for _, words in parts[:-1])
    assert all(base % (1 << (words - 1).bit_length()) == 0 for base, words in parts)


@pytest.mark.parametrize("depth", [60, 1024, 3172])
def test_random_accesses(depth: int) -> None:
    rng = random.Random(depth)
    dut = DualReadMemory(12, depth)
    contents = [0] * depth

    async def bench(ctx: SimulatorContext) -> None:
        expected: list[tuple[int, int | None]] = []
        for _ in range(1500):
            if len(expected) == dut.delay:
                a_value, b_value = expected.pop(0)
                assert ctx.get(dut.a_data) == a_value
                assert b_value is None or ctx.get(dut.b_data) == b_value
            a_addr, b_addr = rng.randrange(depth), rng.randrange(depth)
            write = a_addr != b_addr and rng.random() < 0.5
            value = rng.getrandbits(12)
            ctx.set(dut.a_en, 1)
            ctx.set(dut.a_addr, a_addr)
            ctx.set(dut.b_addr, b_addr)
            ctx.set(dut.w_en, write)
            ctx.set(dut.w_data, value)
            expected.append((contents[a_addr], None if write else contents[b_addr]))
            if write:
                contents[b_addr] = value
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    sim.run()


COLLISION = """
from amaranth.sim import Simulator
from reverb_fpga.hw.memory import DualReadMemory

dut = DualReadMemory(8, 16)

async def bench(ctx):
    ctx.set(dut.a_en, 1)
    ctx.set(dut.w_en, 1)
    await ctx.tick()
    await ctx.tick()

sim = Simulator(dut)
sim.add_clock(1e-8)
sim.add_testbench(bench)
sim.run()
"""


def test_reading_what_is_being_written_is_caught() -> None:
    # In a process of its own: Amaranth's simulator unbalances the interpreter's recursion count when an Assert fires.
    done = subprocess.run([sys.executable, "-c", COLLISION], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "read of an address that is being written" in done.stderr
