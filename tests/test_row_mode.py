"""Row mode in the compiler, the verifier and the golden model; on the gateware: ``test_random_programs.py``."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from mutations import Draft

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.geometry import Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork, WeightKind
from reverb_fpga.compiler.passes.invariance import Invariance
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.compiler.report import make_report
from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.compiler.testing import plain_layer, plain_meta, random_codes
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.golden.weights import WeightStore

ROWS, TINY = preset("tiny-row"), preset("tiny")


def network(steps: int = 2, channels: int = 12, pool: int = 1, stride: int = 1, static: bool = False) -> IntNetwork:
    """3 channels with a pad record, 6 x 6; padded convolutions in 4 bits and in binary weights, a classifier."""
    rng = np.random.default_rng(3)
    pools = Pool((pool, pool), (pool, pool))
    one = plain_layer(
        "one", INPUT, rng.integers(-8, 8, (channels, 3, 3, 3)), kind=WeightKind.MULTIBIT, bits=4, timesteps=steps,
        geometry=Geometry(padding=(1, 1)), gain=np.full(channels, 40), r_shift=2, threshold=np.full(channels, 900),
    )  # fmt: skip
    two = plain_layer(
        "two", "one", rng.choice([-1, 1], (9, channels, 3, 3)), timesteps=steps, r_shift=4, gain=np.full(9, 90),
        geometry=Geometry((stride, stride), (1, 1), out_pool=pools), threshold=np.full(9, 700),
    )  # fmt: skip
    side = ((6 + 2 - 3) // stride + 1) // pool
    last = plain_layer("fc", "two", rng.choice([-1, 1], (4, 9, side, side)), spiking=False, tau_q=256, timesteps=steps)
    source = IntInput(3, 6, 6, np.array([7, 0, 9], dtype=np.uint8))
    return IntNetwork(source, (one, two, last), steps, static_input=static or steps == 1)


def layers_of(program: Program) -> list[dict[str, int]]:
    return [program.descriptor(index)[1] for index in range(1, program.n_descriptors - 1)]


def compiled(config: Config = ROWS, row_mode: bool | None = True, **changes: Any) -> Program:
    drawn = network(**changes)
    return lower(drawn, config, plain_meta(drawn), Hints(row_mode=row_mode))


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize(("steps", "static"), [(1, True), (2, False), (3, True)])
def test_both_modes_compute_the_network(pool: int, steps: int, static: bool) -> None:
    drawn = network(steps=steps, pool=pool, static=static)
    codes = random_codes(np.random.default_rng(steps), drawn, 4)
    wanted = reference.evaluate(drawn, codes)
    assert all(layer.any() and not layer.all() for layer in wanted.codes[:2])
    for row_mode in (True, False):
        program = lower(drawn, ROWS, plain_meta(drawn), Hints(row_mode=row_mode))
        modes = {fields["row_passes"] > 0 for fields in layers_of(program)[:-1]}
        assert modes == {row_mode}
        layers, logits = GoldenModel(program, ROWS).run_layers(codes)
        for found, expected in zip(layers, wanted.codes, strict=False):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(logits, wanted.logits)


@pytest.mark.parametrize("pool", [1, 2])
def test_weights_mean_the_same_in_both_modes(pool: int) -> None:
    """The matrix that is brought back from rows of three taps is that of rows of one."""
    matrices = []
    for row_mode in (True, False):
        program = compiled(row_mode=row_mode, pool=pool)
        store = WeightStore(program, ROWS)
        matrices.append([store.layer(fields, "here").matrix for fields in layers_of(program)])
    for rows, gathers in zip(*matrices, strict=True):
        np.testing.assert_array_equal(rows, gathers)


def test_row_mode_needs_a_configuration_that_has_it() -> None:
    assert not any(fields["row_passes"] for fields in layers_of(compiled(TINY)))
    draft = Draft.of(compiled(TINY))
    draft.layers[0].update(row_passes=draft.layers[0]["n_passes"])
    with pytest.raises(InputError, match="is in row mode, which tiny does not have"):
        check_program(draft.sealed(), TINY)
    with pytest.raises(InputError, match="is in row mode, which tiny does not have"):
        GoldenModel(draft.sealed(), TINY)


def test_the_compiler_takes_the_cheaper_mode() -> None:
    """Two groups in four planes: two passes of nine taps in gather mode, four of three in row mode."""

    def modes(**changes: Any) -> dict[int, bool]:
        return {fields["layer"]: fields["row_passes"] > 0 for fields in layers_of(compiled(**changes))}

    assert modes(row_mode=None, channels=8) == {0: True, 1: True, 2: False}
    assert modes(row_mode=None, channels=4) == {0: True, 1: True, 2: False}
    assert modes(stride=2) == {0: True, 1: False, 2: True}  # the classifier is three wide
    assert modes(pool=3, config=dataclasses.replace(ROWS, table_entries=128)) == {0: True, 1: False, 2: False}


@pytest.mark.parametrize("config", [TINY, ROWS], ids=lambda config: config.name)
@pytest.mark.parametrize("pool", [1, 2])
def test_the_report_is_of_the_mode_that_was_taken(config: Config, pool: int) -> None:
    drawn = network(pool=pool)
    program = lower(drawn, config, plain_meta(drawn))
    report = make_report(program, drawn, config, Invariance((), 2, 2), {}, ())
    legs = [leg for layer in report.layers for leg in layer.maps]
    by_layer = {fields["layer"]: fields for fields in layers_of(program)}
    assert [leg.passes for leg in legs] == [by_layer[index]["n_passes"] for index in range(3)]
    assert [leg.row_mode for leg in legs] == [by_layer[index]["row_passes"] > 0 for index in range(3)]
    assert sum(leg.rows for leg in legs) == next(use.used for use in report.uses if use.resource.startswith("weight"))


CASES = [
    ({"n_passes": 9}, "but n_passes = 9 is not row_passes"),
    ({"row_passes": 8, "n_passes": 8}, "but 2 steps of 8 passes need more than 15 cells"),
    ({"x_step": 2, "src_col_step": 4}, "but its columns do not follow each other"),
    ({"x_tap": 2, "src_col_tap": 4}, "but its kernel is not 3 neighbouring columns wide"),
    ({"n_tap_x": 2}, "but its kernel is not 3 neighbouring columns wide"),
    ({"n_pool_x": 3, "x_step": 3, "src_col_step": 6}, "but pools 3 columns, at most 2"),
]


@pytest.mark.parametrize(("changes", "message"), CASES)
def test_what_row_mode_cannot_compute_is_refused(changes: dict[str, int], message: str) -> None:
    draft = Draft.of(compiled())
    second = next(fields for fields in draft.layers if fields["layer"] == 1)
    assert second["row_passes"]
    second |= changes
    for check in (lambda program: check_program(program, ROWS), lambda program: GoldenModel(program, ROWS)):
        with pytest.raises(InputError, match=f"is in row mode, {message}"):
            check(draft.sealed())


def test_columns_of_a_pooling_window_have_one_slot_program() -> None:
    """z of a window is the sum of its columns, whatever the matrix says: they must add alike."""
    draft = Draft.of(compiled(pool=2))
    second = next(fields for fields in draft.layers if fields["layer"] == 1)
    assert second["n_passes"] == 2 * second["row_passes"]
    last = second["slot_base"] + second["row_passes"] * slots_of(second, ROWS)
    draft.sections["slot"][last] ^= 1 << 10  # its shift
    for check in (lambda program: check_program(program, ROWS), lambda program: GoldenModel(program, ROWS)):
        with pytest.raises(InputError, match="is not that of every column of a pooling window"):
            check(draft.sealed())


def test_more_columns_than_the_walker_counts_are_gathered() -> None:
    source = IntInput(1, 1, 1023, np.zeros(1, dtype=np.uint8))
    weight = np.ones((1, 1, 1, 3), dtype=np.int64)
    one = plain_layer("one", INPUT, weight, geometry=Geometry((1, 1), (0, 1)))
    two = plain_layer("two", "one", np.ones((1, 1, 1, 1), dtype=np.int64), geometry=Geometry((1, 63)))
    three = plain_layer("fc", "two", np.ones((1, 1, 1, 17), dtype=np.int64), spiking=False, tau_q=256)
    config = dataclasses.replace(ROWS, count_words=4096)
    for width, rows in ((1023, False), (1021, True)):
        drawn = IntNetwork(dataclasses.replace(source, width=width), (one, two, three), 1, static_input=True)
        program = lower(drawn, config, plain_meta(drawn), Hints(row_mode=True))
        assert (layers_of(program)[0]["row_passes"] > 0) == rows
