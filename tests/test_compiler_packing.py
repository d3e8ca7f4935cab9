"""Where weight rows lie: maps one after the other, or sharing rows and the strip, each slot for one map."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from mutations import Draft

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.backend.packing import Place, Request, pack_passes
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork, WeightKind
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.compiler.testing import plain_layer, plain_meta, random_codes
from reverb_fpga.compiler.weight_memory import WeightRows
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel

CNV = [
    *(Request(rows, tiles, 2, False) for rows, tiles in ((3, 8), (48, 2), (48, 4), (96, 4))),
    *(Request(rows, tiles, 6, True) for rows, tiles in ((288, 8), (576, 8), (64, 16), (128, 16), (128, 4))),
]
"""The bundled CNV on the ULX3S-85F in row mode: rows of a pass, tiles of 32 channels."""


def used(requests: list[Request], places: list[Place], capacity: int, strip: int) -> np.ndarray:
    """Which map has which slot of which row, after a check that each has one at most; -1: none."""
    owner = np.full((2 * capacity, max(request.slots for request in requests)), -1)
    for number, (request, place) in enumerate(zip(requests, places, strict=True)):
        assert sum(map(len, place.slots)) == request.tiles
        for index, slots in enumerate(place.slots):
            rows = slice(place.base + index * place.stride, place.base + index * place.stride + request.rows)
            assert rows.stop <= capacity or rows.start >= capacity
            assert rows.stop <= 2 * capacity
            assert rows.start < capacity or max(slots) < strip
            columns = list(slots) if request.shares else list(range(owner.shape[1]))
            assert (owner[rows, columns] == -1).all()
            owner[rows, columns] = number
    return owner


def test_maps_that_fit_follow_each_other() -> None:
    places, length = pack_passes(CNV, 4096, 1)
    assert length == 2780
    assert [place.base for place in places] == [0, 12, 60, 156, 348, 924, 2076, 2268, 2652]
    assert [len(place.slots) for place in places] == [4, 1, 2, 2, 2, 2, 3, 3, 1]


def test_passes_drain_as_few_slots_as_they_can() -> None:
    (eight, seven, one), _ = pack_passes([Request(9, tiles, 6, True) for tiles in (8, 7, 1)], 1024)
    assert [len(slots) for slots in eight.slots] == [4, 4]
    assert [len(slots) for slots in seven.slots] == [4, 3]
    assert one.slots == ((0,),)


def test_what_does_not_fit_shares_rows_and_the_strip() -> None:
    places, length = pack_passes(CNV, 2048, 1)
    assert length <= 2048
    owner = used(CNV, places, 2048, 1)
    shared = [len(set(row) - {-1}) > 1 for row in owner[:2048]]
    assert any(shared)
    assert (owner[2048:] != -1).any()


def test_without_a_strip_the_shortest_arrangement_is_told() -> None:
    places, length = pack_passes(CNV, 2048)
    assert 2048 < length < 2780
    used(CNV, places, 2780, 0)


def test_a_deep_network_far_too_large_is_told_in_little_memory() -> None:
    """Choices of widths are looked at one by one: all of 24 maps' together are 4 to the 23."""
    requests = [Request(144, 9, 8, True) for _ in range(24)]
    tracemalloc.start()
    _, length = pack_passes(requests, 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length > 1024
    assert peak < 50e6


@pytest.mark.parametrize("seed", range(12))
def test_random_maps_never_share_a_slot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [
        Request(int(rng.integers(1, 40)), int(rng.integers(1, 20)), 6 if shares else 2, bool(shares))
        for shares in (True, True, True, False, rng.random() < 0.5)
    ]
    natural = pack_passes(requests, 1 << 16)[1]
    for capacity in (int(natural * part) for part in (0.95, 0.9, 0.8, 0.6)):
        places, length = pack_passes(requests, capacity, 1)
        if length <= capacity:
            assert (used(requests, places, capacity, 1) != -1).any()


def compiled(rows: int) -> tuple[IntNetwork, Program]:
    """Three layers of a classifier, in gather mode, on a configuration of so many rows and a strip."""
    rng = np.random.default_rng(8)
    one = plain_layer(
        "one", INPUT, rng.integers(-8, 8, (12, 3, 3, 3)), kind=WeightKind.MULTIBIT, bits=4, gain=np.full(12, 40),
        r_shift=2, threshold=np.full(12, 900),
    )  # fmt: skip
    two = plain_layer(
        "two", "one", rng.choice([-1, 1], (32, 12, 3, 3)), r_shift=4, gain=np.full(32, 90), threshold=np.full(32, 300)
    )
    last = plain_layer(
        "fc", "two", rng.integers(-8, 8, (5, 32, 2, 2)), kind=WeightKind.MULTIBIT, bits=4, spiking=False, tau_q=256,
    )  # fmt: skip
    drawn = IntNetwork(IntInput(3, 6, 6, np.zeros(3, dtype=np.uint8)), (one, two, last), 1, static_input=True)
    config = dataclasses.replace(preset("tiny-row"), weight_rows=rows)
    return drawn, lower(drawn, config, plain_meta(drawn), Hints(row_mode=False))


def check(drawn: IntNetwork, program: Program, rows: int) -> None:
    """The golden model and the verifier read the weights that the network has."""
    config = dataclasses.replace(preset("tiny-row"), weight_rows=rows)
    codes = random_codes(np.random.default_rng(2), drawn, 4)
    wanted = reference.evaluate(drawn, codes)
    check_program(program, config)
    stored, logits = GoldenModel(program, config).run_layers(codes)
    np.testing.assert_array_equal(logits, wanted.logits)
    for got, want in zip(stored, wanted.codes, strict=True):
        np.testing.assert_array_equal(got, want)
    assert wanted.codes[1].any()


def fields_of(program: Program) -> list[dict[str, int]]:
    return [program.descriptor(index)[1] for index in range(1, program.n_descriptors - 1)]


def test_programs_that_share_rows_compute_the_network() -> None:
    drawn, alone = compiled(512)
    words = 2 * preset("tiny-row").weight_words
    assert 256 < len(alone.weight) // words <= 512
    drawn, program = compiled(256)
    assert len(program.weight) // words <= 256
    passes = sum(f["n_passes"] * f["n_tap_y"] * f["n_tap_x"] * f["src_slots"] for f in fields_of(program))
    assert passes > len(program.weight) // words
    check(drawn, program, 256)


def moved() -> tuple[IntNetwork, Draft]:
    """The classifier's weights in the strip of 512 rows, which has all lanes there are."""
    drawn, program = compiled(512)
    draft = Draft.of(program)
    last = draft.layers[-1]
    weight = draft.sections["weight"].reshape(-1, 2, 2)
    rows = weight[last["w_base"] :].copy()
    weight[: len(rows), :, 1] = rows[:, :, 0]
    weight[last["w_base"] :, :, 0] = 0
    last["w_base"] = 512
    return drawn, draft


def test_a_layer_in_the_strip() -> None:
    drawn, draft = moved()
    check(drawn, draft.sealed(), 512)


@pytest.mark.parametrize(("base", "message"), [(512 + 200, "do not exist"), (500, "do not exist")])
def test_a_pass_has_all_its_rows(base: int, message: str) -> None:
    """Neither beyond the strip, nor across its beginning."""
    _, draft = moved()
    draft.layers[-1]["w_base"] = base
    config = dataclasses.replace(preset("tiny-row"), weight_rows=512)
    for read in (lambda program: check_program(program, config), lambda program: GoldenModel(program, config)):
        with pytest.raises(InputError, match=message):
            read(draft.sealed())


def test_the_strip_has_some_slots_only() -> None:
    config = preset("ulx3s-85f-row")
    rows = WeightRows(np.zeros(8 * config.banks * config.weight_words, dtype=np.uint32), config)
    rows.check(2048, 8, [0], False, "here")
    rows.check(0, 8, [5], False, "here")
    with pytest.raises(InputError, match="here: slot 1 in"):
        rows.check(2048, 8, [0, 1], False, "here")
    with pytest.raises(InputError, match="here: row mode in"):
        rows.check(2048, 8, [0], True, "here")
