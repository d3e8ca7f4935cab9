"""The whole core, descriptor by descriptor against the golden model, through host bus and input stream."""

from __future__ import annotations

from pathlib import Path

import cocotb
import numpy as np
from cocotb.handle import HierarchyObject
from cocotb.task import bridge

from reverb_fpga.compiler import rvb
from reverb_fpga.hw.contract import Csr
from reverb_fpga.sim.bench.buses import HostInitiator
from reverb_fpga.sim.bench.environment import Bench
from reverb_fpga.sim.bench.pauses import mixed, never
from reverb_fpga.sim.bench.streams import StreamSource
from reverb_fpga.sim.bench.targets import CoreTarget
from reverb_fpga.sim.verify import Verification, Verifier


@cocotb.test()
async def every_layer(dut: HierarchyObject) -> None:
    """Parameters: ``cases``, a list of (program file, codes file); ``limit``; ``pauses``."""
    bench = Bench(dut)
    paused = bench.parameters["pauses"]
    bus = HostInitiator(bench, pauses=mixed(bench.rng) if paused else never())
    source = StreamSource(bench, "input", mixed(bench.rng) if paused else never())
    await bench.start(bench.parameters["limit"], ["reset"])
    target = CoreTarget(bench, bus, source)
    totals = {"images": 0, "descriptors": 0, "events": 0, "logits": 0}
    for program_file, codes_file in bench.parameters["cases"]:
        program = rvb.load(Path(program_file))

        def verify() -> Verification:
            verifier = Verifier(program, bench.config, target)  # noqa: B023 - awaited within this turn
            result = verifier.run(np.load(codes_file))  # noqa: B023
            assert target.csr(Csr.INPUT_BYTES) == np.load(codes_file)[0].size  # noqa: B023
            return result

        result = await bridge(verify)()
        assert result.difference is None, str(result.difference)
        for name in totals:
            totals[name] += getattr(result, name)
        dut._log.info(f"{totals} after {bench.cycles} cycles")
    bench.record(programs=len(bench.parameters["cases"]), **totals)
