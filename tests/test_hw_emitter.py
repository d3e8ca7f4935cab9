"""Emitter against a plain-Python model: random codes, steps in turn, entries that arrive as fast as room allows."""

from __future__ import annotations

import dataclasses
import random

import pytest
from amaranth.sim import Simulator

from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.neuron import Emitter

TIMEOUT = 20_000


@dataclasses.dataclass(frozen=True)
class Entry:
    codes: list[int]
    group: int
    t: int
    end: int


def entries(rng: random.Random, config: Config, layer: dict[str, int], density: float) -> list[Entry]:
    """A strip: groups outside and steps inside (static input), or steps outside; some records end with a marker."""
    groups = rng.randint(1, 4)
    out = []
    steps = range(layer["timesteps"])
    marker = rng.random() < 0.5

    def entry(group: int, t: int, end: bool, bare: bool = False) -> Entry:
        codes = [rng.randint(1, 255) if rng.random() < density else 0 for _ in range(config.neuron_lanes)]
        return Entry([0] * config.neuron_lanes if bare else codes, group, t, int(end))

    for _ in range(layer["rows"] * layer["cols"]):
        order = [(g, t) for g in range(groups) for t in steps] if layer["static_input"] else []
        order = order or [(g, t) for t in steps for g in range(groups)]
        for g, t in order:
            last = g == groups - 1
            out.append(entry(g, t, last and not marker))
            if last and marker:
                out.append(entry(g, t, True, bare=True))
    return out


def expected(
    config: Config, layer: dict[str, int], work: list[Entry]
) -> tuple[dict[tuple[int, int], int], dict[int, list[int]]]:
    act, counts = {}, {}
    running = {t: [0] * config.banks for t in range(layer["timesteps"])}
    row, column, row_base = 0, 0, layer["dst_row0"]
    for item in work:
        record = row_base + column * layer["timesteps"] + item.t
        for lane, code in enumerate(item.codes):
            if code:
                channel = item.group * config.neuron_lanes + lane
                bank = channel % config.banks
                address = layer["dst_act_base"] + record * layer["dst_slots"] + running[item.t][bank]
                act[bank, address] = code | (channel // config.banks) << 8
                running[item.t][bank] += 1
        if item.end:
            counts[layer["dst_cnt_base"] + record] = running[item.t]
            running[item.t] = [0] * config.banks
            if item.t == layer["timesteps"] - 1:
                column += 1
                if column == layer["cols"]:
                    row, column = row + 1, 0
                    row_base = (layer["dst_row0"] + row * layer["dst_row_stride"]) % layer["dst_ring"]
    return act, counts


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["tiny", "ulx3s-85f"])
def test_random_entries(name: str, density: float) -> None:
    config = preset(name)
    rng = random.Random(f"{name} {density}")
    dut = Emitter(config)
    held_back = 0

    async def run(ctx, layer, work, latency):  # type: ignore[no-untyped-def]
        nonlocal held_back
        words = contract.pack(contract.LAYER_FIELDS, layer, contract.DESCRIPTOR_WORDS)
        ctx.set(dut.layer.as_value(), sum(word << (32 * n) for n, word in enumerate(words)))
        await ctx.tick()
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        act, counts = {}, {}
        left = list(work)
        pipe: list[Entry | None] = [None] * latency
        for _ in range(TIMEOUT):
            # as the sequencer: decide on `room`, announce one cycle later
            ctx.set(dut.issued, pipe[-1] is not None)
            item = None
            if left and ctx.get(dut.room):
                item = left.pop(0)
            elif left:
                held_back += 1
            pipe.append(item)
            arrived = pipe.pop(0)
            ctx.set(dut.entry_valid, arrived is not None)
            if arrived is not None:
                for lane, code in enumerate(arrived.codes):
                    ctx.set(dut.entry.codes[lane], code)
                ctx.set(dut.entry.group, arrived.group)
                ctx.set(dut.entry.t, arrived.t)
                ctx.set(dut.entry.end, arrived.end)
            for bank in range(config.banks):
                if ctx.get(dut.act_write.en) >> bank & 1:
                    address = bank, ctx.get(dut.act_write.addr[bank])
                    assert address not in act
                    act[address] = ctx.get(dut.act_write.data[bank].as_value())
            if ctx.get(dut.count_write.en):
                address = ctx.get(dut.count_write.addr)
                assert address not in counts
                counts[address] = [ctx.get(dut.count_write.count[bank]) for bank in range(config.banks)]
            if not left and not any(pipe) and arrived is None and not ctx.get(dut.busy):
                break
            await ctx.tick()
        assert (act, counts) == expected(config, layer, work)

    async def bench(ctx):  # type: ignore[no-untyped-def]
        for _ in range(6):
            timesteps, cols, rows = rng.randint(1, 4), rng.randint(1, 3), rng.randint(1, 3)
            per_row = timesteps * cols
            layer = {
                "opcode": contract.Opcode.LAYER, "static_input": rng.randint(0, 1), "timesteps": timesteps,
                "rows": rows, "cols": cols, "dst_ring": rows * per_row, "dst_row0": rng.randrange(rows) * per_row,
                "dst_row_stride": per_row, "dst_slots": 4 * config.channels_per_bank_group,
                "dst_act_base": rng.randint(0, 99), "dst_cnt_base": rng.randint(0, 99),
            }  # fmt: skip
            await run(ctx, layer, entries(rng, config, layer, density), rng.randint(2, 20))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    if density == 1.0:
        assert held_back
