"""No program that passes the verifier is ended by the device's watchdog."""

from __future__ import annotations

import numpy as np
import pytest
from mutations import bases

from reverb_fpga.compiler import program_time
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.compiler.program_time import check_time, most_cycles
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import WATCHDOG_CYCLES, Opcode
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel

TINY, ROWS = preset("tiny"), preset("tiny-row")


def bound(program: Program, index: int, config: Config = TINY) -> int:
    """0 for what is no layer: the watchdog does not watch the input, which waits for the host."""
    opcode, fields = program.descriptor(index)
    if opcode is not Opcode.LAYER:
        return 0
    return most_cycles(fields, -(-program.layers[fields["layer"]].shape[0] // config.neuron_lanes), config)


@pytest.mark.parametrize("config", [TINY, ROWS], ids=lambda config: config.name)
def test_no_strip_takes_longer_than_its_bound(config: Config) -> None:
    rng = np.random.default_rng(1)
    nearest = 0.0
    for program in bases(rng, config, 40):
        source, model = program.input, CycleModel(program, config)
        codes = np.full(
            (2, model.golden.input_steps, source.height, source.width, source.channels), 255, dtype=np.uint8
        )
        codes[1] = rng.integers(0, 256, codes[1].shape)
        for strips in model.strips(codes):
            for strip in strips:
                if most := bound(program, strip.index, config):
                    assert strip.cycles <= most
                    nearest = max(nearest, strip.cycles / most)
    assert nearest > 0.3  # or the bound would refuse too much


def test_what_may_outrun_the_watchdog_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = bases(np.random.default_rng(2), TINY, 1)[0]
    longest = max(bound(program, index) for index in range(1, program.n_descriptors - 1))
    check_program(program, TINY)
    monkeypatch.setattr(program_time, "WATCHDOG_CYCLES", longest)
    check_program(program, TINY)
    monkeypatch.setattr(program_time, "WATCHDOG_CYCLES", longest - 1)
    with pytest.raises(InputError, match=rf"descriptor \d+: may take {longest:,} cycles, after {longest - 1:,}"):
        check_program(program, TINY)


def test_fields_can_say_too_much() -> None:
    """Within the memories of ``tiny``: 1,024 positions of 64 records of 64 words each, in 128 passes."""
    fields = {
        "rows": 32, "cols": 32, "timesteps": 1, "static_input": 0, "n_pool_y": 1, "n_pool_x": 2, "n_tap_y": 4,
        "n_tap_x": 8, "src_slots": 64, "n_passes": 128, "row_passes": 0, "pass_slots": 0,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"here: may take 2\d\d,\d{3},\d{3} cycles"):
        check_time(fields, 32, TINY, "here")
    check_time({**fields, "n_passes": 16}, 32, TINY, "here")
    assert most_cycles({**fields, "n_passes": 16}, 32, TINY) > WATCHDOG_CYCLES // 2
