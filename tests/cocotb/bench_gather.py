"""Gather against its model: random strips, slow consumers, and writes that steal the second port."""

from __future__ import annotations

from random import Random

import cocotb
from cocotb.handle import HierarchyObject
from test_hw_gather import SPARE, Pass, random_layer, random_memory

from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw.contract import EVENT_VALUE_BITS, LAYER_FIELDS, Region
from reverb_fpga.hw.gather import GatherMemory, gather_events
from reverb_fpga.sim.bench.buses import LeafInitiator
from reverb_fpga.sim.bench.environment import Bench, pack, pack_fields, unpack

STRIPS = (
    (0.0, 0.0, 0),
    (0.05, 0.4, 0),
    (0.3, 0.3, 12),
    (0.6, 0.0, 400),
    (1.0, 1.0, 3),
    (0.8, 0.2, 60),
    (1.0, 0.1, 250),
)
"""(density, chance of a write per bank and cycle, longest time to a release)"""


class Surroundings:
    """Takes beats, releases passes, and writes into spare words."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = bench.config
        self.passes: list[Pass] = []
        self.stalls = {"stall_table": 0, "stall_drain": 0, "stall_steal": 0}
        self.steal = 0.0
        self.drain = 0
        self.slots = 1  # of a pass
        self._due: list[int] = []
        self._cycle = 0

    async def run(self) -> None:
        current: Pass = [[] for _ in range(self.config.banks)]
        inside = False
        valid = self.bench.port("beat_valid")
        stalls = {name: self.bench.port(name) for name in self.stalls}
        while True:
            self._drive()
            await self.bench.tick()
            self._cycle += 1
            for name, port in stalls.items():
                self.stalls[name] += int(port.value)
            if not int(valid.value):
                continue
            assert self.bench.get("beat_first") != inside
            inside = not self.bench.get("beat_last")
            self._events(current)
            if not inside:
                assert len(self._due) < self.config.captured_passes(self.slots), "a last beat came without a release"
                self.passes.append(current)
                current = [[] for _ in range(self.config.banks)]
                self._due.append(self._cycle + 1 + self.bench.rng.randint(0, self.drain))

    def _events(self, current: Pass) -> None:
        codes = unpack(self.bench.get("beat_x"), EVENT_VALUE_BITS, self.config.ports)
        rows = unpack(self.bench.get("beat_row"), self.config.lanes, self.config.ports)
        for port, (code, row) in enumerate(zip(codes, rows, strict=True)):
            if code:
                current[port // 2].append((code, row))

    def _drive(self) -> None:
        bench, config = self.bench, self.config
        release = bool(self._due) and self._due[0] <= self._cycle
        if release:
            self._due.pop(0)
        enable = sum((bench.rng.random() < self.steal) << bank for bank in range(config.banks))
        bench.set(release=int(release), act_write_en=enable)
        if enable:
            port = bench.port("act_write_addr")
            spare = (config.act_words - 1 - bench.rng.randrange(SPARE) for _ in range(config.banks))
            port.value = pack(spare, len(port) // config.banks)


async def load(bench: Bench, memory: GatherMemory) -> None:
    config = bench.config
    banks = range(config.banks)
    act, count, weight = (
        LeafInitiator(bench, f"{region.name.lower()}_bus", region)
        for region in (Region.ACT, Region.COUNT, Region.WEIGHT)
    )
    await act.write(0, (memory.act[b][k] for k in range(config.act_words) for b in banks))
    await count.write(0, (memory.count[b][k] for k in range(config.count_words) for b in banks))
    words = (
        memory.weight[b][row] >> 32 * word & 0xFFFFFFFF
        for row in range(config.weight_rows)
        for b in banks
        for word in range(config.weight_words)
    )
    await weight.write(0, words)
    at = bench.rng.randrange(config.act_words)
    assert await act.read(at * config.banks) == memory.act[0][at]


@cocotb.test()
async def strips(dut: HierarchyObject) -> None:
    bench = Bench(dut)
    rng, config = Random(bench.parameters["seed"]), bench.config  # not that of the surroundings, which timing advances
    inputs = ["layer", "start", "release", "count_write_en", "count_write_addr", "count_write_count"]
    inputs += ["act_write_en", "act_write_addr", "act_write_data"]
    await bench.start(200_000, inputs)
    around = Surroundings(bench)
    cocotb.start_soon(around.run())
    events = 0
    for density, steal, drain in STRIPS:
        layer = random_layer(rng, config)
        memory = random_memory(rng, config, layer, density)
        around.steal, around.drain, around.slots = 0.0, drain, slots_of(layer, config)
        await bench.tick(4)
        await load(bench, memory)
        expected = list(gather_events(layer, memory))
        around.passes.clear()
        around.steal = steal
        bench.set(layer=pack_fields(LAYER_FIELDS, layer))
        await bench.tick(2)
        await bench.pulse("start")
        await bench.tick()
        await bench.until("done")
        await bench.tick(config.captured_passes(around.slots) * (drain + 2) + 12)
        assert around.passes == expected
        events += sum(len(bank) for one in expected for bank in one)
    assert all(around.stalls.values()), around.stalls
    bench.record(gather_events=events, gather_strips=len(STRIPS))
