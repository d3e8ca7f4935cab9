"""The blocks of the link, side by side, against the host's own framing."""

from __future__ import annotations

import cocotb
from cocotb.handle import HierarchyObject
from test_hw_link import COBS_CASES

from reverb_fpga.host.framing import FrameDecoder, cobs_encode, encode_frame
from reverb_fpga.hw.contract import MAX_PAYLOAD
from reverb_fpga.sim.bench.environment import Bench
from reverb_fpga.sim.bench.pauses import mixed
from reverb_fpga.sim.bench.streams import StreamSink, StreamSource
from reverb_fpga.sim.bench.uart import UartListener, UartSender

DIVISOR = 4


@cocotb.test()
async def uart_receives(dut: HierarchyObject) -> None:
    bench = Bench(dut, "uart_rx")
    bench.set(rx=1)
    await bench.start(50_000)
    got: list[tuple[int, int]] = []

    async def watch() -> None:
        while True:
            await bench.until("strobe")
            got.append((bench.get("data"), bench.get("error")))

    cocotb.start_soon(watch())
    expected = []
    for skew in (0.98, 1.0, 1.02):
        data = bench.rng.randbytes(30) + b"\0\xff"
        await UartSender(bench, "rx", DIVISOR, skew).send(data)
        expected += [(byte, 0) for byte in data]
        await bench.tick(bench.rng.randint(1, 60))
    await UartSender(bench, "rx", DIVISOR).send(b"\x5a", stop=0)
    await bench.tick(20)
    await UartSender(bench, "rx", DIVISOR).send(b"\xa5")
    await bench.tick(20)
    assert got == [*expected, (0x5A, 1), (0xA5, 0)]
    bench.record(uart_rx_bytes=len(got))


@cocotb.test()
async def uart_transmits(dut: HierarchyObject) -> None:
    bench = Bench(dut, "uart_tx")
    source = StreamSource(bench, "bytes", mixed(bench.rng))
    await bench.start(50_000)
    listener = UartListener(bench, "tx", DIVISOR)
    data = bench.rng.randbytes(100)
    await source.send(data)
    await bench.tick(12 * DIVISOR)
    assert listener.received == data
    bench.record(uart_tx_bytes=len(data))


@cocotb.test()
async def cobs_decodes(dut: HierarchyObject) -> None:
    bench = Bench(dut, "cobs_decoder")
    await bench.start(50_000, ["strobe", "data"])
    pauses = mixed(bench.rng)
    for data in COBS_CASES:
        got = bytearray()
        for byte in cobs_encode(data):
            while next(pauses):
                bench.set(strobe=0, data=bench.rng.randrange(256))
                await bench.tick()
                assert not bench.get("o_strobe")
            bench.set(strobe=1, data=byte)
            await bench.tick()
            if bench.get("o_strobe"):
                got.append(bench.get("o_data"))
        bench.set(strobe=1, data=0)
        await bench.tick()
        assert bench.get("complete")
        assert not bench.get("o_strobe")
        assert bytes(got) == data
    bench.record(cobs_decoder_frames=len(COBS_CASES))


@cocotb.test()
async def cobs_encodes(dut: HierarchyObject) -> None:
    bench = Bench(dut, "cobs_encoder")
    memory = bytearray(2048)
    source = StreamSource(bench, "bytes", mixed(bench.rng))
    await bench.start(50_000, ["start", "finish"])

    async def store() -> None:
        while True:
            await bench.until("w_en")
            memory[bench.get("w_addr")] = bench.get("w_data")

    cocotb.start_soon(store())
    for data in COBS_CASES:
        for content in (data[: bench.rng.randrange(1 + len(data))], data):  # the first is given up
            await bench.pulse("start")
            await source.send(content)
        await bench.pulse("finish")
        await bench.tick(2)
        assert bytes(memory[: bench.get("length")]) == cobs_encode(data)
    bench.record(cobs_encoder_frames=len(COBS_CASES))


def damaged(bench: Bench, wire: bytes) -> bytes:
    """One byte between the separators is another one, still not zero."""
    spoiled = bytearray(wire)
    at = bench.rng.randrange(1, len(wire) - 1)
    spoiled[at] = bench.rng.choice([value for value in range(1, 256) if value != wire[at]])
    return bytes(spoiled)


@cocotb.test()
async def frames_are_received(dut: HierarchyObject) -> None:
    bench = Bench(dut, "frame_rx")
    rng = bench.rng
    await bench.start(100_000, ["strobe", "data", "error", "addr", "release"])
    bad = 0

    async def count_bad() -> None:
        nonlocal bad
        while True:
            await bench.until("bad")
            bad += 1

    cocotb.start_soon(count_bad())
    pauses = mixed(rng)

    async def feed(wire: bytes) -> None:
        for byte in wire:
            while next(pauses):
                bench.set(strobe=0, data=rng.randrange(256))
                await bench.tick()
            bench.set(strobe=1, data=byte)
            await bench.tick()
        bench.set(strobe=0)
        await bench.tick(4)

    spoiled = good = 0
    for length in [2, 2, 3, 8, *(rng.randint(2, 60) for _ in range(16)), 6 + MAX_PAYLOAD]:
        content = rng.randbytes(length) if length > 2 else bytes(length)
        if rng.random() < 0.4:
            await feed(damaged(bench, encode_frame(content)))
            spoiled += 1
            assert not bench.get("valid")
        await feed(encode_frame(content))
        assert bad == spoiled
        assert bench.get("valid")
        assert bench.get("length") == length
        got = bytearray()
        for index in range(length):
            bench.set(addr=index)
            await bench.tick(2)
            got.append(bench.get("r_data"))
        assert bytes(got) == content
        await bench.pulse("release")
        await bench.tick()
        assert not bench.get("valid")
        good += 1
    bench.record(frames_received=good, frames_refused=spoiled)


@cocotb.test()
async def frames_are_transmitted(dut: HierarchyObject) -> None:
    bench = Bench(dut, "frame_tx")
    rng = bench.rng
    source = StreamSource(bench, "response_payload", mixed(rng))
    sink = StreamSink(bench, "bytes", mixed(rng))
    await bench.start(200_000, ["response_start", "response_aside", "response_finish", "response_repeat"])
    expected = []
    kept = b""
    for number in range(20):
        aside = number > 0 and rng.random() < 0.3
        content = rng.randbytes(rng.randint(3, 12 if aside else 120))
        bench.set(response_aside=int(aside))
        await bench.pulse("response_start")
        await source.send(content)
        await bench.pulse("response_finish")
        await bench.tick()
        await bench.until("response_busy", 0)
        expected.append(content)
        kept = kept if aside else content
        if rng.random() < 0.5:
            await bench.pulse("response_repeat")
            await bench.tick()
            await bench.until("response_busy", 0)
            expected.append(kept)
    assert FrameDecoder().feed(bytes(sink.received)) == expected
    bench.record(frames_transmitted=len(expected))
