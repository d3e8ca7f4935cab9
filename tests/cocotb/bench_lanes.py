"""Lane array, and one cluster alone, against their models: random passes with gaps full of garbage."""

from __future__ import annotations

import cocotb
from cocotb.handle import HierarchyObject
from test_hw_lanes import random_beats

from reverb_fpga.hw.contract import EVENT_VALUE_BITS
from reverb_fpga.hw.lanes import LaneArray
from reverb_fpga.hw.lanes.cluster import BeatValues, Cluster, masked_sums
from reverb_fpga.sim.bench.environment import Bench, pack, unpack
from reverb_fpga.sim.bench.pauses import mixed

PASSES = 80


def put(bench: Bench, prefix: str, beat: BeatValues, lanes: int, valid: int) -> None:
    values = {
        "valid": valid,
        "first": int(beat.first),
        "last": int(beat.last),
        "x": pack(beat.x, EVENT_VALUE_BITS),
        "row": pack(beat.row, lanes),
    }
    bench.set(**{prefix + name: value for name, value in values.items()})


async def drive(bench: Bench, prefix: str, beats: list[BeatValues], ports: int, lanes: int) -> None:
    pauses = mixed(bench.rng)
    for beat in beats:
        while next(pauses):
            put(bench, prefix, random_beats(bench.rng, ports, lanes, 1)[0], lanes, valid=0)
            await bench.tick()
        put(bench, prefix, beat, lanes, valid=1)
        await bench.tick()
    bench.set(**{prefix + "valid": 0})


@cocotb.test()
async def lane_array(dut: HierarchyObject) -> None:
    bench = Bench(dut, "array")
    config = bench.config
    seen: list[tuple[list[int], int]] = []
    inputs = ("valid", "first", "last", "x", "row")
    await bench.start(20_000, [*(f"beat_{name}" for name in inputs), "captured_release"])

    async def watch() -> None:
        while True:
            strobe = bench.get("captured_strobe")
            await bench.tick()
            if not strobe:
                continue
            sums = unpack(bench.get("captured_p"), config.acc_width, config.lanes)
            seen.append((sums, bench.get("captured_s")))

    cocotb.start_soon(watch())
    beats = random_beats(bench.rng, config.ports, config.lanes, PASSES)
    await drive(bench, "beat_", beats, config.ports, config.lanes)
    array = LaneArray(config)
    await bench.tick(array.delay + 2)
    assert not bench.get("busy")
    assert seen == array.model(beats)
    bench.record(lane_passes=len(seen))


@cocotb.test()
async def cluster(dut: HierarchyObject) -> None:
    bench = Bench(dut, "cluster")
    config, lanes = bench.config, bench.config.lanes_per_cluster
    await bench.start(50_000, ["valid", "first", "last", "x", "row"])
    delay = Cluster(config.ports, lanes, config.acc_width).delay
    for _ in range(PASSES // 2):
        beats = random_beats(bench.rng, config.ports, lanes, 1)
        await drive(bench, "", beats, config.ports, lanes)
        await bench.tick(delay + bench.rng.randrange(3))
        assert [unpack(bench.get("p"), config.acc_width, lanes)] == masked_sums(beats, lanes)
    bench.record(cluster_passes=PASSES // 2)
