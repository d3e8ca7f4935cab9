"""Whatever passes the verifier is computed alike by the golden model and by the gateware; and never a traceback."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import numpy as np
import pytest
from mutations import bases, mutated

from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore

SHARE = 1_500
ALL = 100_000


@pytest.fixture(scope="module", params=["tiny", "tiny-row"])
def core(request: pytest.FixtureRequest) -> Iterator[RtlCore]:
    with RtlCore(preset(request.param)) as running:
        yield running


def same_in_gateware(core: RtlCore, program: Program, rng: np.random.Generator) -> None:
    """Three images and the first again: nothing may depend on what an image left behind."""
    model, image = GoldenModel(program, core.config), program.input
    shape = (3, model.input_steps, image.height, image.width, image.channels)
    codes = (rng.integers(0, 256, shape) * (rng.random(shape) < 0.6)).astype(np.uint8)
    codes[0] = 255
    codes = np.concatenate([codes, codes[:1]])
    wanted = model.run(codes)
    core.load(program)
    found = [core.infer(data) for data in model.input_bytes(codes)]
    np.testing.assert_array_equal(np.array(found), wanted)


def fuzz(core: RtlCore, seed: int, number: int) -> collections.Counter[str]:
    rng = np.random.default_rng(seed)
    valid = bases(rng, core.config, 40)
    counts: collections.Counter[str] = collections.Counter()
    seen: set[bytes] = set()
    for trial in range(number):
        changes: list[str] = []
        try:
            program, changes = mutated(rng, valid[int(rng.integers(len(valid)))])
            check_program(program, core.config)
        except InputError as error:
            counts["refused"] += 1
            counts["lines"] += len(str(error).splitlines())
            continue
        counts["passed"] += 1
        content = b"".join(words.tobytes() for _, words in program.sections())
        if content in seen:
            continue
        seen.add(content)
        try:
            same_in_gateware(core, program, rng)
        except Exception as error:
            raise AssertionError(f"seed {seed}, trial {trial}, {changes}: {error}") from error
        counts["ran"] += 1
        layers = (program.descriptor(index)[1] for index in range(1, program.n_descriptors - 1))
        counts["in row mode"] += any(fields.get("row_passes") for fields in layers)
    return counts


def test_what_passes_the_verifier_runs_alike(core: RtlCore) -> None:
    counts = fuzz(core, 1, SHARE)
    print(counts)
    assert counts["ran"] > SHARE // 20
    assert counts["lines"] == counts["refused"] > SHARE // 4
    assert (counts["in row mode"] > 10) == (core.config.taps > 1)


@pytest.mark.slow
def test_what_passes_the_verifier_runs_alike_at_length(core: RtlCore) -> None:
    counts = fuzz(core, 2, ALL)
    print(counts)
    assert counts["ran"] > ALL // 20
