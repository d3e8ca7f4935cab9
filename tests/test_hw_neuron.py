"""Neuron unit against a plain-Python model of the whole unit: random layers, slot programs and gaps."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from amaranth.sim import Simulator

from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Gate
from reverb_fpga.hw.errors import InputError
from reverb_fpga.hw.lanes.array import array_delay
from reverb_fpga.hw.neuron import NeuronPair, NeuronParams, NeuronUnit, SlotAccumulator
from reverb_fpga.hw.signatures import READ_CYCLES

TIMEOUT = 40_000

FOUR_SLOTS = Config(
    name="four", clusters=4, lanes_per_cluster=4, banks=2, neuron_lanes=4, act_words=4096, count_words=1024,
    weight_rows=64, param_groups=64, layer_groups=32, slot_entries=128, descriptors=4, max_timesteps=4, skip_words=230,
)  # fmt: skip
ONE_SLOT = Config(
    name="one", clusters=1, lanes_per_cluster=4, banks=4, neuron_lanes=4, act_words=4096, count_words=1024,
    weight_rows=64, param_groups=64, layer_groups=32, slot_entries=128, descriptors=4, max_timesteps=4, skip_words=230,
)  # fmt: skip
FOUR_WAYS = dataclasses.replace(
    FOUR_SLOTS, name="ways", lanes_per_cluster=8, neuron_lanes=8, neuron_ways=4, param_groups=32, layer_groups=16
)
CONFIGS = {"tiny": preset("tiny"), "four": FOUR_SLOTS, "one": ONE_SLOT, "ways": FOUR_WAYS}
NO_SKIP = dataclasses.replace(ONE_SLOT, name="without", skip_words=0)

Entry = dict[str, int]


@dataclasses.dataclass
class Job:
    """A strip to run: descriptor, memories and what the lane array would capture."""

    config: Config
    layer: dict[str, int]
    slots: list[Entry]
    params: dict[tuple[int, int], tuple[int, int, int]]
    captures: list[tuple[list[int], int]]

    @property
    def drained(self) -> int:
        """Slots of a pass."""
        return slots_of(defaultdict(int, self.layer), self.config)


@dataclasses.dataclass
class Outcome:
    act: dict[tuple[int, int], int]
    counts: dict[int, list[int]]
    membranes: dict[tuple[int, int], int]


def slot_program(rng: random.Random, drained: int, groups: int, planes: int) -> list[Entry]:
    """Planes of a group side by side and across passes, or plane after plane over blocks of groups, with holes."""
    block = rng.choice([1, 1, min(groups, 4), min(groups, 16)])
    binary = planes == 1
    program: list[Entry] = []
    for start in range(0, groups, block):
        for plane in range(planes):
            for group in range(start, min(start + block, groups)):
                if rng.random() < 0.15:
                    program.append({"group": rng.randrange(groups), "final": 1, "first": 1, "valid": 0})
                program.append(
                    {
                        "group": group,
                        "shift": 1 if binary else plane,
                        "negate": int(not binary and plane == planes - 1),
                        "subtract_s": int(binary),
                        "first": int(plane == 0),
                        "final": int(plane == planes - 1),
                        "valid": 1,
                    }
                )
    while len(program) % drained:
        program.append({"valid": 0})
    if rng.random() < 0.3:  # a whole pass that finishes nothing, so that records end without a final slot
        program += [{"valid": 0}] * drained
    return program


def random_job(rng: random.Random, config: Config, style: str) -> Job:
    """A layer of one leg; that of a static input repeats its last passes by position, or all of them pass by pass."""
    job = random_leg(rng, config, style, rng.randint(1, 6))
    layer, passes = job.layer, job.layer["n_passes"]
    groups = 1 + max(entry["group"] for entry in job.slots if entry["valid"])
    if layer["static_input"] and layer["timesteps"] > 1 and groups <= config.z_depth // 2 and rng.random() < 0.8:
        first = next(n for n, entry in enumerate(job.slots) if entry["valid"] and entry["final"]) // job.drained
        layer["repeat_passes"] = rng.choice([passes - first, rng.randint(passes - first, passes)])
    return job


def random_legs(rng: random.Random, config: Config, style: str, number: int) -> list[Job]:
    """A layer of several: what one stores, the next adds."""
    while True:
        groups = rng.randint(1, 6)
        first = random_leg(rng, config, style, groups)
        shape = {name: first.layer[name] for name in ("rows", "cols", "timesteps")}
        if math.prod(shape.values()) * groups <= config.skip_words:
            break
    jobs = [first, *(random_leg(rng, config, style, groups, shape) for _ in range(1, number))]
    for index, job in enumerate(jobs):
        job.layer |= {"skip_groups": groups, "add_skip": int(index > 0)}
        if index < number - 1:
            job.layer |= {"store_skip": 1, "spiking": 0}
    return jobs


def random_gated(rng: random.Random, config: Config, style: str) -> list[Job]:
    """A layer whose current is gated before the last leg adds to it."""
    while True:
        groups = rng.randint(1, 6)
        first = random_leg(rng, config, style, groups)
        shape = {name: first.layer[name] for name in ("rows", "cols", "timesteps")}
        words, gates = math.prod(shape.values()) * groups, shape["timesteps"] * groups
        if words + gates <= config.skip_words:
            break
    jobs = [first, random_leg(rng, config, style, groups, shape | {"rows": 1, "cols": 1})]
    jobs += [random_leg(rng, config, style, groups, shape) for _ in range(2)]
    base = rng.randint(words, config.skip_words - gates)
    for job, gate in zip(jobs, (Gate.SUM, Gate.SIGMOID, Gate.APPLY, Gate.NONE), strict=True):
        job.layer |= {"skip_groups": groups, "gate": gate, "gate_base": base}
        job.layer |= {"add_skip": 1} if gate is Gate.NONE else {"store_skip": 1, "spiking": 0}
    jobs[1].layer["param_base"] = rng.randint(0, config.param_groups - shape["timesteps"])
    jobs[1].params = {
        (t, lane): (rng.choice([0, 0, 1]), 0, rng.choice([rng.randint(-(1 << 17), 1 << 17), 0, (1 << 23) - 1, -300]))
        for t in range(shape["timesteps"])
        for lane in range(config.neuron_lanes)
    }
    return jobs


def random_leg(rng: random.Random, config: Config, style: str, groups: int, shape: dict[str, int] | None = None) -> Job:
    planes = rng.choice([1, 1, 2, 5, 8])
    drained = rng.choice([config.slots, rng.randint(1, config.slots)])
    slots = slot_program(rng, drained, groups, planes)
    n_passes = len(slots) // drained
    cols, rows = rng.randint(1, 3), rng.randint(1, 3)
    timesteps = rng.randint(1, 4)
    if shape is not None:
        cols, rows, timesteps = shape["cols"], shape["rows"], shape["timesteps"]
    static = rng.randint(0, 1)
    ring_rows = rng.randint(rows, rows + 2)
    per_row = cols * timesteps
    dst_slots = -(-groups * config.neuron_lanes // config.banks)
    slot_base = rng.randint(0, config.slot_entries - len(slots))
    layer = {
        "opcode": contract.Opcode.LAYER, "spiking": int(rng.random() < 0.85), "static_input": static,
        "r_shift": rng.choice([0, 1, 7, 12, 16, 20, 40, 63]), "rows": rows, "cols": cols, "timesteps": timesteps,
        "code_max": rng.choice([1, 15, 200, 255]), "dst_ring": ring_rows * per_row,
        "dst_row0": rng.randrange(ring_rows) * per_row, "dst_row_stride": per_row, "dst_slots": dst_slots,
        "dst_act_base": rng.randint(0, 500), "dst_cnt_base": rng.randint(0, 500), "n_passes": n_passes,
        "slot_base": slot_base, "param_base": rng.randint(0, config.param_groups - groups),
        "pass_slots": drained if drained < config.slots else rng.choice([0, drained]),
        "tau_q": rng.choice([0, 64, 128, 200, 256]), "soft_reset": rng.randint(0, 1),
        "reset": rng.choice([0, 64, rng.randint(0, 1 << 14), rng.randint(0, (1 << config.membrane_width - 1) - 1)]),
    }  # fmt: skip
    peak = 1 << (config.z_width - 2 - (1 if planes == 1 else planes))
    peak = min(peak, (1 << config.acc_width) - 1)
    if style == "small":
        peak = rng.choice([30, 1000, 20000])
        layer["r_shift"] = rng.choice([4, 8, 10])
    params = {}
    for group in range(groups):
        for lane in range(config.neuron_lanes):
            gain = rng.choice([0, 1, 100, 65535, rng.randrange(65536)])
            bias = rng.choice([0, rng.randint(-(1 << 12), 1 << 12), rng.randint(-(1 << 23), (1 << 23) - 1)])
            threshold = rng.choice([0, 64, rng.randint(0, 1 << 14), -(1 << 23), (1 << 23) - 1])
            params[group, lane] = (gain, bias, threshold)
    captures = []
    for _ in range(rows * cols * n_passes * (1 if static else timesteps)):
        zero = style == "zero" or rng.random() < 0.1
        s = 0 if zero else rng.randint(0, peak)
        captures.append(([0 if rng.random() < 0.1 else rng.randint(0, s) for _ in range(config.lanes)], s))
    return Job(config, layer, slots, params, captures)


def expected(job: Job, skip: dict[tuple[int, int], int] | None = None) -> Outcome:
    """The whole unit, one slot at a time, from the models of its blocks.

    ``skip``: content of the skip memory by (entry, lane), which changes as the job says.
    """
    skip = {} if skip is None else skip
    gate = Gate(job.layer.get("gate", 0))
    config, layer = job.config, job.layer
    captures = iter(job.captures)
    z: dict[tuple[int, int], int] = {}
    out = Outcome({}, {}, {})
    static = layer["static_input"]
    row_off = layer["dst_row0"]
    lanes = range(config.neuron_lanes)

    def one_pass(index: int, steps: Iterator[int], counts: dict[int, list[int]], record0: int, position: int) -> None:
        p, s = next(captures)
        for step, t in enumerate(steps):
            for slot in range(job.drained):
                entry = dict.fromkeys(("shift", "negate", "subtract_s", "first", "final"), 0)
                entry |= job.slots[index * job.drained + slot]
                if not entry["valid"]:
                    continue
                group = entry["group"]
                for lane in lanes:
                    if step == 0:
                        old = z.get((group, lane), 0)
                        z[group, lane] = SlotAccumulator.model(
                            config, old, p[slot * config.neuron_lanes + lane], s, entry
                        )
                    if not entry["final"]:
                        continue
                    gain, bias, threshold = job.params[t if gate is Gate.SIGMOID else group, lane]
                    params = NeuronParams(
                        gain,
                        bias,
                        threshold,
                        layer["r_shift"],
                        contract.TAU_ONE if layer.get("store_skip", 0) else layer["tau_q"],
                        layer["code_max"],
                        bool(layer["spiking"]),
                        layer["reset"] if layer.get("soft_reset", 0) else None,
                    )
                    stores = layer.get("store_skip", 0)
                    v = out.membranes[group, lane] if t and not stores else 0
                    entry_lane = (position * layer["timesteps"] + t) * layer.get("skip_groups", 0) + group, lane
                    added = skip[entry_lane] if layer.get("add_skip", 0) else 0
                    if gate is not Gate.NONE:
                        gate_lane = layer["gate_base"] + t * layer["skip_groups"] + group, lane
                        added = skip[gate_lane] if gate is not Gate.SUM or position else 0
                        entry_lane = entry_lane if gate is Gate.APPLY else gate_lane
                    result = NeuronPair.model(config, z[group, lane], v, params, added, gate)
                    if stores:
                        skip[entry_lane] = result.skip
                        continue
                    out.membranes[group, lane] = result.membrane
                    if result.code:
                        channel = group * config.neuron_lanes + lane
                        bank, number = channel % config.banks, channel // config.banks
                        address = layer["dst_act_base"] + (record0 + t) * layer["dst_slots"] + counts[t][bank]
                        out.act[bank, address] = result.code | number << contract.EVENT_VALUE_BITS
                        counts[t][bank] += 1

    for oy in range(layer["rows"]):
        for ox in range(layer["cols"]):
            position = oy * layer["cols"] + ox
            record0 = row_off + ox * layer["timesteps"]
            counts = {t: [0] * config.banks for t in range(layer["timesteps"])}
            if static:
                for index in range(layer["n_passes"]):
                    one_pass(index, iter(range(layer["timesteps"])), counts, record0, position)
            else:
                for t in range(layer["timesteps"]):
                    for index in range(layer["n_passes"]):
                        one_pass(index, iter([t]), counts, record0, position)
            if layer["spiking"]:
                out.counts |= {layer["dst_cnt_base"] + record0 + t: counts[t] for t in counts}
        row_off = (row_off + layer["dst_row_stride"]) % layer["dst_ring"]
    return out


@dataclasses.dataclass
class Trace:
    outcome: Outcome
    cycles: int
    stall_emit: int


def simulate(jobs: list[Job], rng: random.Random, max_gap: int) -> list[Trace]:
    """Run the jobs one after the other on one unit."""
    config = jobs[0].config
    dut = NeuronUnit(config)
    traces = []

    async def bench(ctx):  # type: ignore[no-untyped-def]
        for job in jobs:
            await _load(ctx, dut, job)
            traces.append(await _run(ctx, dut, job, rng, max_gap))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return traces


async def _write(ctx, bus, addr, data):  # type: ignore[no-untyped-def]
    ctx.set(bus.addr, addr)
    ctx.set(bus.w_data, data)
    ctx.set(bus.w_en, 1)
    await ctx.tick()
    ctx.set(bus.w_en, 0)


async def _read(ctx: Any, bus: Any, addr: int, region: contract.Region) -> int:
    ctx.set(bus.addr, addr)
    ctx.set(bus.r_en, 1)
    await ctx.tick()
    ctx.set(bus.r_en, 0)
    ctx.set(bus.addr, 0)
    await ctx.tick().repeat(READ_CYCLES[region] - 1)
    return ctx.get(bus.r_data)


async def _load(ctx, dut, job):  # type: ignore[no-untyped-def]
    layer = contract.pack(contract.LAYER_FIELDS, job.layer, contract.DESCRIPTOR_WORDS)
    ctx.set(dut.layer.as_value(), sum(word << (32 * n) for n, word in enumerate(layer)))
    for n, entry in enumerate(job.slots):
        word = contract.pack(contract.SLOT_FIELDS, entry, 1)[0]
        await _write(ctx, dut.slot_bus, job.layer["slot_base"] + n, word)
        assert await _read(ctx, dut.slot_bus, job.layer["slot_base"] + n, contract.Region.SLOT) == word
    lanes = job.config.neuron_lanes
    for (group, lane), (gain, bias, threshold) in job.params.items():
        values = {
            "gain": gain, "bias_low": bias & 0xFFFF, "bias_high": bias >> 16 & 0xFF, "threshold": threshold,
        }  # fmt: skip
        for n, word in enumerate(contract.pack(contract.PARAM_FIELDS, values, contract.PARAM_WORDS)):
            address = ((job.layer["param_base"] + group) * 2 + n) * lanes + lane
            await _write(ctx, dut.param_bus, address, word)
            if lane == 1:
                assert await _read(ctx, dut.param_bus, address, contract.Region.PARAM) == word


async def _run(ctx, dut, job, rng, max_gap):  # type: ignore[no-untyped-def]
    config = job.config
    out = Outcome({}, {}, {})
    captures = iter(job.captures)
    await ctx.tick()
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    await ctx.tick()  # nothing is captured so soon
    slots = job.drained
    room = config.captured_passes(slots)
    credits, gap, left, cycles, stalls = room, rng.randint(0, max_gap), len(job.captures), 0, 0
    held = []  # cycles in which the sums are valid
    released = [0] * array_delay(config)
    while not ctx.get(dut.done):
        ctx.set(dut.captured.strobe, 0)
        # valid from the cycle after a strobe on, as many cycles as there are slots, and not one more
        p, s = held.pop() if held else ([rng.getrandbits(config.acc_width) for _ in range(config.lanes)], 0)
        for lane, value in enumerate(p):
            ctx.set(dut.captured.p[lane], value)
        ctx.set(dut.captured.s, s)
        if credits and left and gap == 0:
            held = [next(captures)] * slots
            ctx.set(dut.captured.strobe, 1)
            credits, left, gap = credits - 1, left - 1, slots - 1 + rng.randint(0, max_gap)
        else:
            gap = max(0, gap - 1)
        enables = ctx.get(dut.act_write.en)
        for bank in range(config.banks):
            if enables >> bank & 1:
                address = bank, ctx.get(dut.act_write.addr[bank])
                assert address not in out.act or job.layer["rows"] * job.layer["cols"] > 1
                out.act[address] = ctx.get(dut.act_write.data[bank].as_value())
        if ctx.get(dut.count_write.en):
            address = ctx.get(dut.count_write.addr)
            assert address not in out.counts
            out.counts[address] = [ctx.get(dut.count_write.count[bank]) for bank in range(config.banks)]
        released.append(ctx.get(dut.captured.release))  # as long as a beat takes from its issue at least
        credits += released.pop(0)
        stalls += ctx.get(dut.stall_emit)
        await ctx.tick()
        cycles += 1
        assert cycles < TIMEOUT, "the unit hangs"
    assert left == 0
    assert credits + sum(released) == room
    for group, lane in job.params:
        word = await _read(ctx, dut.membrane_bus, group * config.neuron_lanes + lane, contract.Region.MEMBRANE)
        out.membranes[group, lane] = word - (1 << 32) if word >> 31 else word
    return Trace(out, cycles, stalls)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("style", ["small", "extreme", "zero"])
def test_random_layers(name: str, style: str) -> None:
    rng = random.Random(f"{name} {style}")
    jobs = [random_job(rng, CONFIGS[name], style) for _ in range(3)]
    for job, trace in zip(jobs, simulate(jobs, rng, rng.choice([0, 3, 30])), strict=True):
        want = expected(job)
        assert trace.outcome.membranes == want.membranes, job.layer
        assert trace.outcome.counts == want.counts, job.layer
        assert trace.outcome.act == want.act, job.layer


def test_z_of_every_slot_is_kept_for_the_repeats_of_a_static_input() -> None:
    """32 groups finish in one pass: each repeat reads all of them again."""
    config = dataclasses.replace(
        FOUR_SLOTS, name="wide", clusters=16, neuron_lanes=2, layer_groups=64, param_groups=64, z_depth=32
    )
    assert config.slots == config.z_depth
    rng = random.Random(1)
    job = random_job(rng, config, "small")
    groups = config.slots
    job.slots = [
        {"group": g, "shift": 1, "negate": 0, "subtract_s": 1, "first": 1, "final": 1, "valid": 1}
        for g in range(groups)
    ]
    job.params = {(g, lane): (200, 0, 64) for g in range(groups) for lane in range(config.neuron_lanes)}
    job.layer |= {
        "static_input": 1, "spiking": 1, "timesteps": 2, "rows": 1, "cols": 1, "n_passes": 1, "slot_base": 0,
        "param_base": 0, "dst_slots": groups, "dst_row_stride": 2, "dst_ring": 2, "dst_row0": 0, "code_max": 255,
        "tau_q": 256, "r_shift": 4, "repeat_passes": 0, "pass_slots": 0,
    }  # fmt: skip
    job.captures = [([rng.randint(0, 1000) for _ in range(config.lanes)], 1000)]
    (trace,) = simulate([job], rng, 0)
    want = expected(job)
    assert (trace.outcome.act, trace.outcome.counts) == (want.act, want.counts)
    assert trace.outcome.membranes == want.membranes
    with pytest.raises(InputError, match="a pass drains 32 groups, z has only z_depth = 16 cells"):
        dataclasses.replace(config, z_depth=16)


@pytest.mark.parametrize("name", CONFIGS)
def test_repeats_by_position(name: str) -> None:
    """Of every length, and with passes before them or none; densely fired, so that the emitter holds them back."""
    rng = random.Random(f"around {name}")
    jobs: list[Job] = []
    while len(jobs) < 8:
        job = random_job(rng, CONFIGS[name], rng.choice(["small", "extreme"]))
        if job.layer.get("repeat_passes"):
            jobs.append(job)
    heads = [job.layer["n_passes"] - job.layer["repeat_passes"] for job in jobs]
    assert any(heads)
    assert not all(heads)
    for job, trace in zip(jobs, simulate(jobs, rng, rng.choice([0, 3])), strict=True):
        assert trace.outcome == expected(job), job.layer


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("style", ["small", "extreme"])
def test_random_legs(name: str, style: str) -> None:
    """Layers of two and three legs: what is added, and that a leg leaves membranes and records alone."""
    config = CONFIGS[name]
    rng = random.Random(f"legs {name} {style}")
    jobs = [job for number in (2, 3) for job in random_legs(rng, config, style, number)]
    skip: dict[tuple[int, int], int] = {}
    membranes: dict[tuple[int, int], int] = {}
    for job, trace in zip(jobs, simulate(jobs, rng, rng.choice([0, 3, 30])), strict=True):
        want = expected(job, skip)
        membranes |= want.membranes
        known = {place: value for place, value in trace.outcome.membranes.items() if place in membranes}
        assert known == {place: membranes[place] for place in known}, job.layer
        assert trace.outcome.counts == want.counts, job.layer
        assert trace.outcome.act == want.act, job.layer
    assert min(skip.values()) < 0 < max(skip.values())


def test_legs_back_to_back_as_fast_as_they_go() -> None:
    """What the last slot stores is there for the first slot of the next descriptor."""
    job = steady_job(FOUR_SLOTS, False, 1)
    legs = []
    for flags in ({"store_skip": 1}, {"store_skip": 1, "add_skip": 1}, {"add_skip": 1}):
        layer = job.layer | {"spiking": 0, "tau_q": 256, "skip_groups": FOUR_SLOTS.slots} | flags
        legs.append(dataclasses.replace(job, layer=layer))
    traces = simulate(legs, random.Random(0), 0)
    assert set(traces[-1].outcome.membranes.values()) == {-512 * 3}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("style", ["small", "extreme"])
def test_random_gates(name: str, style: str) -> None:
    """Sums over positions, gates made of them, currents multiplied by them."""
    config = CONFIGS[name]
    rng = random.Random(f"gates {name} {style}")
    jobs = [job for _ in range(3) for job in random_gated(rng, config, style)]
    skip: dict[tuple[int, int], int] = {}
    gates = set()
    for job, trace in zip(jobs, simulate(jobs, rng, rng.choice([0, 3])), strict=True):
        want = expected(job, skip)
        if job.layer["gate"] is Gate.SIGMOID:
            gates |= {value for (entry, _), value in skip.items() if entry >= job.layer["gate_base"]}
        if not job.layer.get("store_skip", 0):
            assert trace.outcome.membranes == want.membranes, job.layer
        assert trace.outcome.counts == want.counts, job.layer
        assert trace.outcome.act == want.act, job.layer
    assert min(gates) < 128 < max(gates)


@pytest.mark.parametrize("static", [0, 1])
def test_sums_are_read_after_they_were_written(static: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group, position after position as fast as it goes; a distance one shorter loses a summand."""
    first = steady_job(ONE_SLOT, False, 5)
    legs = []
    for gate in (Gate.SUM, Gate.NONE):
        layer = first.layer | {"spiking": 0, "tau_q": 256, "skip_groups": 1, "static_input": static, "gate": gate}
        layer |= {"store_skip": 1} if gate is Gate.SUM else {"add_skip": 1, "cols": 1}
        captures = first.captures[: layer["cols"]]
        legs.append(dataclasses.replace(first, layer=layer, captures=captures))
    for shorter in (0, 1):
        monkeypatch.setattr(NeuronPair, "skip_recurrence", NeuronPair.skip_recurrence - shorter)
        trace = simulate(legs, random.Random(0), 0)[-1]
        assert (set(trace.outcome.membranes.values()) == {-512 * 6}) == (not shorter)


def test_without_a_skip_memory() -> None:
    rng = random.Random(5)
    job = random_job(rng, NO_SKIP, "small")
    (trace,) = simulate([job], rng, 0)
    want = expected(job)
    assert (trace.outcome.membranes, trace.outcome.counts) == (want.membranes, want.counts)


NARROW = dataclasses.replace(preset("tiny"), membrane_width=18, skip_width=12, fraction_bits=5, z_width=35)


@pytest.mark.parametrize(
    ("config", "r_shift"),
    [
        *((preset("tiny"), shift) for shift in (0, 1, 8, 15, 16, 17, 31, 32, 47, 48, 63)),
        *((NARROW, shift) for shift in (0, 16, 33, 63)),
    ],
)
def test_pair_against_model(config: Config, r_shift: int) -> None:
    """Both lanes of a pair, back to back, with values at and around every limit."""
    rng = random.Random(r_shift)
    dut = NeuronPair(config)
    big = (1 << config.z_width - 1) - 1
    edge = (1 << config.membrane_width - 1) - 1
    groups, rounds = 8, 6
    resets = (None, 0, 64, edge, rng.randint(0, edge), rng.randint(0, 5000))
    reset = resets[rng.randrange(len(resets))] if r_shift else edge
    updates = []  # (z, params, first) in order of issue: group by group, way by way
    for index in range(rounds * groups * 2):
        params = NeuronParams(
            gain=rng.choice([0, 1, 65535, rng.randrange(65536)]),
            bias=rng.choice([0, edge, -edge - 1, rng.randint(-5000, 5000)]),
            threshold=rng.choice([0, 64, edge, -edge - 1]),
            r_shift=r_shift, tau_q=64 + 192 * (r_shift % 2), code_max=255 - r_shift, spiking=r_shift != 8,
            reset=reset,
        )  # fmt: skip
        near = (rng.randint(-300, 300) << r_shift) // max(1, params.gain)
        z = rng.choice([0, big, -big - 1, rng.randint(-big, big), max(-big, min(big, near))])
        updates.append((z, params, index < groups * 2))

    async def bench(ctx):  # type: ignore[no-untyped-def]
        ctx.set(dut.r_shift, r_shift)
        ctx.set(dut.tau_q, updates[0][1].tau_q)
        ctx.set(dut.code_max, updates[0][1].code_max)
        ctx.set(dut.spiking, updates[0][1].spiking)
        ctx.set(dut.soft_reset, reset is not None)
        ctx.set(dut.reset, reset or 0)
        await ctx.tick().repeat(3)
        v = [0] * (2 * groups)
        results = []
        for n, (z, params, first) in enumerate(updates):
            slot = n % (2 * groups)
            results.append(NeuronPair.model(config, z, 0 if first else v[slot], params))
            v[slot] = results[-1].membrane
        for cycle in range(-1, len(updates) + NeuronPair.write_at + 2):
            for offset, apply in (
                (-1, lambda n, z, p, f: ctx.set(dut.way, n & 1)),
                (0, lambda n, z, p, f: ctx.set(dut.z[n & 1], z)),
                (
                    NeuronPair.word0_at,
                    lambda n, z, p, f: ctx.set(dut.word0, {"gain": p.gain, "bias_low": p.bias & 0xFFFF}),
                ),
                (
                    NeuronPair.word1_at,
                    lambda n, z, p, f: ctx.set(dut.word1, {"bias_high": p.bias >> 16, "threshold": p.threshold}),
                ),
                (
                    NeuronPair.read_at,
                    lambda n, z, p, f: (ctx.set(dut.r_addr, n % (2 * groups)), ctx.set(dut.r_clear, f)),
                ),
                (
                    NeuronPair.write_at,
                    lambda n, z, p, f: (ctx.set(dut.w_addr, n % (2 * groups)), ctx.set(dut.w_en, 1)),
                ),
            ):
                n = cycle - offset
                if 0 <= n < len(updates):
                    apply(n, *updates[n])
            n = cycle - NeuronPair.delay
            if 0 <= n < len(updates):
                assert ctx.get(dut.code) == results[n].code, updates[n]
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        ctx.set(dut.r_clear, 0)
        for slot in range(2 * groups):
            ctx.set(dut.r_addr, slot)
            await ctx.tick().repeat(2)
            assert ctx.get(dut.membrane) == v[slot]

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()


def steady_job(config: Config, code: bool, passes: int) -> Job:
    """One binary pass of four final slots per position; every neuron fires, or none does."""
    layer = {
        "opcode": contract.Opcode.LAYER, "spiking": 1, "rows": 1, "cols": passes, "timesteps": 1, "code_max": 255,
        "dst_ring": passes, "dst_row_stride": passes, "dst_slots": 16, "n_passes": 1, "tau_q": 64,
        "dst_row0": 0, "dst_act_base": 0, "dst_cnt_base": 0, "slot_base": 0, "param_base": 0, "static_input": 0,
        "r_shift": 0,
    }  # fmt: skip
    slots = [{"group": n, "shift": 1, "subtract_s": 1, "first": 1, "final": 1, "valid": 1} for n in range(config.slots)]
    params = {
        (g, lane): (0, 512 if code else -512, 0) for g in range(config.slots) for lane in range(config.neuron_lanes)
    }
    return Job(config, layer, slots, params, [([1] * config.lanes, 1)] * passes)


def test_steady_state_takes_eight_cycles_per_pass() -> None:
    short, long = (simulate([steady_job(FOUR_SLOTS, False, n)], random.Random(0), 0)[0] for n in (10, 40))
    assert long.cycles - short.cycles == 30 * 8
    assert long.stall_emit == 0


def test_emitter_holds_the_slots_back() -> None:
    job = steady_job(dataclasses.replace(FOUR_SLOTS, banks=1), True, 40)
    (trace,) = simulate([job], random.Random(0), 0)
    assert trace.cycles >= 40 * 16  # an event per cycle
    assert trace.stall_emit > 0
    assert trace.outcome.act == expected(job).act
    assert trace.outcome.counts == expected(job).counts


@pytest.mark.parametrize("static", [0, 1])
@pytest.mark.parametrize("name", ["four", "one"])
def test_membranes_are_read_after_they_were_written(name: str, static: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group, step after step as fast as it goes; a distance one shorter reads the membrane of two steps ago."""
    config = CONFIGS[name]
    job = steady_job(config, False, 1)
    job.layer |= {
        "timesteps": 4, "static_input": static, "spiking": 0, "tau_q": 256, "dst_ring": 8, "dst_row_stride": 8
    }  # fmt: skip
    job.slots[1:] = [{"valid": 0}] * (config.slots - 1)
    job.params = {(0, lane): (0, 1000 + lane, 0) for lane in range(config.neuron_lanes)}
    job.captures = job.captures * (1 if static else 4)
    for shorter in (0, 1):
        monkeypatch.setattr(NeuronPair, "recurrence", NeuronPair.recurrence - shorter)
        (trace,) = simulate([job], random.Random(0), 0)
        assert (trace.outcome.membranes == expected(job).membranes) == (not shorter)
