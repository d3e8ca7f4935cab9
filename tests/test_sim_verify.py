"""The verifier against a target that is right, and against targets with one thing wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from targets import ModelTarget

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import plain_layer, plain_meta
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.verify import Verifier

TINY = preset("tiny")


def _case() -> tuple[Program, NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    weight = rng.choice([-1, 1], (6, 2, 3, 3))
    full = np.full(6, 3000)
    layers = (
        plain_layer(
            "conv", INPUT, weight, geometry=Geometry(padding=(1, 1)), gain=full, r_shift=5, bias=full, timesteps=2
        ),
        plain_layer(
            "linear", "conv", rng.choice([-1, 1], (3, 6, 4, 4)), gain=np.full(3, 7), bias=np.full(3, -9), tau_q=256,
            spiking=False, timesteps=2,
        ),
    )  # fmt: skip
    network = IntNetwork(IntInput(2, 4, 4, np.array([3, 0], dtype=np.uint8)), layers, 2, False)
    program = lower(network, TINY, plain_meta(network), Hints(max_strip_rows=2))
    return program, rng.integers(0, 256, (2, 2, 4, 4, 2), dtype=np.uint8)


def test_equal() -> None:
    program, codes = _case()
    result = Verifier(program, TINY, ModelTarget(TINY)).run(codes)
    assert result.difference is None
    assert (result.images, result.descriptors, result.logits) == (2, 2 * (program.n_descriptors - 2), 6)
    layers, _ = GoldenModel(program, TINY).run_layers(codes)
    assert result.events == sum(np.count_nonzero(layer) for layer in layers)


def test_progress_tells_every_descriptor() -> None:
    program, codes = _case()
    told: list[tuple[int, int]] = []
    Verifier(program, TINY, ModelTarget(TINY)).run(codes, lambda image, index: told.append((image, index)))
    assert told == [(image, index) for image in range(2) for index in range(1, program.n_descriptors - 1)]


def test_wrong_value_is_located() -> None:
    """Row 3, column 2, step 1 of conv, channel 4: the value of one event is one too small."""
    program, codes = _case()
    layers, _ = GoldenModel(program, TINY).run_layers(codes)
    expected = int(layers[0][0, 1, 3, 2, 4])
    assert expected > 0
    descriptor = program.layers[0].strips[1][0]
    fields = program.descriptor(descriptor)[1]
    record = (fields["dst_row0"] + fields["dst_row_stride"] + 2 * 2 + 1) % fields["dst_ring"]
    before = np.count_nonzero(layers[0][0, 1, 3, 2, :4:2])
    wrong = ((fields["dst_act_base"] + record * fields["dst_slots"]) + before) * TINY.banks

    def spoil(region: Region, offset: int, word: int) -> int:
        return word - 1 if region is Region.ACT and offset == wrong else word

    found = Verifier(program, TINY, ModelTarget(TINY, spoil)).run(codes).difference
    assert found is not None
    assert (found.image, found.layer, found.descriptor) == (0, "conv", descriptor)
    assert found.place == "row 3, column 2, step 1, channel 4"
    assert (int(found.expected), int(found.got)) == (expected, expected - 1)


def test_wrong_count_and_wrong_logit() -> None:
    program, codes = _case()

    def fewer(region: Region, _offset: int, word: int) -> int:
        return max(0, word - 1) if region is Region.COUNT else word

    found = Verifier(program, TINY, ModelTarget(TINY, fewer)).run(codes).difference
    assert found is not None
    assert found.got == "0"

    def other(region: Region, offset: int, word: int) -> int:
        return word ^ 1 if region is Region.MEMBRANE and offset == 2 else word

    found = Verifier(program, TINY, ModelTarget(TINY, other)).run(codes).difference
    assert found is not None
    assert found.place == "logit 2"
    assert "\n" not in str(found)
