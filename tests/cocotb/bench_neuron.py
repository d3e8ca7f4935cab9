"""Neuron unit, its emitter and accumulator alone, and the input encoder, against the models of their unit tests."""

from __future__ import annotations

import cocotb
from cocotb.handle import HierarchyObject
from test_hw_emitter import Entry, entries
from test_hw_emitter import expected as emitter_expected
from test_hw_encoder import expected as encoder_expected
from test_hw_neuron import Job, random_gated, random_job, random_legs
from test_hw_neuron import expected as unit_expected

from reverb_fpga.hw import contract
from reverb_fpga.hw.contract import EVENT_VALUE_BITS, LAYER_FIELDS, PARAM_FIELDS, PROGRAM_FIELDS, SLOT_FIELDS, Region
from reverb_fpga.hw.neuron import SlotAccumulator
from reverb_fpga.hw.neuron.accumulator import accumulate_layout
from reverb_fpga.hw.neuron.captured import store_layout
from reverb_fpga.sim.bench.buses import LeafInitiator
from reverb_fpga.sim.bench.environment import Bench, pack, pack_fields
from reverb_fpga.sim.bench.pauses import independent, mixed
from reverb_fpga.sim.bench.records import RecordMonitor
from reverb_fpga.sim.bench.streams import StreamSource


def masked(value: int, width: int) -> int:
    return value & ((1 << width) - 1)


# -- input encoder ------------------------------------------------------------------------------------------


@cocotb.test()
async def input_encoder(dut: HierarchyObject) -> None:
    bench = Bench(dut, "encoder")
    rng, config = bench.rng, bench.config
    source = StreamSource(bench, "bytes", mixed(rng))
    await bench.start(50_000, ["start", "program"])
    monitor = RecordMonitor(bench, config)
    total = 0
    for channels, records in ((1, 1), (1, 40), (3, 9), (4, 25), (17, 6), (2, 1), (8, 8)):
        fields = {
            "opcode": contract.Opcode.PROGRAM, "version": contract.CONTRACT_VERSION, "in_channels": channels,
            "in_records": records, "in_act_base": rng.randint(0, 1000), "in_cnt_base": rng.randint(0, 900),
            "in_slots": -(-channels // config.banks),
        }  # fmt: skip
        density = rng.choice([0.0, 0.5, 1.0])
        data = [rng.randint(1, 255) if rng.random() < density else 0 for _ in range(channels * records)]
        bench.set(program=pack_fields(PROGRAM_FIELDS, fields))
        await bench.tick()
        await bench.pulse("start")
        await source.send(data)
        await bench.until("done")
        assert bench.get("n_bytes") == len(data)
        assert (monitor.act, monitor.counts) == encoder_expected(config, fields, data)
        assert not monitor.overwritten
        monitor.clear()
        total += len(data)
    bench.record(encoder_bytes=total)


# -- slot accumulator ---------------------------------------------------------------------------------------


@cocotb.test()
async def slot_accumulator(dut: HierarchyObject) -> None:
    """Operations back to back, each on the z that the one before it left."""
    bench = Bench(dut, "accumulator")
    rng, config = bench.rng, bench.config
    await bench.start(50_000, ["op", "p", "store", "offset"])
    layout, stores = accumulate_layout(config), store_layout(config)
    sums = [rng.getrandbits(12) for _ in range(config.captured_cells)]
    for cell in [*rng.sample(range(config.captured_cells), config.captured_cells), -1]:
        slot = rng.randrange(config.slots)
        bench.set(
            store=stores.const({"en": 1, "others": ~(1 << slot) & (1 << config.slots) - 1, "cell": cell}).as_bits()
            if cell >= 0
            else 0
        )
        await bench.tick()
        arriving = [rng.getrandbits(config.acc_width) for _ in range(config.slots)]
        arriving[slot] = sums[cell]
        bench.set(p=pack(arriving, config.acc_width))
    await bench.tick(SlotAccumulator.store_to_op)
    z = [0] * config.z_depth
    plan: list[tuple[int, int, int]] = []  # operation, offset, expected z
    for number in range(600):
        begins = number < config.z_depth
        op = {
            "cell": rng.randrange(config.captured_cells),
            "group": number if begins else rng.randrange(4), "shift": rng.randint(0, 7), "negate": rng.randint(0, 1),
            "subtract_s": rng.randint(0, 1), "first": int(begins or rng.random() < 0.2),
            "enable": int(begins or rng.random() < 0.9),
        }  # fmt: skip
        s = rng.getrandbits(14) if op["subtract_s"] else 0
        if op["enable"]:
            z[op["group"]] = SlotAccumulator.model(config, z[op["group"]], sums[op["cell"]], s, op)
        plan.append((layout.const(op).as_bits(), op["negate"] - s, z[op["group"]]))
    for cycle in range(len(plan) + SlotAccumulator.delay):
        bench.set(op=plan[cycle][0] if cycle < len(plan) else 0)
        if 0 <= cycle - SlotAccumulator.offset_at < len(plan):
            bench.set(offset=masked(plan[cycle - SlotAccumulator.offset_at][1], config.acc_width + 1))
        await bench.tick()
        if cycle >= SlotAccumulator.delay:
            expected = plan[cycle - SlotAccumulator.delay][2]
            assert bench.get("z") == masked(expected, config.z_width), f"operation {cycle - SlotAccumulator.delay}"
    bench.record(accumulator_operations=len(plan))


# -- emitter ------------------------------------------------------------------------------------------------


@cocotb.test()
async def emitter(dut: HierarchyObject) -> None:
    bench = Bench(dut, "emitter")
    rng, config = bench.rng, bench.config
    await bench.start(50_000, ["layer", "start", "issued", "entry_valid", "entry"])
    monitor = RecordMonitor(bench, config)
    total = held_back = 0
    for density in (0.0, 0.3, 1.0, 1.0, 0.6):
        timesteps, cols, rows = rng.randint(1, 4), rng.randint(1, 3), rng.randint(1, 3)
        per_row = timesteps * cols
        layer = {
            "opcode": contract.Opcode.LAYER, "static_input": rng.randint(0, 1), "timesteps": timesteps,
            "rows": rows, "cols": cols, "dst_ring": rows * per_row, "dst_row0": rng.randrange(rows) * per_row,
            "dst_row_stride": per_row, "dst_slots": 4 * config.channels_per_bank_group,
            "dst_act_base": rng.randint(0, 99), "dst_cnt_base": rng.randint(0, 99),
        }  # fmt: skip
        work = entries(rng, config, layer, density)
        bench.set(layer=pack_fields(LAYER_FIELDS, layer))
        await bench.tick()
        await bench.pulse("start")
        held_back += await emit(bench, work, rng.randint(2, 20))
        assert (monitor.act, monitor.counts) == emitter_expected(config, layer, work)
        assert not monitor.overwritten
        monitor.clear()
        total += len(work)
    assert held_back
    bench.record(emitter_entries=total)


async def emit(bench: Bench, work: list[Entry], latency: int) -> int:
    """As the sequencer: decide on `room`, announce one cycle later, deliver ``latency`` cycles later; cycles held."""
    lanes = bench.config.neuron_lanes
    pipe: list[Entry | None] = [None] * latency
    left, held_back, room = list(work), 0, 0
    while True:
        bench.set(issued=int(pipe[-1] is not None))
        held_back += bool(left) and not room
        pipe.append(left.pop(0) if left and room else None)
        entry = pipe.pop(0)
        bench.set(entry_valid=int(entry is not None))
        if entry is not None:
            fields = entry.group | entry.t << 10 | entry.end << 15
            bench.set(entry=pack(entry.codes, EVENT_VALUE_BITS) | fields << (EVENT_VALUE_BITS * lanes))
        await bench.tick()
        room = bench.get("room")
        if not left and not any(pipe) and entry is None and not bench.get("busy"):
            await bench.tick(2)
            return held_back


# -- neuron unit --------------------------------------------------------------------------------------------


@cocotb.test()
async def neuron_unit(dut: HierarchyObject) -> None:
    bench = Bench(dut, "unit")
    rng, config = bench.rng, bench.config
    slots, params, membranes = (
        LeafInitiator(bench, f"{region.name.lower()}_bus", region)
        for region in (Region.SLOT, Region.PARAM, Region.MEMBRANE)
    )
    await bench.start(200_000, ["layer", "start", "captured_strobe", "captured_p", "captured_s"])
    monitor = RecordMonitor(bench, config)
    jobs = [random_job(rng, config, style) for style in ("small", "extreme", "zero", "small")]
    jobs += [job for style in ("small", "extreme") for job in random_legs(rng, config, style, 3)]
    jobs += random_gated(rng, config, "small")
    skip: dict[tuple[int, int], int] = {}
    captures = 0
    for job in jobs:
        await load(bench, job, slots, params)
        await bench.pulse("start")
        await bench.tick()  # nothing is captured so soon
        await capture(bench, job)
        await bench.until("done")
        want = unit_expected(job, skip)
        assert monitor.counts == want.counts, job.layer
        assert monitor.act == want.act, job.layer
        for (group, lane), membrane in want.membranes.items():
            word = await membranes.read(group * config.neuron_lanes + lane)
            assert word == masked(membrane, 32), (job.layer, group, lane)
        monitor.clear()
        captures += len(job.captures)
    bench.record(neuron_captures=captures, neuron_strips=len(jobs))


async def load(bench: Bench, job: Job, slots: LeafInitiator, params: LeafInitiator) -> None:
    bench.set(layer=pack_fields(LAYER_FIELDS, job.layer))
    words = [contract.pack(SLOT_FIELDS, entry, 1)[0] for entry in job.slots]
    await slots.write(job.layer["slot_base"], words)
    at = bench.rng.randrange(len(words))
    assert await slots.read(job.layer["slot_base"] + at) == words[at]
    for (group, lane), (gain, bias, threshold) in job.params.items():
        values = {
            "gain": gain, "bias_low": masked(bias, 16), "bias_high": masked(bias >> 16, 8), "threshold": threshold,
        }  # fmt: skip
        for number, word in enumerate(contract.pack(PARAM_FIELDS, values, contract.PARAM_WORDS)):
            offset = ((job.layer["param_base"] + group) * 2 + number) * job.config.neuron_lanes + lane
            await params.write(offset, [word])
            if lane == 1:
                assert await params.read(offset) == word


async def capture(bench: Bench, job: Job) -> None:
    """Captured sums as the lane array delivers them, as many as may be queued; garbage in between."""
    rng, config = bench.rng, job.config
    pauses = independent(rng, rng.choice([0.0, 0.5, 0.95]))
    slots = job.drained
    room = config.captured_passes(slots)
    left, credits = list(job.captures), room
    held: list[tuple[list[int], int]] = []  # sums in each cycle in which they are valid
    while left or held or credits < room:
        garbage = [rng.getrandbits(config.acc_width) for _ in range(config.lanes)]
        sums, total = held.pop() if held else (garbage, rng.getrandbits(config.acc_width))
        strobe = bool(left) and not held and credits > 0 and not next(pauses)
        credits -= strobe
        if strobe:
            held = [left.pop(0)] * slots
        bench.set(captured_p=pack(sums, config.acc_width), captured_s=total, captured_strobe=int(strobe))
        await bench.tick()
        credits += bench.get("captured_release")
        assert credits <= room
    bench.set(captured_strobe=0)
