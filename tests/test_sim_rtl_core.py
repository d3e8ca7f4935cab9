"""The whole core in Verilator: bit-exact against the golden model through resets and stalls; its driver's errors."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import RandomOptions, plain_meta, random_codes, random_network
from reverb_fpga.host.backends import simulated_core
from reverb_fpga.hw import processes
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Counter, Csr, Fault, Opcode, Region, State
from reverb_fpga.hw.errors import DeviceError, InputError
from reverb_fpga.sim.cycles import CycleModel, image_cycles
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore
from reverb_fpga.sim.verify import Verifier
from reverb_fpga.sim.virtual_board import VirtualBoard

CONFIG = preset("tiny")
Codes = NDArray[np.uint8]


@pytest.fixture(scope="module", params=["alone", "beside its link"])
def core(request: pytest.FixtureRequest) -> Iterator[RtlCore]:
    with RtlCore(CONFIG, linked=request.param != "alone") as one:
        yield one


def random_program(seed: int, images: int = 3, hints: Hints | None = None) -> tuple[Program, Codes]:
    """The first random network from ``seed`` on that fits, and codes."""
    while True:
        rng = np.random.default_rng(seed)
        network = random_network(rng, RandomOptions(saturate=seed % 3 == 0))
        try:
            program = lower(network, CONFIG, plain_meta(network), hints)
        except InputError:
            seed += 1000
            continue
        return program, random_codes(rng, network, images)


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_are_bit_exact(core: RtlCore, seed: int) -> None:
    program, codes = random_program(seed)
    core.stall_input(seed, 0.5 * (seed % 2))
    result = Verifier(program, CONFIG, core).run(codes)
    assert result.difference is None
    assert result.logits > 0


def test_a_core_takes_the_same_cycles_beside_its_link() -> None:
    program, codes = random_program(5)
    found = []
    for linked in (False, True):
        with RtlCore(CONFIG, linked=linked) as one:
            one.load(program)
            logits = one.infer(GoldenModel(program, CONFIG).input_bytes(codes)[0])
            found.append((logits.tolist(), one.cycles))
    assert found[0] == found[1]


def test_one_program_is_board_and_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``verify`` and ``classify --backend rtl`` run is compiled once."""
    started: list[Path] = []
    start = processes.start

    def noted(command: list[str | Path], **options: Any) -> Any:
        started.append(Path(command[0]))
        return start(command, **options)

    monkeypatch.setattr(processes, "start", noted)
    with VirtualBoard(CONFIG), simulated_core(CONFIG, lambda line: None) as one:
        assert one.status()["state"] == State.IDLE
    assert len(started) == 2
    assert started[0] == started[1]


@pytest.mark.slow
def test_many_random_programs_are_bit_exact(core: RtlCore) -> None:
    for seed in range(100, 400):
        program, codes = random_program(seed)
        core.stall_input(seed, 0.5 * (seed % 2))
        assert Verifier(program, CONFIG, core).run(codes).difference is None, seed


@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_cycles_do_not_count_the_waiting_for_rows(core: RtlCore, stall: float) -> None:
    """However late the rows of an image come, CYCLES is what the cycle model makes of the strips' counters."""
    program, codes = random_program(60, hints=Hints(input_rows=1, max_strip_rows=1))
    model = GoldenModel(program, CONFIG)
    loads = len(model.schedule.loads)
    assert loads > 2
    core.load(program)
    core.stall_input(9, stall)
    for sent, logits in zip(model.input_bytes(codes), model.run(codes), strict=True):
        np.testing.assert_array_equal(core.infer(sent), logits)
        strips = [
            dataclasses.replace(strip, cycles=core.counters(strip.index)[Counter.CYCLES])
            for strip in CycleModel(program, CONFIG).strips(codes[:1])[0]
        ]
        assert core.cycles == image_cycles(strips, loads)
        assert core.csr(Csr.INPUT_BYTES) == sent.size
    core.stall_input(0, 0.0)


@pytest.mark.parametrize("seed", range(40, 46))
@pytest.mark.parametrize("hints", [None, Hints(input_rows=1, ring_rows=1)])
def test_reset_at_any_cycle_leaves_nothing_behind(core: RtlCore, seed: int, hints: Hints | None) -> None:
    program, codes = random_program(seed, hints=hints)
    model = GoldenModel(program, CONFIG)
    expected, sent = model.run(codes), model.input_bytes(codes)
    core.reset()
    core.load(program)
    core.stall_input(seed, 0.1)
    rng = np.random.default_rng(seed)
    np.testing.assert_array_equal(core.infer(sent[0]), expected[0])
    length = core.cycles + 2 * sent.shape[1] + 100
    for trial in range(30):
        core.start()
        core.feed(sent[trial % 3].tobytes())
        core.step(int(rng.integers(0, length)))
        core.reset()
        assert core.status()["state"] == State.IDLE
        image = int(rng.integers(0, 3))
        np.testing.assert_array_equal(core.infer(sent[image]), expected[image])


def test_counters(core: RtlCore) -> None:
    program, codes = random_program(7)
    model = GoldenModel(program, CONFIG)
    core.reset()
    core.load(program)
    core.infer(model.input_bytes(codes)[0])
    layers = [
        (index, fields)
        for index in range(program.n_descriptors)
        for opcode, fields in [program.descriptor(index)]
        if opcode is Opcode.LAYER
    ]
    total = 0
    for index, fields in layers:
        counters = core.counters(index)
        steps = 1 if fields["static_input"] else fields["timesteps"]
        assert counters[Counter.PASSES] == fields["rows"] * fields["cols"] * steps * fields["n_passes"]
        assert counters[Counter.PASSES] <= counters[Counter.BEATS] <= counters[Counter.CYCLES]
        assert counters[Counter.EVENTS] <= counters[Counter.BEATS] * CONFIG.ports
        total += counters[Counter.CYCLES]
    assert total < core.cycles < total + 40 * (len(layers) + 1)


def test_a_flipped_bit_gives_no_logits(core: RtlCore) -> None:
    program, codes = random_program(3)
    core.reset()
    core.load(program)
    sent = GoldenModel(program, CONFIG).input_bytes(codes)
    good = core.infer(sent[0])
    word = int(core.read(Region.WEIGHT, 1, 1)[0])
    core.write(Region.WEIGHT, 1, [word ^ 1])
    with pytest.raises(DeviceError, match=r"^the core stopped: HASH_MISMATCH at descriptor 0$"):
        core.infer(sent[0])
    core.write(Region.WEIGHT, 1, [word])
    np.testing.assert_array_equal(core.infer(sent[0]), good)


def test_watchdog_and_recovery(core: RtlCore) -> None:
    program, codes = random_program(4)
    core.reset()
    core.load(program)
    sent = GoldenModel(program, CONFIG).input_bytes(codes)
    good = core.infer(sent[0])
    core.write(Region.CSR, Csr.WATCHDOG, [5])
    with pytest.raises(DeviceError, match="WATCHDOG at descriptor 1"):
        core.infer(sent[0])
    assert core.status()["error"] == Fault.WATCHDOG
    core.write(Region.CSR, Csr.WATCHDOG, [0])
    np.testing.assert_array_equal(core.infer(sent[0]), good)


def test_waiting_has_a_limit(core: RtlCore) -> None:
    program, _ = random_program(5)
    core.reset()
    core.load(program)
    core.start()
    with pytest.raises(DeviceError, match=r"^the core is still in state INPUT after 20000 cycles$"):
        core.wait((State.DONE,), max_cycles=20000)


def test_program_for_another_configuration(core: RtlCore) -> None:
    rng = np.random.default_rng(1)
    network = random_network(rng)
    program = lower(network, preset("ulx3s-12f"), plain_meta(network))
    with pytest.raises(InputError, match="ulx3s-12f"):
        core.load(program)


def test_a_dead_child_is_one_line() -> None:
    with RtlCore(CONFIG) as one:
        os.kill(one._child.pid, signal.SIGKILL)
        with pytest.raises(DeviceError, match=r"^the simulated core ended with exit code -9: no message$"):
            one.step(1)
    with pytest.raises(DeviceError, match="closed"):
        one.csr(Csr.MAGIC)


def test_no_waveform_without_its_build(core: RtlCore, tmp_path: Path) -> None:
    with RtlCore(CONFIG) as one, pytest.raises(DeviceError, match="without waveforms"):
        one.trace(tmp_path / "wave.vcd")


@pytest.mark.slow
def test_waveform(tmp_path: Path) -> None:
    program, codes = random_program(2)
    wave = tmp_path / "wave.vcd"
    with RtlCore(CONFIG, waveform=wave) as one:
        one.load(program)
        one.infer(codes[0])
    text = wave.read_text()
    assert text.startswith("$version")
    assert "sequencer" in text


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_waveform_that_cannot_be_written_ends_the_simulation(tmp_path: Path) -> None:
    program, codes = random_program(2)

    def record(core: RtlCore) -> None:
        core.trace(Path("/dev/full"))
        core.infer(codes[0])
        core.trace(None)

    with RtlCore(CONFIG, waveform=tmp_path / "wave.vcd") as one:
        one.load(program)
        with pytest.raises(DeviceError, match="the waveform cannot be written: No space left on device"):
            record(one)
