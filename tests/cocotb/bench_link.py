"""The whole link through its pins: random requests, damaged frames and repeats against a memory behind the bus."""

from __future__ import annotations

import struct

import cocotb
from cocotb.handle import HierarchyObject
from cocotb.triggers import Event

from reverb_fpga.host.framing import FrameDecoder, encode_frame
from reverb_fpga.hw import contract
from reverb_fpga.hw.contract import LinkOp, LinkStatus, Region, State
from reverb_fpga.sim.bench.buses import HostBusMemory
from reverb_fpga.sim.bench.environment import Bench
from reverb_fpga.sim.bench.pauses import independent, mixed
from reverb_fpga.sim.bench.uart import UartListener, UartSender

REQUESTS = 60
LIMIT = 600_000


class Host:
    """The other end of the line, without the driver's retries: what goes out and comes in is seen frame by frame."""

    def __init__(self, bench: Bench) -> None:
        divisor = bench.parameters["divisor"]
        self.bench = bench
        self.sequence = 0
        self._sender = UartSender(bench, "rx", divisor)
        self._decoder = FrameDecoder()
        self._arrived = Event()
        self._frame = b""
        UartListener(bench, "tx", divisor, self._byte)

    def _byte(self, byte: int) -> None:
        for content in self._decoder.feed(bytes([byte])):
            assert content is not None, "the device sent a damaged frame"
            self._frame = content
            self._arrived.set()

    async def exchange(self, wire: bytes) -> bytes:
        self._arrived.clear()
        await self._sender.send(wire)
        await self._arrived.wait()
        return self._frame

    async def ask(self, opcode: LinkOp, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body; sometimes through damage and repeats."""
        self.sequence = (self.sequence + 1) % 256
        wire = encode_frame(bytes([opcode, self.sequence]) + body)
        if self.bench.rng.random() < 0.2:
            spoiled = bytearray(wire)
            spoiled[len(wire) // 2] = spoiled[len(wire) // 2] % 255 + 1
            assert await self.exchange(bytes(spoiled)) == bytes([contract.NAK, 0, LinkStatus.BAD_FRAME])
        answer = await self.exchange(wire)
        if self.bench.rng.random() < 0.2:
            assert await self.exchange(wire) == answer
        assert answer[:2] == bytes([opcode | contract.RESPONSE_BIT, self.sequence])
        return answer[2], answer[3:]


async def begin(dut: HierarchyObject) -> tuple[Bench, Host]:
    bench = Bench(dut)
    bench.set(rx=1)
    await bench.start(LIMIT, ["state", "input_bytes", "input_ready", "bus_ready"])
    host = Host(bench)
    digest = bench.config.digest
    nonce = bench.rng.randbytes(4)
    hello = await host.exchange(encode_frame(bytes([LinkOp.HELLO, host.sequence]) + nonce))
    identity = (contract.MAGIC, contract.CONTRACT_VERSION, digest & 0xFFFFFFFF, digest >> 32, contract.MAX_PAYLOAD, 1)
    assert hello[2:] == bytes([LinkStatus.OK]) + nonce + struct.pack("<IIIIHB", *identity)
    return bench, host


@cocotb.test()
async def reads_and_writes(dut: HierarchyObject) -> None:
    bench, host = await begin(dut)
    rng = bench.rng
    memory = HostBusMemory(bench, pauses=mixed(rng))
    expected: dict[int, int] = {}
    order: list[tuple[int, int]] = []
    words = 0
    for _ in range(REQUESTS):
        region = rng.choice(list(Region))
        count = rng.randint(1, 8)
        offset = rng.choice([0, 3, 5, (1 << contract.OFFSET_BITS) - 2])
        where = [contract.address(region, (offset + k) % (1 << contract.OFFSET_BITS)) for k in range(count)]
        head = struct.pack("<I", contract.address(region, offset))
        if rng.random() < 0.5:
            data = [rng.getrandbits(32) for _ in range(count)]
            assert await host.ask(LinkOp.WRITE, head + struct.pack(f"<{count}I", *data)) == (LinkStatus.OK, b"")
            expected |= dict(zip(where, data, strict=True))
            order += zip(where, data, strict=True)
        else:
            status, body = await host.ask(LinkOp.READ, head + struct.pack("<H", count))
            assert status == LinkStatus.OK
            assert list(struct.unpack(f"<{count}I", body)) == [expected.get(address, 0) for address in where]
        words += count
    assert memory.writes == order  # each exactly once, in order
    bench.record(link_requests=REQUESTS, link_words=words)


@cocotb.test()
async def takes_input_once(dut: HierarchyObject) -> None:
    bench, host = await begin(dut)
    rng = bench.rng
    taken = bytearray()

    async def encoder() -> None:
        pauses = independent(rng, 0.6)
        while True:
            open_ = not next(pauses)
            bench.set(input_ready=int(open_))
            await bench.tick()
            if open_ and bench.get("input_valid"):
                taken.append(bench.get("input_payload"))
                bench.set(input_bytes=len(taken))

    cocotb.start_soon(encoder())
    assert await host.ask(LinkOp.INPUT, b"\0\0\0\0x") == (LinkStatus.NOT_READY, b"")
    bench.set(state=State.INPUT)
    image = rng.randbytes(150)
    while len(taken) < len(image):
        part = image[len(taken) : len(taken) + rng.randint(1, 60)]
        body = struct.pack("<I", len(taken)) + part
        assert await host.ask(LinkOp.INPUT, body) == (LinkStatus.OK, b"")
        assert await host.ask(LinkOp.INPUT, body) == (LinkStatus.BAD_OFFSET, b"")
    assert taken == image
    assert await host.ask(LinkOp.READ, struct.pack("<IH", contract.address(Region.ACT, 0), 1)) == (LinkStatus.BUSY, b"")
    bench.record(link_input_bytes=len(image))


@cocotb.test()
async def gives_up_on_a_dead_core(dut: HierarchyObject) -> None:
    bench, host = await begin(dut)
    memory = HostBusMemory(bench)
    memory.dead = True
    where = struct.pack("<I", contract.address(Region.CSR, 0))
    for opcode, body in ((LinkOp.READ, where + b"\x02\0"), (LinkOp.WRITE, where + b"abcd"), (LinkOp.RESET, b"")):
        assert await host.ask(opcode, body) == (LinkStatus.CORE_TIMEOUT, b"")
    memory.dead = False
    assert await host.ask(LinkOp.RESET) == (LinkStatus.OK, b"")
    assert memory.writes == [(contract.address(Region.CSR, contract.Csr.CONTROL), 4)]
    bench.record(link_timeouts=3)
