"""Blocks of the link that streams need, in Amaranth's simulator, against plain models."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from test_hw_link import pause, simulate

from reverb_fpga.host.framing import encode_frame
from reverb_fpga.hw.contract import MAX_PAYLOAD, LinkOp
from reverb_fpga.hw.link import BusArbiter, Deframer, FrameReceiver, ResultStore
from reverb_fpga.hw.link.results import RESULT_WORDS
from reverb_fpga.hw.link.signatures import StreamState, received_bytes
from reverb_fpga.hw.signatures import byte_stream

RING = 2048
EPOCH = 0xC0FFEE01


@pytest.mark.parametrize("seed", [1, 2])
def test_results_are_kept_until_they_are_acknowledged(seed: int) -> None:
    """Random pushes, reports, losses of reports, acknowledgements late and stale: every word is delivered in order."""
    dut = ResultStore()
    rng = random.Random(seed)
    pushed: list[int] = []
    known: list[int] = []  # what the host has

    async def producer(ctx: Any) -> None:
        while True:
            ctx.set(dut.words.valid, int(rng.random() < 0.3))
            ctx.set(dut.words.payload, word := rng.getrandbits(32))
            _, _, valid, ready = await ctx.tick().sample(dut.words.valid, dut.words.ready)
            if valid and ready:
                pushed.append(word)

    async def report(ctx: Any) -> tuple[int, list[int]]:
        """What a report would carry: at most ten words."""
        ctx.set(dut.hold, 1)
        first, words = ctx.get(dut.first), []
        await pause(ctx, 2)  # the header goes before
        while len(words) < 10 and ctx.get(dut.delivered.valid):
            words.append(ctx.get(dut.delivered.payload))
            ctx.set(dut.delivered.ready, 1)
            await ctx.tick()
            ctx.set(dut.delivered.ready, 0)
            await pause(ctx, rng.randrange(1, 4))  # a word takes four clocks to be sent, at least
        ctx.set(dut.hold, 0)
        return first, words

    async def acknowledge(ctx: Any, taken: int, rewind: bool) -> None:
        ctx.set(dut.taken, taken & 0xFFFFFFFF)
        ctx.set(dut.acknowledge, 1)
        ctx.set(dut.rewind, int(rewind))
        await ctx.tick()
        ctx.set(dut.acknowledge, 0)
        ctx.set(dut.rewind, 0)
        await ctx.tick().repeat(6)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.active, 1)
        for _ in range(400):
            first, words = await report(ctx)
            assert words == pushed[first : first + len(words)]
            if rng.random() < 0.7 and first <= len(known):  # the others are lost
                known.extend(words[len(known) - first :])
            action = rng.random()
            if action < 0.3:
                await acknowledge(ctx, len(known), rewind=False)
            elif action < 0.5:
                await acknowledge(ctx, len(known), rewind=True)
                assert ctx.get(dut.first) == len(known)
            elif action < 0.6:  # an old one, or nonsense
                await acknowledge(ctx, rng.choice([0, len(known) - 200, len(known) + 1000]), rewind=False)
            assert len(pushed) - len(known) <= RESULT_WORDS
        assert len(known) > 500
        ctx.set(dut.active, 0)
        await ctx.tick().repeat(2)
        assert (ctx.get(dut.first), ctx.get(dut.ready)) == (0, 0)

    simulate(dut, bench, background=(producer,))
    assert known == pushed[: len(known)]


class StreamedInput(wiring.Component):
    """Deframer and FrameReceiver with an open stream."""

    def __init__(self) -> None:
        super().__init__({"received": In(received_bytes()), "stream": Out(StreamState()), "bytes": Out(byte_stream())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.deframer = deframer = Deframer()
        m.submodules.receiver = receiver = FrameReceiver(RING)
        connect(m, flipped(self.received), deframer.bytes)
        connect(m, deframer.frame, receiver.frame)
        connect(m, receiver.stream, flipped(self.stream))
        connect(m, receiver.bytes, flipped(self.bytes))
        m.d.comb += [receiver.active.eq(1), receiver.epoch.eq(EPOCH)]
        return m


def data_frame(turn: int, position: int, data: bytes, taken: int = 0, epoch: int = EPOCH) -> bytes:
    return encode_frame(struct.pack("<BBIII", LinkOp.DATA, turn, epoch, position, taken) + data)


@pytest.mark.parametrize("seed", [1, 2])
def test_stream_bytes_arrive_once_and_in_order(seed: int) -> None:
    """Frames right, repeated, ahead, damaged, of strangers, and beyond the credit, while the core takes its time."""
    dut = StreamedInput()
    rng = random.Random(seed)
    source = rng.randbytes(7000)
    got = bytearray()
    events = {"gap": 0, "question": 0, "stranger": 0, "acknowledge": 0}
    pace = [0.5]

    async def core(ctx: Any) -> None:
        while True:
            ctx.set(dut.bytes.ready, int(rng.random() < pace[0]))
            _, _, valid, ready, byte = await ctx.tick().sample(dut.bytes.valid, dut.bytes.ready, dut.bytes.payload)
            if valid and ready:
                got.append(byte)

    async def watch(ctx: Any) -> None:
        pulses = [getattr(dut.stream, name) for name in events]
        async for _, _, *values in ctx.tick().sample(*pulses):
            for name, value in zip(events, values, strict=True):
                events[name] += value

    async def send(ctx: Any, wire: bytes) -> dict[str, int]:
        """What the frame led to."""
        before = dict(events)
        for byte in wire:
            ctx.set(dut.received.valid, 1)
            ctx.set(dut.received.payload.data, byte)
            await ctx.tick()
        ctx.set(dut.received.valid, 0)
        await ctx.tick().repeat(6)
        return {name: events[name] - before[name] for name in events}

    async def bench(ctx: Any) -> None:
        turn = 0
        while (position := ctx.get(dut.stream.position)) < len(source) - 2 * MAX_PAYLOAD:
            pace[0] = rng.choice([0.0, 0.1, 0.9])
            size = rng.choice([1, 7, 200, MAX_PAYLOAD])
            room = ctx.get(dut.stream.limit) - position
            good = data_frame(turn, position, source[position : position + size])
            kind = rng.randrange(7)
            if kind == 0:
                spoiled = bytearray(good)
                spoiled[rng.randrange(20, len(good) - 1)] ^= 0x40
                await send(ctx, bytes(spoiled))
            elif kind == 1 and position:
                back = rng.randrange(1, min(position, 900) + 1)
                found = await send(ctx, data_frame(turn, position - back, source[position - back : position + 5]))
                assert found == {"gap": 0, "question": 0, "stranger": 0, "acknowledge": 1}
            elif kind == 2:
                turn = (turn + 1) % 256
                found = await send(ctx, data_frame(turn, position + 3, b"abc"))
                assert found["gap"] == 1
                assert (await send(ctx, data_frame(turn, position + 9, b"abc")))["gap"] == 0  # told already
            elif kind == 3:
                found = await send(ctx, data_frame(turn, position, b"abc", epoch=EPOCH ^ 1))
                assert found == {"gap": 0, "question": 0, "stranger": 1, "acknowledge": 0}
            elif kind == 4:
                found = await send(ctx, data_frame(turn, position, b"", taken=77))
                assert (found["question"], found["acknowledge"]) == (1, 1)
                assert ctx.get(dut.stream.taken) == 77
            else:
                await send(ctx, good)
                if size <= room:
                    assert ctx.get(dut.stream.position) == position + size
                    continue
            if kind < 5 or size > RING:
                assert ctx.get(dut.stream.position) == position
        pace[0] = 1.0
        await ctx.tick().repeat(RING + 10)
        assert bytes(got) == source[: ctx.get(dut.stream.position)]
        assert ctx.get(dut.stream.limit) - ctx.get(dut.stream.position) == RING

    simulate(dut, bench, background=(core, watch))
    assert min(events.values()) > 0


def test_two_initiators_share_a_bus() -> None:
    dut = BusArbiter()
    rng = random.Random(4)
    served: list[tuple[int, int]] = []

    async def memory(ctx: Any) -> None:
        while True:
            ctx.set(dut.bus.ready, int(rng.random() < 0.4))
            sampled = await ctx.tick().sample(dut.bus.valid, dut.bus.ready, dut.bus.write, dut.bus.addr)
            _, _, valid, ready, write, addr = sampled
            if not (valid and ready):
                continue
            served.append((write, addr))
            ctx.set(dut.bus.ready, 0)
            if not write:
                await pause(ctx, rng.randrange(5))
                ctx.set(dut.bus.r_valid, 1)
                ctx.set(dut.bus.r_data, addr + 1)
                await ctx.tick()
                ctx.set(dut.bus.r_valid, 0)

    def initiator(port: Any, base: int) -> Any:
        async def run(ctx: Any) -> None:
            own = random.Random(base)
            for k in range(60):
                write = own.random() < 0.4
                ctx.set(port.addr, base + k)
                ctx.set(port.write, int(write))
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)
                if not write:
                    for _ in range(50):
                        if ctx.get(port.r_valid):
                            break
                        await ctx.tick()
                    assert ctx.get(port.r_valid)
                    assert ctx.get(port.r_data) == base + k + 1
                await pause(ctx, own.randrange(4))

        return run

    simulate(dut, initiator(dut.first, 1000), initiator(dut.second, 5000), background=(memory,))
    for base in (1000, 5000):
        assert [addr for _, addr in served if base <= addr < base + 1000] == [base + k for k in range(60)]
