"""Link blocks in Amaranth's simulator, against the host's own framing, with random pauses and a bound on every wait."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator
from components import FramedReceiver

from reverb_fpga.host.framing import FrameDecoder, cobs_encode, encode_frame
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import LinkOp, LinkStatus, Region, State
from reverb_fpga.hw.errors import InputError
from reverb_fpga.hw.link import (
    CobsDecoder,
    CobsEncoder,
    FrameTransmitter,
    Handover,
    SerialLink,
    UartReceiver,
    UartTransmitter,
)
from reverb_fpga.hw.link.uart import check_divisor

TINY = preset("tiny")
CLOCK = 1e-8


def simulate(dut: Any, *benches: Callable[[Any], Any], background: tuple[Callable[[Any], Any], ...] = ()) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(CLOCK)
    for bench in benches:
        simulator.add_testbench(bench)
    for bench in background:
        simulator.add_testbench(bench, background=True)
    simulator.run()


async def pause(ctx: Any, clocks: int) -> None:
    for _ in range(clocks):
        await ctx.tick()


async def wait_for(ctx: Any, signal: Any, limit: int = 2000) -> None:
    for _ in range(limit):
        if ctx.get(signal):
            return
        await ctx.tick()
    pytest.fail(f"{signal!r} stayed 0 for {limit} clocks")


# -- UART ---------------------------------------------------------------------------------------------------


async def send_serial(ctx: Any, pin: Any, data: bytes, bit_clocks: float, stop: int = 1) -> None:
    """Drive 8N1 with a bit time that need not be whole clocks."""
    clock, edge = 0, 0.0
    for byte in data:
        for bit in (0, *((byte >> i) & 1 for i in range(8)), stop):
            ctx.set(pin, bit)
            edge += bit_clocks
            while clock < round(edge):
                await ctx.tick()
                clock += 1
    ctx.set(pin, 1)


@pytest.mark.parametrize("divisor", [4, 5, 8, 17])
@pytest.mark.parametrize("skew", [0.98, 1.0, 1.02])
def test_uart_receives_at_every_divisor_and_two_percent_off(divisor: int, skew: float) -> None:
    dut = UartReceiver(divisor)
    data = bytes(random.Random(divisor).randbytes(20)) + b"\0\xff\0"
    got = []

    async def sender(ctx: Any) -> None:
        await ctx.tick().repeat(5)
        await send_serial(ctx, dut.rx, data, divisor * skew)
        await ctx.tick().repeat(12 * divisor)

    async def receiver(ctx: Any) -> None:
        async for _, _, strobe, byte, error in ctx.tick().sample(dut.strobe, dut.data, dut.error):
            if strobe:
                assert not error
                got.append(byte)

    simulate(dut, sender, background=(receiver,))
    assert bytes(got) == data


def test_uart_receiver_flags_a_missing_stop_bit_once_and_recovers() -> None:
    dut = UartReceiver(4)
    got = []

    async def sender(ctx: Any) -> None:
        await ctx.tick().repeat(5)
        await send_serial(ctx, dut.rx, b"\x5a", 4, stop=0)
        ctx.set(dut.rx, 0)  # a broken line stays low
        await ctx.tick().repeat(300)
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(3)
        ctx.set(dut.rx, 0)  # a glitch of one clock is no start bit
        await ctx.tick()
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(50)
        await send_serial(ctx, dut.rx, b"\xa5", 4)
        await ctx.tick().repeat(50)

    async def receiver(ctx: Any) -> None:
        async for _, _, strobe, byte, error in ctx.tick().sample(dut.strobe, dut.data, dut.error):
            if strobe:
                got.append((byte, error))

    simulate(dut, sender, background=(receiver,))
    assert got == [(0x5A, 1), (0xA5, 0)]


@pytest.mark.parametrize("divisor", [4, 7])
def test_uart_transmits_whole_bits_without_gaps(divisor: int) -> None:
    dut = UartTransmitter(divisor)
    data = b"\0\xff\x55\x81"
    levels = []

    async def sender(ctx: Any) -> None:
        for byte in data:
            ctx.set(dut.bytes.payload, byte)
            ctx.set(dut.bytes.valid, 1)
            await ctx.tick().until(dut.bytes.ready)
        ctx.set(dut.bytes.valid, 0)
        await ctx.tick().repeat(12 * divisor)

    async def watch(ctx: Any) -> None:
        async for _, _, tx in ctx.tick().sample(dut.tx):
            levels.append(tx)

    simulate(dut, sender, background=(watch,))
    start = levels.index(0)
    bits = [bit for byte in data for bit in (0, *((byte >> i) & 1 for i in range(8)), 1)]
    assert levels[start : start + len(bits) * divisor] == [bit for bit in bits for _ in range(divisor)]
    assert set(levels[start + len(bits) * divisor :]) == {1}


def test_a_divisor_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="divisor 3"):
        check_divisor(3)


# -- COBS ---------------------------------------------------------------------------------------------------

COBS_CASES = [
    b"\0",
    b"\x01",
    b"\x11\0\0\x22",
    b"\x07" * 253,
    b"\x07" * 254,
    b"\x07" * 255,
    b"\x07" * 254 + b"\0",
    b"\0" + b"\x07" * 600 + b"\0",
    bytes(random.Random(1).choices([0, 1, 255], k=500)),
]


@pytest.mark.parametrize("data", COBS_CASES)
def test_cobs_encoder_writes_what_the_host_expects(data: bytes) -> None:
    dut = CobsEncoder(11)
    memory = bytearray(2048)
    rng = random.Random(len(data))

    async def writer(ctx: Any) -> None:
        async for _, _, enable, addr, value in ctx.tick().sample(dut.w_en, dut.w_addr, dut.w_data):
            if enable:
                memory[addr] = value

    async def bench(ctx: Any) -> None:
        for junk in (b"\x09\0\x09", data):  # a frame that is given up must leave nothing behind
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for byte in junk:
                await pause(ctx, rng.randrange(3))
                ctx.set(dut.bytes.payload, byte)
                ctx.set(dut.bytes.valid, 1)
                await ctx.tick().until(dut.bytes.ready)
                ctx.set(dut.bytes.valid, 0)
        ctx.set(dut.finish, 1)
        await ctx.tick()
        ctx.set(dut.finish, 0)
        await ctx.tick()
        length = ctx.get(dut.length)
        assert bytes(memory[:length]) == cobs_encode(data)

    simulate(dut, bench, background=(writer,))


@pytest.mark.parametrize("data", COBS_CASES)
def test_cobs_decoder_inverts_the_host_encoder(data: bytes) -> None:
    dut = CobsDecoder()
    got = bytearray()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.strobe, 1)
        for byte in b"\x05\x01" + b"\0" + cobs_encode(data):  # an unfinished block first
            if byte == 0:
                assert not ctx.get(dut.complete)
            ctx.set(dut.data, byte)
            if ctx.get(dut.o_strobe):
                got.append(ctx.get(dut.o_data))
            if byte == 0:
                got.clear()
            await ctx.tick()
        assert ctx.get(dut.complete)

    simulate(dut, bench)
    assert bytes(got) == data


# -- frames -------------------------------------------------------------------------------------------------


def test_frame_receiver_holds_good_frames_and_reports_the_others() -> None:
    dut = FramedReceiver()
    bad = [0]

    async def count_bad(ctx: Any) -> None:
        async for _, _, pulse in ctx.tick().sample(dut.bad):
            bad[0] += pulse

    async def feed(ctx: Any, data: bytes, error_at: int = -1) -> None:
        for index, byte in enumerate(data):
            ctx.set(dut.strobe, 1)
            ctx.set(dut.data, byte)
            ctx.set(dut.error, index == error_at)
            await ctx.tick()
        ctx.set(dut.strobe, 0)
        await ctx.tick().repeat(4)

    async def take(ctx: Any) -> bytes:
        assert ctx.get(dut.valid)
        content = bytearray()
        for index in range(ctx.get(dut.length)):
            ctx.set(dut.addr, index)
            await ctx.tick()
            content.append(ctx.get(dut.r_data))
        ctx.set(dut.release, 1)
        await ctx.tick()
        ctx.set(dut.release, 0)
        assert not ctx.get(dut.valid)
        return bytes(content)

    async def bench(ctx: Any) -> None:
        longest = bytes(range(256)) * 4 + b"123456"
        for content in (b"\x05\x01", b"\x02\0\0\0\0\0\x10\0", longest[:-1], longest):
            await feed(ctx, encode_frame(content))
            assert await take(ctx) == content
        assert bad[0] == 0
        await feed(ctx, b"\0\0\0\0")
        assert bad[0] == 0
        frame = encode_frame(b"\x02abcdefg")
        damaged = bytearray(frame)
        damaged[4] ^= 1
        for wire in (
            bytes(damaged),
            encode_frame(b"\x01"),
            encode_frame(longest + b"7"),
            frame[:-3] + b"\0",
            b"\x01\0",
        ):
            await feed(ctx, wire)
            assert not ctx.get(dut.valid)
        assert bad[0] == 5
        await feed(ctx, b"\x04garbage" + frame[:-1])
        assert bad[0] == 6  # the leading zero flushed it
        await feed(ctx, b"\0")
        await feed(ctx, encode_frame(b"overrun"))
        assert bad[0] == 7
        assert await take(ctx) == b"\x02abcdefg"
        for at in (0, 3, len(frame) - 1):  # a UART error anywhere, also in a separator
            await feed(ctx, frame, error_at=at)
            assert not ctx.get(dut.valid)
            await feed(ctx, b"\0")
        await feed(ctx, frame)
        assert await take(ctx) == b"\x02abcdefg"

    simulate(dut, bench, background=(count_bad,))


@pytest.mark.parametrize("pace", [0.1, 0.5, 1.0])
def test_handover_keeps_the_order(pace: float) -> None:
    """Commands are always taken, bytes when there is room; busy from a frame's end until all of it has gone."""
    dut = Handover()
    rng = random.Random(pace)
    given: list[tuple[str, int]] = []
    got: list[tuple[str, int]] = []

    async def sender(ctx: Any) -> None:
        side = dut.sender
        commands = (side.start, side.finish, side.repeat)
        while True:
            ctx.set(side.payload.ready, int(rng.random() < pace))
            values = await ctx.tick().sample(
                *commands, side.aside, side.payload.valid, side.payload.ready, side.payload.payload
            )
            start, finish, repeat, aside, valid, ready, byte = values[2:]
            assert start + finish + repeat + valid <= 1
            said = (("start", start, aside), ("finish", finish, 0), ("repeat", repeat, 0))
            got.extend((name, of) for name, flag, of in said if flag)
            if valid and ready:
                got.append(("byte", byte))

    async def command(ctx: Any, name: str, aside: int = 0) -> None:
        given.append((name, aside))
        ctx.set(dut.maker.aside, aside)
        ctx.set(getattr(dut.maker, name), 1)
        await ctx.tick()
        ctx.set(getattr(dut.maker, name), 0)

    async def maker(ctx: Any) -> None:
        for _ in range(60):
            for _ in range(rng.choice((1, 1, 2))):  # a frame may be begun anew
                await command(ctx, "start", rng.randrange(2))
                for _ in range(rng.choice((0, 1, 2, 9))):
                    byte = rng.randrange(256)
                    given.append(("byte", byte))
                    ctx.set(dut.maker.payload.payload, byte)
                    ctx.set(dut.maker.payload.valid, 1)
                    await ctx.tick().until(dut.maker.payload.ready)
                    ctx.set(dut.maker.payload.valid, 0)
            await command(ctx, rng.choice(("finish", "finish", "repeat")))
            assert ctx.get(dut.maker.busy)
            await wait_for(ctx, ~dut.maker.busy)
            await ctx.tick()  # the sender's bench looks after this one
            assert got == given

    simulate(dut, maker, background=(sender,))


def test_frame_transmitter_repeats_the_kept_response_after_others_aside() -> None:
    dut = FrameTransmitter()
    rng = random.Random(3)
    decoder = FrameDecoder()
    got: list[bytes | None] = []

    async def sink(ctx: Any) -> None:
        while True:
            ctx.set(dut.bytes.ready, int(rng.random() < 0.3))
            _, _, valid, ready, byte = await ctx.tick().sample(dut.bytes.valid, dut.bytes.ready, dut.bytes.payload)
            if valid and ready:
                got.extend(decoder.feed(bytes([byte])))

    async def build(ctx: Any, content: bytes, aside: int) -> None:
        ctx.set(dut.response.start, 1)
        ctx.set(dut.response.aside, aside)
        await ctx.tick()
        ctx.set(dut.response.start, 0)
        for byte in content:
            ctx.set(dut.response.payload.payload, byte)
            ctx.set(dut.response.payload.valid, 1)
            await ctx.tick().until(dut.response.payload.ready)
            ctx.set(dut.response.payload.valid, 0)
            await pause(ctx, rng.randrange(2))

    async def pulse(ctx: Any, signal: Any) -> None:
        ctx.set(signal, 1)
        await ctx.tick()
        ctx.set(signal, 0)
        await wait_for(ctx, ~dut.response.busy, 20000)
        await ctx.tick()

    async def bench(ctx: Any) -> None:
        first, second = b"\x82\x01\0" + b"\0\0\0\x42" * 100, b"\x84\x02\0"
        await build(ctx, b"given up", 0)
        await build(ctx, first, 0)
        await pulse(ctx, dut.response.finish)
        await build(ctx, b"\xff\0\x06", 1)
        await pulse(ctx, dut.response.finish)
        await pulse(ctx, dut.response.repeat)
        await build(ctx, second, 0)
        await pulse(ctx, dut.response.finish)
        await pulse(ctx, dut.response.repeat)
        assert got == [first, b"\xff\0\x06", first, second, second]

    simulate(dut, bench, background=(sink,))


# -- the whole link -----------------------------------------------------------------------------------------


class Bench:
    """Host and core around a Link with a 4-clock UART; the core answers with random delays, or not at all."""

    PATIENCE = 200

    def __init__(self, seed: int) -> None:
        self.dut = SerialLink(TINY, 4, patience=self.PATIENCE)
        self.rng = random.Random(seed)
        self.memory: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []
        self.taken = bytearray()
        self.dead = False
        self.deaf = False
        self.frames: list[bytes | None] = []

    async def core(self, ctx: Any) -> None:
        bus = self.dut.bus
        while True:
            ctx.set(bus.ready, int(not self.dead and self.rng.random() < 0.4))
            sampled = await ctx.tick().sample(bus.valid, bus.ready, bus.write, bus.addr, bus.w_data)
            _, _, valid, ready, write, addr, data = sampled
            if not (valid and ready):
                continue
            ctx.set(bus.ready, 0)
            if write:
                self.writes.append((addr, data))
                self.memory[addr] = data
                continue
            await pause(ctx, self.rng.randrange(6))
            ctx.set(bus.r_valid, 1)
            ctx.set(bus.r_data, self.memory.get(addr, 0))
            await ctx.tick()
            ctx.set(bus.r_valid, 0)
            ctx.set(bus.r_data, 0xDEADBEEF)

    async def encoder(self, ctx: Any) -> None:
        stream = self.dut.input
        while True:
            ctx.set(stream.ready, int(not self.deaf and self.rng.random() < 0.4))
            _, _, valid, ready, byte = await ctx.tick().sample(stream.valid, stream.ready, stream.payload)
            if valid and ready:
                self.taken.append(byte)
                ctx.set(self.dut.input_bytes, len(self.taken))

    async def listen(self, ctx: Any) -> None:
        decoder = FrameDecoder()
        tx = self.dut.tx
        while True:
            await ctx.tick()
            if ctx.get(tx):
                continue
            await ctx.tick()
            byte = 0
            for bit in range(8):
                await ctx.tick().repeat(4)
                byte |= ctx.get(tx) << bit
            await ctx.tick().repeat(4)
            assert ctx.get(tx) == 1
            self.frames.extend(decoder.feed(bytes([byte])))

    async def raw(self, ctx: Any, wire: bytes) -> bytes | None:
        self.frames.clear()
        await send_serial(ctx, self.dut.rx, wire, 4)
        for _ in range(100_000):
            if self.frames:
                return self.frames[0]
            await ctx.tick()
        pytest.fail("no response within 100,000 clocks")

    async def ask(self, ctx: Any, opcode: int, sequence: int, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the response."""
        response = await self.raw(ctx, encode_frame(bytes([opcode, sequence]) + body))
        assert response is not None
        assert response[:2] == bytes([opcode | contract.RESPONSE_BIT, sequence])
        return response[2], response[3:]

    def run(self, bench: Callable[[Any], Any]) -> None:
        simulate(self.dut, bench, background=(self.core, self.encoder, self.listen))


def where(region: Region, offset: int) -> bytes:
    return struct.pack("<I", contract.address(region, offset))


async def hello(bench: Bench, ctx: Any, sequence: int) -> None:
    status, body = await bench.ask(ctx, LinkOp.HELLO, sequence, struct.pack("<I", 0xCAFE0001))
    digest = TINY.digest
    expected = (0xCAFE0001, contract.MAGIC, contract.CONTRACT_VERSION, digest & 0xFFFFFFFF, digest >> 32, 1024, 1)
    assert (status, struct.unpack("<IIIIIHB", body)) == (LinkStatus.OK, expected)


def test_link_executes_and_refuses_as_the_protocol_says() -> None:
    bench = Bench(1)

    async def script(ctx: Any) -> None:
        read_two = where(Region.ACT, 5) + struct.pack("<H", 2)
        assert await bench.ask(ctx, LinkOp.READ, 1, read_two) == (LinkStatus.BAD_SEQUENCE, b"")  # no HELLO yet
        await hello(bench, ctx, 254)
        words = struct.pack("<2I", 0x01020304, 0xA0000000)
        assert await bench.ask(ctx, LinkOp.WRITE, 255, where(Region.ACT, 5) + words) == (LinkStatus.OK, b"")
        assert await bench.ask(ctx, LinkOp.READ, 0, read_two) == (LinkStatus.OK, words)
        # the same number again: repeated, not executed, whatever it says
        bench.memory.clear()
        assert await bench.ask(ctx, LinkOp.READ, 0, read_two) == (LinkStatus.OK, words)
        assert await bench.ask(ctx, LinkOp.READ, 7, read_two) == (LinkStatus.BAD_SEQUENCE, b"")
        assert await bench.raw(ctx, b"\0garbage\0") == bytes([contract.NAK, 0, LinkStatus.BAD_FRAME])
        assert await bench.ask(ctx, LinkOp.READ, 0, read_two) == (LinkStatus.OK, words)
        refusals = [
            (LinkOp.READ, where(Region.ACT, 5) + b"\0\0", LinkStatus.BAD_LENGTH),
            (LinkOp.READ, where(Region.ACT, 5) + b"\x01\x01", LinkStatus.BAD_LENGTH),
            (LinkOp.READ, where(Region.ACT, 5), LinkStatus.BAD_LENGTH),
            (LinkOp.READ, b"\0\0\0\x01\x01\0", LinkStatus.BAD_OFFSET),
            (LinkOp.WRITE, where(Region.ACT, 5) + b"abc", LinkStatus.BAD_LENGTH),
            (LinkOp.WRITE, where(Region.ACT, 5), LinkStatus.BAD_LENGTH),
            (LinkOp.WRITE, b"\0\0\0\x80\x01\0\0\0", LinkStatus.BAD_OFFSET),
            (LinkOp.INPUT, b"\0\0\0\0", LinkStatus.BAD_LENGTH),
            (LinkOp.INPUT, b"\0\0\0\0x", LinkStatus.NOT_READY),
            (LinkOp.RESET, b"x", LinkStatus.BAD_LENGTH),
            (LinkOp.OPEN, b"epoch", LinkStatus.BAD_LENGTH),
            (LinkOp.HELLO, b"x", LinkStatus.BAD_LENGTH),
            (0x7F, b"", LinkStatus.BAD_OPCODE),
        ]
        for sequence, (opcode, body, expected) in enumerate(refusals, start=1):
            assert await bench.ask(ctx, opcode, sequence, body) == (expected, b""), (opcode, body)
        assert bench.writes == [
            (contract.address(Region.ACT, 5 + i), w) for i, w in enumerate((0x01020304, 0xA0000000))
        ]

    bench.run(script)


def test_link_guards_the_memories_and_the_input_by_state() -> None:
    bench = Bench(2)

    async def script(ctx: Any) -> None:
        await hello(bench, ctx, 0)
        sequence = 0
        word = struct.pack("<I", 9)
        for state in State:
            ctx.set(bench.dut.state, state)
            guarded = state in (State.CHECK, State.INPUT, State.RUN)
            for region in (Region.COUNTER, Region.WEIGHT):
                sequence += 1
                status, _ = await bench.ask(ctx, LinkOp.WRITE, sequence, where(region, 3) + word)
                busy = guarded and region is Region.WEIGHT
                assert status == (LinkStatus.BUSY if busy else LinkStatus.OK), (state, region)
            sequence += 1
            status, _ = await bench.ask(ctx, LinkOp.READ, sequence, where(Region.DESC, 3) + b"\x01\0")
            assert status == (LinkStatus.BUSY if guarded else LinkStatus.OK)
        ctx.set(bench.dut.state, State.INPUT)
        image = bytes(bench.rng.randbytes(60))
        parts = [(0, 40, LinkStatus.OK), (0, 40, LinkStatus.BAD_OFFSET), (40, 60, LinkStatus.OK)]
        for start, stop, expected in parts:
            sequence += 1
            body = struct.pack("<I", start) + image[start:stop]
            assert await bench.ask(ctx, LinkOp.INPUT, sequence, body) == (expected, b"")
        assert bench.taken == image

    bench.run(script)


def test_link_survives_a_core_that_does_not_answer() -> None:
    bench = Bench(3)

    async def script(ctx: Any) -> None:
        await hello(bench, ctx, 0)
        bench.dead = True
        read = where(Region.CSR, 0) + b"\x02\0"
        write = where(Region.CSR, 0) + b"abcd"
        assert await bench.ask(ctx, LinkOp.READ, 1, read) == (LinkStatus.CORE_TIMEOUT, b"")
        assert await bench.ask(ctx, LinkOp.WRITE, 2, write) == (LinkStatus.CORE_TIMEOUT, b"")
        assert await bench.ask(ctx, LinkOp.RESET, 3) == (LinkStatus.CORE_TIMEOUT, b"")
        bench.dead = False
        ctx.set(bench.dut.state, State.INPUT)
        bench.deaf = True
        assert await bench.ask(ctx, LinkOp.INPUT, 4, b"\0\0\0\0abc") == (LinkStatus.NOT_READY, b"")
        assert await bench.ask(ctx, LinkOp.RESET, 5) == (LinkStatus.OK, b"")
        assert bench.writes == [(contract.address(Region.CSR, contract.Csr.CONTROL), 4)]
        assert not bench.taken

    bench.run(script)
