"""Input encoder against a plain-Python model, with random gaps in the byte stream."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.neuron import InputEncoder

Outcome = tuple[dict[tuple[int, int], int], dict[int, list[int]]]


def expected(config: Config, fields: dict[str, int], data: list[int]) -> Outcome:
    act: dict[tuple[int, int], int] = {}
    counts = {}
    for record in range(fields["in_records"]):
        total = [0] * config.banks
        for channel in range(fields["in_channels"]):
            value = data[record * fields["in_channels"] + channel]
            bank, index = channel % config.banks, channel // config.banks
            if value:
                act[bank, fields["in_act_base"] + record * fields["in_slots"] + total[bank]] = value | index << 8
                total[bank] += 1
        counts[fields["in_cnt_base"] + record] = total
    return act, counts


def simulate(
    config: Config, runs: list[tuple[dict[str, int], list[int]]], rng: random.Random, rate: float
) -> list[Outcome]:
    """``rate``: share of the cycles in which a byte is offered, also behind the last one, which is not to be taken."""
    dut = InputEncoder(config)
    outcomes: list[Outcome] = []

    async def bench(ctx):  # type: ignore[no-untyped-def]
        assert ctx.get(dut.done)
        taken = 0
        for fields, data in runs:
            layout = contract.DESCRIPTOR_FIELDS[contract.Opcode(fields["opcode"])]
            words = contract.pack(layout, fields, contract.DESCRIPTOR_WORDS)
            ctx.set(dut.program.as_value(), sum(word << (32 * n) for n, word in enumerate(words)))
            assert not ctx.get(dut.bytes.ready)
            await ctx.tick()
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            act: dict[tuple[int, int], int] = {}
            counts: dict[int, list[int]] = {}
            left = list(data)
            for _ in range(50 + 8 * len(data)):
                if ctx.get(dut.done):
                    break
                valid = rng.random() < rate
                ctx.set(dut.bytes.valid, valid)
                ctx.set(dut.bytes.payload, left[0] if valid and left else 0xAA)
                for bank in range(config.banks):
                    if ctx.get(dut.act_write.en) >> bank & 1:
                        address = bank, ctx.get(dut.act_write.addr[bank])
                        assert address not in act
                        act[address] = ctx.get(dut.act_write.data[bank].as_value())
                if ctx.get(dut.count_write.en):
                    counts[ctx.get(dut.count_write.addr)] = [
                        ctx.get(dut.count_write.count[bank]) for bank in range(config.banks)
                    ]
                if valid and ctx.get(dut.bytes.ready):
                    assert left, "a byte too many"
                    left.pop(0)
                await ctx.tick()
            ctx.set(dut.bytes.valid, 0)
            assert ctx.get(dut.done)
            assert not left
            taken = len(data) + (taken if fields["opcode"] == contract.Opcode.INPUT else 0)
            assert ctx.get(dut.n_bytes) == taken  # of the image so far
            outcomes.append((act, counts))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return outcomes


@pytest.mark.parametrize("rate", [0.6, 1.0])
@pytest.mark.parametrize("name", ["tiny", "ulx3s-85f"])
def test_random_inputs(name: str, rate: float) -> None:
    config = preset(name)
    rng = random.Random(f"{name} {rate}")
    runs = []
    for channels, records in (
        (1, 1),
        (1, 7),
        (3, 9),
        (4, 5),
        (17, 3),
        (2, 1),
        (3, 2),
        (1, 4),
        (4, 1),
        (5, 1),
        (1, 5),
        (2, 2),
    ):
        fields = {
            "opcode": rng.choice([contract.Opcode.PROGRAM, contract.Opcode.INPUT]), "in_channels": channels,
            "in_records": records, "in_act_base": rng.randint(0, 1000), "in_cnt_base": rng.randint(0, 1000),
            "in_slots": -(-channels // config.banks),
        }  # fmt: skip
        density = rng.choice([0.0, 0.5, 1.0])
        data = [rng.randint(1, 255) if rng.random() < density else 0 for _ in range(channels * records)]
        runs.append((fields, data))
    for (fields, data), outcome in zip(runs, simulate(config, runs, rng, rate), strict=True):
        assert outcome == expected(config, fields, data)
