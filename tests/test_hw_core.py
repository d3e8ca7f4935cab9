"""Sequencer and bus decode with a stand-in data path: every state, every fault, halt, resume, reset, armed."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from reverb_fpga.compiler.program import sections_crc32
from reverb_fpga.hw import contract
from reverb_fpga.hw.bus import HostBus
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import CONTROL_FIELDS, NO_HALT, Counter, Csr, Fault, Opcode, Region, State
from reverb_fpga.hw.core import BusDecoder, DescriptorFetch, Sequencer
from reverb_fpga.hw.errors import InputError
from reverb_fpga.hw.signatures import READ_CYCLES, LocalBus, field_layout

CONFIG = dataclasses.replace(preset("tiny"), descriptors=8, max_timesteps=4)
SECTIONS = (Region.SLOT, Region.PARAM, Region.WEIGHT, Region.ACT, Region.COUNT)
WORDS = 32
FOREVER = 0xFFFF
LIMIT = 4000  # cycles any wait may take
LAYER = {
    "opcode": Opcode.LAYER, "spiking": 1, "rows": 1, "cols": 2, "timesteps": 3, "t_src": 1, "n_pool_y": 1,
    "n_pool_x": 1, "n_tap_y": 3, "n_tap_x": 3, "n_passes": 1, "in_height": 4, "in_width": 4, "iy0": -1, "tau_q": 64,
}  # fmt: skip

ROWS = {"opcode": Opcode.INPUT, "in_channels": 2, "in_records": 2, "in_act_base": 3, "in_cnt_base": 1, "in_slots": 1}


class Leaf(wiring.Component):
    """A memory of ``WORDS`` words behind a LocalBus of a region."""

    def __init__(self, region: Region) -> None:
        self._cycles = READ_CYCLES[region]
        super().__init__({"bus": In(LocalBus())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = memory.Memory(shape=32, depth=WORDS, init=[])
        read, write = store.read_port(), store.write_port()
        m.d.comb += [
            read.addr.eq(self.bus.addr),
            write.addr.eq(self.bus.addr),
            write.data.eq(self.bus.w_data),
            write.en.eq(self.bus.w_en),
        ]
        word: Value = read.data
        for cycle in range(1, self._cycles):
            later = Signal(32, name=f"later_{cycle}")
            m.d.sync += later.eq(word)
            word = later
        m.d.comb += self.bus.r_data.eq(word)
        return m


class Rig(wiring.Component):
    """Decoder and sequencer; a layer takes ``layer_cycles``, the input one byte per ``input.valid`` cycle."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.config = config
        super().__init__(
            {
                "bus": In(HostBus()),
                "input": In(stream.Signature(8)),
                "state": Out(4),
                "layer_cycles": In(16),
                "starts": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = BusDecoder()
        m.submodules.sequencer = sequencer = Sequencer(self.config)
        connect(m, flipped(self.bus), decoder.host)
        connect(m, sequencer.check, decoder.check)
        for name in ("csr", "desc", "counter"):
            connect(m, getattr(decoder, name), getattr(sequencer, name))
        for region in (*SECTIONS, Region.MEMBRANE):
            m.submodules[region.name] = leaf = Leaf(region)
            connect(m, getattr(decoder, region.name.lower()), leaf.bus)
        m.d.comb += [
            decoder.locked.eq(sequencer.locked),
            decoder.hold.eq(sequencer.hold),
            sequencer.touched.eq(decoder.touched),
            self.state.eq(sequencer.state),
        ]
        left, wanted = Signal(16), Signal(24)
        program = data.View(field_layout(contract.PROGRAM_FIELDS, contract.DESCRIPTOR_WORDS), sequencer.descriptor)
        m.d.comb += [
            sequencer.done.eq(left == 0),
            sequencer.input_done.eq(wanted == 0),
            self.input.ready.eq(wanted != 0),
            sequencer.activity.beats.eq(left != 0),
            sequencer.activity.events.eq(Mux(left != 0, 3, 0)),
            sequencer.activity.stall_drain.eq(left == 1),
        ]
        with m.If(sequencer.datapath_reset):
            m.d.sync += [left.eq(0), wanted.eq(0)]
        with m.Elif(sequencer.start):
            m.d.sync += [left.eq(self.layer_cycles), self.starts.eq(self.starts + 1)]
        with m.Elif((left != 0) & (left != FOREVER)):
            m.d.sync += left.eq(left - 1)
        with m.If(sequencer.input_start):
            m.d.sync += wanted.eq(program.in_channels * program.in_records)
            with m.If(program.opcode == Opcode.PROGRAM):
                m.d.sync += sequencer.input_bytes.eq(0)
        with m.Elif(self.input.valid & self.input.ready):
            m.d.sync += [wanted.eq(wanted - 1), sequencer.input_bytes.eq(sequencer.input_bytes + 1)]
        return m


def make_sections(layers: Iterable[dict[str, int]] = (LAYER, LAYER), **program: int) -> dict[Region, list[int]]:
    """A program whose sections are random but for the descriptors; ``program`` overrides fields of PROGRAM."""
    rng = np.random.default_rng(7)
    lengths = dict(zip(SECTIONS, (5, 6, 7, 3, 2), strict=True))
    sections = {region: [int(w) for w in rng.integers(0, 1 << 32, n)] for region, n in lengths.items()}
    body: list[int] = []
    for fields in layers:
        body += contract.pack(contract.DESCRIPTOR_FIELDS[Opcode(fields["opcode"])], fields, 32)
    body += contract.pack(contract.END_FIELDS, {"opcode": Opcode.END}, 32)
    arrays = {Region.DESC: [0] * 32 + body, **sections}
    fields = {
        "opcode": Opcode.PROGRAM, "version": contract.CONTRACT_VERSION, "in_channels": 2, "in_records": 3,
        "n_descriptors": len(body) // 32 + 1, "n_slot_entries": 5, "n_param_words": 6, "n_weight_words": 7,
        "n_act_words": 3, "n_count_words": 2,
        "config_low": CONFIG.digest & 0xFFFFFFFF, "config_high": CONFIG.digest >> 32,
    }  # fmt: skip
    arrays[Region.DESC][:32] = contract.pack(contract.PROGRAM_FIELDS, fields | program, 32)
    if "crc32" not in program:
        _rehash(arrays)
    return arrays


def _rehash(sections: dict[Region, list[int]]) -> None:
    """Bring the CRC up to date after a change that the hash would catch first."""
    arrays = ((region, np.array(words, dtype=np.uint32)) for region, words in sections.items())
    sections[Region.DESC][contract.CRC_WORD] = sections_crc32(arrays)


class Host:
    """Test side of the rig. Every wait is bounded."""

    def __init__(self, ctx: Any, rig: Rig) -> None:
        self.ctx, self.rig = ctx, rig

    async def access(self, address: int, word: int | None = None) -> int | None:
        ctx, bus = self.ctx, self.rig.bus
        ctx.set(bus.valid, 1)
        ctx.set(bus.write, word is not None)
        ctx.set(bus.addr, address)
        ctx.set(bus.w_data, word or 0)
        for _ in range(LIMIT):
            _, _, ready = await ctx.tick().sample(bus.ready)
            if ready:
                break
        else:
            pytest.fail("the bus did not take the request")
        ctx.set(bus.valid, 0)
        if word is not None:
            return None
        for _ in range(12):
            _, _, valid, value = await ctx.tick().sample(bus.r_valid, bus.r_data)
            if valid:
                return int(value)
        return pytest.fail("no answer to the read")

    async def write(self, region: Region, offset: int, words: Iterable[int]) -> None:
        for index, word in enumerate(words):
            await self.access(contract.address(region, offset + index), word)

    async def read(self, region: Region, offset: int = 0) -> int:
        value = await self.access(contract.address(region, offset))
        assert value is not None
        return value

    async def control(self, **bits: int) -> None:
        await self.write(Region.CSR, Csr.CONTROL, contract.pack(CONTROL_FIELDS, bits, 1))
        await self.ctx.tick().repeat(4)

    async def status(self) -> dict[str, int]:
        return contract.unpack(contract.STATUS_FIELDS, [await self.read(Region.CSR, Csr.STATUS)])

    async def load(self, sections: dict[Region, list[int]]) -> None:
        for region, words in sections.items():
            await self.write(region, 0, words)

    async def until(self, *states: State) -> State:
        for _ in range(LIMIT):
            state = State(self.ctx.get(self.rig.state))
            if state in states:
                return state
            await self.ctx.tick()
        return pytest.fail(f"still in state {State(self.ctx.get(self.rig.state)).name}")

    async def feed(self, n: int = 6) -> None:
        self.ctx.set(self.rig.input.valid, 1)
        for _ in range(n):
            await self.ctx.tick().until(self.rig.input.ready)
        self.ctx.set(self.rig.input.valid, 0)

    async def run(self) -> dict[str, int]:
        """Start to finish; the status."""
        await self.control(start=1)
        if await self.until(State.INPUT, State.ERROR) is State.INPUT:
            await self.feed()
            await self.until(State.DONE, State.ERROR, State.HALTED)
        return await self.status()


Bench = Callable[[Host], Awaitable[None]]


def simulate(bench: Bench, layer_cycles: int = 20) -> None:
    rig = Rig()
    sim = Simulator(rig)
    sim.add_clock(1e-8)

    async def process(ctx: Any) -> None:
        ctx.set(rig.layer_cycles, layer_cycles)
        await bench(Host(ctx, rig))

    sim.add_testbench(process)
    sim.run()


def test_a_program_runs_from_start_to_done() -> None:
    async def bench(host: Host) -> None:
        sections = make_sections()
        await host.load(sections)
        assert await host.status() == {"state": State.IDLE, "armed": 0, "gap": 0, "error": 0, "pc": 0}
        status = await host.run()
        assert status == {"state": State.DONE, "armed": 1, "gap": 0, "error": 0, "pc": 3}
        assert host.ctx.get(host.rig.starts) == 2
        crc = contract.unpack(contract.PROGRAM_FIELDS, sections[Region.DESC][:32])["crc32"]
        assert await host.read(Region.CSR, Csr.HASH) == crc
        assert await host.read(Region.CSR, Csr.INPUT_BYTES) == 6
        assert await host.read(Region.CSR, Csr.MAGIC) == contract.MAGIC
        assert await host.read(Region.CSR, Csr.CONFIG_HIGH) == CONFIG.digest >> 32
        total = await host.read(Region.CSR, Csr.CYCLES)
        assert 40 < total < 140
        for descriptor in (1, 2):
            counts = [await host.read(Region.COUNTER, descriptor * 8 + counter) for counter in Counter]
            assert 20 <= counts[Counter.CYCLES] <= total // 2
            assert counts[Counter.BEATS] == 20
            assert counts[Counter.EVENTS] == 60
            assert counts[Counter.STALL_DRAIN] == 1
            assert counts[Counter.STALL_TABLE] == 0

    simulate(bench)


@pytest.mark.parametrize("layer_cycles", [0, Sequencer.least - 1, Sequencer.least, 100])
def test_cycles_are_those_of_the_cycle_model(layer_cycles: int) -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        await host.run()
        counts = [await host.read(Region.COUNTER, 8 * index + Counter.CYCLES) for index in range(3)]
        layer = max(Sequencer.least, layer_cycles + 1)  # `done` follows `start` by a cycle
        assert counts == [Sequencer.least, layer, layer]
        # the input does not count
        assert await host.read(Region.CSR, Csr.CYCLES) == Sequencer.ending + 2 * (layer + Sequencer.between)

    simulate(bench, layer_cycles)


def _with_descriptor(index: int, **words: int) -> Callable[[dict[Region, list[int]]], None]:
    """Set bits (``w3=1``: bit 0 of word 3) of a descriptor."""

    def change(sections: dict[Region, list[int]]) -> None:
        for name, bits in words.items():
            sections[Region.DESC][32 * index + int(name[1:])] |= bits

    return change


def _with_flip(word: int, bit: int) -> Callable[[dict[Region, list[int]]], None]:
    """Flip a bit of descriptor 0."""

    def change(sections: dict[Region, list[int]]) -> None:
        sections[Region.DESC][word] ^= 1 << bit

    return change


def _hashed_fields() -> list[tuple[contract.Field, Fault]]:
    """Fields of descriptor 0 and the fault that a damaged lowest bit gives; those of the lengths may fault earlier."""
    foreign = {"version", "config_low", "config_high"}
    return [
        (field, Fault.CONFIG_MISMATCH if field.name in foreign else Fault.HASH_MISMATCH)
        for field in contract.PROGRAM_FIELDS
        if field.name != "opcode"
    ]


def _flipped(region: Region) -> Callable[[dict[Region, list[int]]], None]:
    def change(sections: dict[Region, list[int]]) -> None:
        sections[region][-1] ^= 1 << 17

    return change


def _layer(**fields: int) -> dict[Region, list[int]]:
    return make_sections((LAYER, LAYER | fields))


def _input(**fields: int) -> dict[Region, list[int]]:
    return make_sections((LAYER, ROWS | fields, LAYER))


def _nothing(sections: dict[Region, list[int]]) -> None:
    pass


def _opcode(index: int, opcode: int) -> Callable[[dict[Region, list[int]]], None]:
    def change(sections: dict[Region, list[int]]) -> None:
        word = sections[Region.DESC][32 * index]
        sections[Region.DESC][32 * index] = word & ~0xFF | opcode

    return change


FAULTS = {
    "unknown opcode first": (make_sections(), _opcode(0, 0x11), Fault.BAD_OPCODE, 0),
    "input first": (make_sections(), _opcode(0, Opcode.INPUT), Fault.BAD_PROGRAM, 0),
    "no channels later": (_input(in_channels=0), _nothing, Fault.BAD_PROGRAM, 2),
    "no records later": (_input(in_records=0), _nothing, Fault.BAD_PROGRAM, 2),
    "layer first": (make_sections(), _opcode(0, Opcode.LAYER), Fault.BAD_PROGRAM, 0),
    "end first": (make_sections(), _opcode(0, Opcode.END), Fault.BAD_PROGRAM, 0),
    "another version": (make_sections(version=99), _nothing, Fault.CONFIG_MISMATCH, 0),
    "another configuration, low": (make_sections(config_low=1), _nothing, Fault.CONFIG_MISMATCH, 0),
    "another configuration, high": (make_sections(config_high=1), _nothing, Fault.CONFIG_MISMATCH, 0),
    "reserved bit of PROGRAM": (make_sections(), _with_descriptor(0, w1=1 << 20), Fault.RESERVED_BITS, 0),
    "reserved word of PROGRAM": (make_sections(), _with_descriptor(0, w31=1), Fault.RESERVED_BITS, 0),
    "no channels": (make_sections(in_channels=0), _nothing, Fault.BAD_PROGRAM, 0),
    "no records": (make_sections(in_records=0), _nothing, Fault.BAD_PROGRAM, 0),
    "no descriptors": (make_sections(n_descriptors=0), _nothing, Fault.BAD_PROGRAM, 0),
    "one descriptor": (make_sections(n_descriptors=1), _nothing, Fault.BAD_PROGRAM, 0),
    "too many descriptors": (make_sections(n_descriptors=9), _nothing, Fault.BAD_PROGRAM, 0),
    "wrong hash": (make_sections(crc32=1), _nothing, Fault.HASH_MISMATCH, 0),
    **{
        f"a flipped bit in {r.name}": (make_sections(), _flipped(r), Fault.HASH_MISMATCH, 0)
        for r in (Region.DESC, *SECTIONS)
    },
    **{
        f"a damaged bit of {field.name}": (make_sections(), _with_flip(field.word, field.lsb), fault, 0)
        for field, fault in _hashed_fields()
    },
    "PROGRAM again": (make_sections((LAYER, {"opcode": Opcode.PROGRAM})), _nothing, Fault.BAD_PROGRAM, 2),
    "no END": (make_sections((LAYER,) * 3, n_descriptors=4), None, Fault.BAD_PROGRAM, 4),
    "too many time steps": (_layer(timesteps=5), _nothing, Fault.BAD_LAYER, 2),
    "too many source steps": (_layer(t_src=5), _nothing, Fault.BAD_LAYER, 2),
    "too many sources": (_layer(n_tap_y=5, n_tap_x=13), _nothing, Fault.BAD_LAYER, 2),
    "far too many sources": (_layer(n_pool_y=8, n_pool_x=8, n_tap_y=32, n_tap_x=32), _nothing, Fault.BAD_LAYER, 2),
    "leak above one": (_layer(tau_q=257), _nothing, Fault.BAD_LAYER, 2),
    "a leg that fires": (_layer(store_skip=1, spiking=1), _nothing, Fault.BAD_LAYER, 2),
    "a gate that stores nothing": (_layer(gate=1, spiking=0), _nothing, Fault.BAD_LAYER, 2),
    "a gate that adds": (_layer(gate=3, store_skip=1, add_skip=1, spiking=0), _nothing, Fault.BAD_LAYER, 2),
    **{
        f"{name} = 0": (_layer(**{name: 0}), _nothing, Fault.BAD_LAYER, 2)
        for name in ("rows", "cols", "timesteps", "t_src", "n_pool_y", "n_pool_x", "n_tap_y", "n_tap_x", "n_passes")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    sections, change, fault, pc = FAULTS[name]
    sections = {region: list(words) for region, words in sections.items()}
    if change is None:  # the sections say less than there is
        del sections[Region.DESC][4 * 32 :]
        _rehash(sections)
    else:
        change(sections)

    async def bench(host: Host) -> None:
        await host.load(sections)
        status = await host.run()
        assert status["state"] == State.ERROR
        assert (Fault(status["error"]), status["pc"]) == (fault, pc)
        assert status["armed"] == (pc > 0)
        assert host.ctx.get(host.rig.starts) == max(0, pc - 1)
        # and a good program runs right afterwards
        await host.load(make_sections())
        assert (await host.run())["state"] == State.DONE

    simulate(bench)


@pytest.mark.parametrize(
    ("index", "word", "bit"), [(1, 0, 15), (2, 1, 30), (2, 15, 25), (2, 19, 23), (1, 19, 26), (2, 31, 31)]
)
def test_reserved_bits_of_later_descriptors(index: int, word: int, bit: int) -> None:
    sections = make_sections()
    sections[Region.DESC][32 * index + word] |= 1 << bit
    _rehash(sections)

    async def bench(host: Host) -> None:
        await host.load(sections)
        status = await host.run()
        assert (Fault(status["error"]), status["pc"]) == (Fault.RESERVED_BITS, index)

    simulate(bench)


@pytest.mark.parametrize(("word", "bit"), [(0, 8), (0, 27), (1, 20), (3, 9), (4, 0), (9, 3), (31, 31)])
def test_reserved_bits_of_input(word: int, bit: int) -> None:
    sections = _input()
    sections[Region.DESC][64 + word] |= 1 << bit
    _rehash(sections)

    async def bench(host: Host) -> None:
        await host.load(sections)
        status = await host.run()
        assert (Fault(status["error"]), status["pc"]) == (Fault.RESERVED_BITS, 2)

    simulate(bench)


def test_rows_of_the_input_between_layers() -> None:
    """The core waits for the bytes of every INPUT, at any distance; a reset between them drops the image."""

    async def bench(host: Host) -> None:
        await host.load(make_sections((LAYER, ROWS, LAYER, ROWS | {"in_records": 1}, LAYER)))
        expected = [(State.INPUT, 0, 6), (State.INPUT, 2, 4), (State.INPUT, 4, 2)]
        for stop in (1, 2, 3):
            taken = 0
            await host.control(start=1)
            for state, pc, size in expected[:stop]:
                await host.until(state)
                await host.ctx.tick().repeat(300)  # no byte: it waits, and the watchdog does not mind
                status = await host.status()
                assert (status["state"], status["pc"]) == (state, pc)
                assert await host.read(Region.SLOT, 0) == 0  # locked
                assert await host.read(Region.CSR, Csr.INPUT_BYTES) == taken
                await host.feed(size)
                taken += size
                await host.until(State.RUN)
            if stop < 3:
                await host.until(State.INPUT)
                await host.feed(1)  # half a record
                await host.control(reset=1)
                assert (await host.status())["state"] == State.IDLE
                continue
            await host.until(State.DONE)
            status = await host.status()
            assert status == {"state": State.DONE, "armed": 1, "gap": 0, "error": 0, "pc": 6}
            assert await host.read(Region.CSR, Csr.INPUT_BYTES) == taken == 12
            assert await host.read(Region.CSR, Csr.CYCLES) < 600  # none of those in which it waited

    simulate(bench)


def test_halt_after_rows_of_the_input() -> None:
    async def bench(host: Host) -> None:
        await host.load(_input())
        await host.write(Region.CSR, Csr.HALT_AFTER, [2])
        await host.control(start=1)
        for size in (6, 4):
            await host.until(State.INPUT)
            await host.feed(size)
        await host.until(State.HALTED)
        assert (await host.status())["pc"] == 2
        await host.control(resume=1)
        await host.until(State.DONE)

    simulate(bench)


def test_unknown_opcode_later() -> None:
    sections = make_sections()
    sections[Region.DESC][64] ^= 0xFF
    _rehash(sections)

    async def bench(host: Host) -> None:
        await host.load(sections)
        status = await host.run()
        assert (Fault(status["error"]), status["pc"]) == (Fault.BAD_OPCODE, 2)

    simulate(bench)


def test_a_full_table_is_no_fault() -> None:
    async def bench(host: Host) -> None:
        await host.load(_layer(n_pool_y=2, n_pool_x=2, n_tap_y=4, n_tap_x=4, tau_q=256, timesteps=4))
        assert (await host.run())["state"] == State.DONE

    simulate(bench)


@pytest.mark.parametrize("taps", [1, 3])
def test_fetch_finds_every_reserved_bit(taps: int) -> None:
    """Any bit of any descriptor: RESERVED_BITS if and only if the contract's unpack refuses it.

    Without row mode its fields are reserved, too.
    """
    config = dataclasses.replace(CONFIG, taps=taps)
    dut = DescriptorFetch(config)
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    rng = np.random.default_rng(3)

    async def bench(ctx: Any) -> None:
        async def fetch(pc: int, words: list[int]) -> Fault:
            for index, word in enumerate(words):
                ctx.set(dut.bus.addr, 32 * pc + index)
                ctx.set(dut.bus.w_data, word)
                ctx.set(dut.bus.w_en, 1)
                await ctx.tick()
            ctx.set(dut.bus.w_en, 0)
            ctx.set(dut.pc, pc)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(60):
                if ctx.get(dut.done):
                    return Fault(ctx.get(dut.fault))
                await ctx.tick()
            return pytest.fail("no descriptor")

        for pc, at in ((0, 0), (1, 32), (3, 96)):
            words = good[at : at + 32]
            assert await fetch(pc, words) is Fault.NONE
            opcode = Opcode(words[0] & 0xFF)
            row_passes = 32 * 18 + 16
            for bit in (*rng.choice(range(8, 1024), 60, replace=False), row_passes, row_passes + 9):
                changed = list(words)
                changed[bit // 32] ^= 1 << int(bit % 32)
                fault = await fetch(pc, changed)
                try:
                    fields = contract.unpack(contract.DESCRIPTOR_FIELDS[opcode], changed)
                    if taps == 1 and fields.get("row_passes"):
                        raise InputError("a reserved field")
                except InputError:
                    assert fault in (Fault.RESERVED_BITS, Fault.CONFIG_MISMATCH), (opcode, bit)
                else:
                    assert fault is not Fault.RESERVED_BITS, (opcode, bit)
            assert await fetch(pc, words) is Fault.NONE

    good = make_sections(config_low=config.digest & 0xFFFFFFFF, config_high=config.digest >> 32)[Region.DESC]
    sim.add_testbench(bench)
    sim.run()


def test_watchdog_stops_a_hung_layer() -> None:
    async def bench(host: Host) -> None:
        assert await host.read(Region.CSR, Csr.WATCHDOG) == contract.WATCHDOG_CYCLES
        await host.load(make_sections())
        await host.write(Region.CSR, Csr.WATCHDOG, [100])
        status = await host.run()
        assert (Fault(status["error"]), status["pc"]) == (Fault.WATCHDOG, 1)
        host.ctx.set(host.rig.layer_cycles, 90)
        assert (await host.run())["state"] == State.DONE

    simulate(bench, FOREVER)


def test_watchdog_off() -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        await host.write(Region.CSR, Csr.WATCHDOG, [0])
        await host.control(start=1)
        await host.until(State.INPUT)
        await host.feed()
        await host.until(State.RUN)
        await host.ctx.tick().repeat(1000)
        assert (await host.status())["state"] == State.RUN

    simulate(bench, FOREVER)


@pytest.mark.parametrize("layer_cycles", [1, 100])
def test_halt_and_resume(layer_cycles: int) -> None:
    async def bench(host: Host) -> None:
        sections = make_sections()
        await host.load(sections)
        for after in (0, 1, 2):
            await host.write(Region.CSR, Csr.HALT_AFTER, [after])
            before = host.ctx.get(host.rig.starts)
            status = await host.run()
            assert (status["state"], status["pc"]) == (State.HALTED, after)
            assert host.ctx.get(host.rig.starts) == before + after
            for word in (0, 33, 95):  # the memories are open while halted
                assert await host.read(Region.DESC, word) == sections[Region.DESC][word]
            await host.write(Region.CSR, Csr.HALT_AFTER, [NO_HALT])
            cycles = await host.read(Region.CSR, Csr.CYCLES)
            await host.ctx.tick().repeat(50)
            assert await host.read(Region.CSR, Csr.CYCLES) == cycles
            await host.control(resume=1)
            await host.until(State.DONE)
            assert host.ctx.get(host.rig.starts) == before + 2
            assert (await host.status())["armed"] == 1

    simulate(bench, layer_cycles)


def test_no_resume_after_the_program_was_changed() -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        await host.write(Region.CSR, Csr.HALT_AFTER, [1])
        assert (await host.run())["state"] == State.HALTED
        await host.write(Region.WEIGHT, 0, [1])
        await host.control(resume=1)
        status = await host.status()
        assert (status["state"], status["error"]) == (State.ERROR, Fault.HASH_MISMATCH)

    simulate(bench)


def test_halted_can_start_anew() -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        await host.write(Region.CSR, Csr.HALT_AFTER, [1])
        assert (await host.run())["state"] == State.HALTED
        await host.write(Region.CSR, Csr.HALT_AFTER, [NO_HALT])
        assert (await host.run())["state"] == State.DONE

    simulate(bench)


@pytest.mark.parametrize("region", [r for r in Region if r is not Region.CSR])
def test_writes_to_program_memories_disarm(region: Region) -> None:
    async def bench(host: Host) -> None:
        sections = make_sections()
        await host.load(sections)
        assert (await host.run())["armed"] == 1
        await host.write(region, 0, [sections.get(region, [0])[0]])
        disarms = region not in (Region.MEMBRANE, Region.COUNTER)
        assert (await host.status())["armed"] == (not disarms)
        assert (await host.run())["state"] == State.DONE
        if disarms:
            await host.write(region, 0, [sections[region][0] ^ (1 << 31)])
            assert (await host.run())["state"] == State.ERROR

    simulate(bench)


def test_an_armed_program_is_not_hashed_again() -> None:
    async def bench(host: Host) -> None:
        async def checking() -> int:
            await host.control(start=1)
            for cycle in range(LIMIT):
                if host.ctx.get(host.rig.state) == State.INPUT:
                    return cycle
                await host.ctx.tick()
            return pytest.fail("never INPUT")

        await host.load(make_sections())
        first = await checking()
        await host.feed()
        await host.until(State.DONE)
        assert await checking() < 60 < first

    simulate(bench)


def _delays() -> list[int]:
    """When to reset, counted from start: every phase of the check, the input, both layers, done."""
    return [*range(0, 60, 7), *range(60, 1000, 97), 1100, 1200, 1300]


@pytest.mark.parametrize("stuck", [False, True])
def test_reset_at_any_time(stuck: bool) -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        for delay in _delays():
            host.ctx.set(host.rig.layer_cycles, FOREVER if stuck else 30)
            await host.control(start=1)
            host.ctx.set(host.rig.input.valid, 1)
            await host.ctx.tick().repeat(delay + 1)
            host.ctx.set(host.rig.input.valid, 0)
            before = (await host.status())["armed"]  # the check may end after this
            await host.control(reset=1)
            status = await host.status()
            assert status["armed"] >= before
            assert status == {"state": State.IDLE, "armed": status["armed"], "gap": 0, "error": 0, "pc": 0}
            assert await host.read(Region.SLOT, 0) == make_sections()[Region.SLOT][0]
            host.ctx.set(host.rig.layer_cycles, 30)
            assert (await host.run())["state"] == State.DONE
            await host.write(Region.PARAM, 0, make_sections()[Region.PARAM])

    simulate(bench)


def test_reset_when_halted_in_error_and_done() -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        await host.write(Region.CSR, Csr.HALT_AFTER, [1])
        await host.write(Region.CSR, Csr.WATCHDOG, [77])
        for _ in range(2):
            assert (await host.run())["state"] == State.HALTED
            await host.control(reset=1)
            assert (await host.status())["state"] == State.IDLE
            assert await host.read(Region.CSR, Csr.HALT_AFTER) == NO_HALT
            assert await host.read(Region.CSR, Csr.WATCHDOG) == contract.WATCHDOG_CYCLES
            assert (await host.run())["state"] == State.DONE
            await host.control(reset=1)
            assert (await host.status())["armed"] == 1
            await host.write(Region.DESC, 0, [0])
            assert (await host.run())["error"] == Fault.BAD_OPCODE
            await host.control(reset=1)
            assert (await host.status()) == {"state": State.IDLE, "armed": 0, "gap": 0, "error": 0, "pc": 0}
            await host.load(make_sections())
            await host.write(Region.CSR, Csr.HALT_AFTER, [1])

    simulate(bench)


def test_only_csr_and_counters_are_open_while_running() -> None:
    async def bench(host: Host) -> None:
        sections = make_sections()
        await host.load(sections)
        assert (await host.run())["state"] == State.DONE
        await host.control(start=1)
        await host.until(State.INPUT)
        for region in (*SECTIONS, Region.DESC, Region.MEMBRANE):
            assert await host.read(region, 0) == 0
            await host.write(region, 0, [0xDEAD])
        assert await host.read(Region.COUNTER, 8 + Counter.BEATS) == 20
        assert (await host.status())["armed"] == 1
        for bits in ({"start": 1}, {"resume": 1}):  # neither means anything now
            await host.control(**bits)
            assert (await host.status())["state"] == State.INPUT
        await host.feed()
        await host.until(State.DONE)
        for region, words in sections.items():
            assert await host.read(region, 0) == words[0]
        await host.control(resume=1)
        assert (await host.status())["state"] == State.DONE

    simulate(bench)


def test_a_read_right_after_start_does_not_disturb_the_fetch() -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        for word in (0, 9, 40):
            await host.write(Region.CSR, Csr.CONTROL, contract.pack(CONTROL_FIELDS, {"start": 1}, 1))
            for _ in range(3):
                assert await host.read(Region.DESC, word) == 0
            await host.until(State.INPUT)
            await host.feed()
            await host.until(State.DONE)

    simulate(bench)


def test_host_reads_during_the_hash_do_not_disturb_it() -> None:
    async def bench(host: Host) -> None:
        await host.load(make_sections())
        await host.control(start=1)
        reads = 0
        while host.ctx.get(host.rig.state) == State.CHECK:
            assert await host.read(Region.CSR, Csr.MAGIC) == contract.MAGIC
            assert await host.read(Region.WEIGHT, 0) == 0
            reads += 1
            assert reads < LIMIT
        assert host.ctx.get(host.rig.state) == State.INPUT
        assert reads > 10

    simulate(bench)


def test_one_answer_per_read_in_every_region() -> None:
    async def bench(host: Host) -> None:
        bus = host.rig.bus
        for region in range(16):
            await host.access(region << contract.OFFSET_BITS)
            for _ in range(10):
                _, _, valid = await host.ctx.tick().sample(bus.r_valid)
                assert not valid
            await host.access((region << contract.OFFSET_BITS) | 11, 0)  # no effect, no answer
        assert (await host.status())["state"] == State.IDLE

    simulate(bench)
