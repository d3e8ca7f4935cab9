"""The whole overlay through its UART's pins, bit by bit, with the host's own driver: every layer of every image."""

from __future__ import annotations

from pathlib import Path

import cocotb
import numpy as np
from cocotb.handle import HierarchyObject
from cocotb.task import bridge
from pin_transport import TIMING, PinTransport

from reverb_fpga.compiler import rvb
from reverb_fpga.host.driver import Device
from reverb_fpga.sim.bench.environment import Bench
from reverb_fpga.sim.verify import Verification, Verifier


@cocotb.test()
async def every_layer(dut: HierarchyObject) -> None:
    """Parameters: ``program``, ``codes`` (files); ``divisor``; ``limit``."""
    bench = Bench(dut)
    bench.set(rx=1)
    await bench.start(bench.parameters["limit"], ["reset"])
    transport = PinTransport(bench, bench.parameters["divisor"])
    program = rvb.load(Path(bench.parameters["program"]))
    codes = np.load(bench.parameters["codes"])

    def verify() -> Verification:
        device = Device(transport, TIMING)
        device.connect(bench.config.digest)
        verifier = Verifier(program, bench.config, device)
        result = verifier.run(codes)
        model = verifier.model
        inference = device.infer(model.input_bytes(codes[:1])[0])  # once without a halt
        assert inference.logits.tolist() == model.run(codes[:1])[0].tolist()
        return result

    result = await bridge(verify)()
    assert result.difference is None, str(result.difference)
    bench.record(
        images=result.images, descriptors=result.descriptors, events=result.events, logits=result.logits,
        bytes_sent=transport.sent, bytes_received=transport.received,
    )  # fmt: skip
