"""cocotb benches of the blocks, on Verilator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from components import FramedReceiver
from test_hw_gather import small

from reverb_fpga.hw.config import preset
from reverb_fpga.hw.gather import Gather
from reverb_fpga.hw.lanes import LaneArray
from reverb_fpga.hw.lanes.cluster import Cluster
from reverb_fpga.hw.link import (
    CobsDecoder,
    CobsEncoder,
    FrameTransmitter,
    SerialLink,
    UartReceiver,
    UartTransmitter,
)
from reverb_fpga.hw.neuron import Emitter, InputEncoder, NeuronUnit, SlotAccumulator
from reverb_fpga.sim.bench.runner import run_bench
from reverb_fpga.sim.bench.side_by_side import SideBySide

BENCHES = Path(__file__).parent / "cocotb"
TINY = preset("tiny")
CONFIG = {"config": dataclasses.asdict(TINY)}
DIVISOR = 4


def test_link_blocks() -> None:
    blocks = SideBySide(
        {
            "uart_rx": UartReceiver(DIVISOR),
            "uart_tx": UartTransmitter(DIVISOR),
            "cobs_decoder": CobsDecoder(),
            "cobs_encoder": CobsEncoder(11),
            "frame_rx": FramedReceiver(),
            "frame_tx": FrameTransmitter(),
        }
    )
    outcome = run_bench(blocks, "link-blocks", BENCHES / "bench_link_blocks.py")
    assert outcome.tests == 6
    assert outcome.figures["frames_received"] >= 20


def test_link() -> None:
    parameters = {"divisor": DIVISOR, **CONFIG}
    outcome = run_bench(SerialLink(TINY, DIVISOR, patience=200), "link", BENCHES / "bench_link.py", parameters)
    assert outcome.tests == 3
    assert outcome.figures["link_requests"] == 60


def test_lanes() -> None:
    cluster = Cluster(TINY.ports, TINY.lanes_per_cluster, TINY.acc_width)
    blocks = SideBySide({"array": LaneArray(TINY), "cluster": cluster})
    outcome = run_bench(blocks, "lanes-tiny", BENCHES / "bench_lanes.py", CONFIG)
    assert outcome.tests == 2
    assert outcome.figures["lane_passes"] == 80


def test_neuron() -> None:
    blocks = SideBySide(
        {
            "unit": NeuronUnit(TINY),
            "emitter": Emitter(TINY),
            "accumulator": SlotAccumulator(TINY),
            "encoder": InputEncoder(TINY),
        }
    )
    outcome = run_bench(blocks, "neuron-tiny", BENCHES / "bench_neuron.py", CONFIG)
    assert outcome.tests == 4
    assert outcome.figures["neuron_captures"] > 10


def test_gather() -> None:
    config = small("tiny", act_words=600, count_words=128, weight_rows=256)
    parameters = {"config": dataclasses.asdict(config)}
    outcome = run_bench(Gather(config), "gather-tiny", BENCHES / "bench_gather.py", parameters)
    assert outcome.figures["gather_events"] > 1000
