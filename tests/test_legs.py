"""Shortcuts: legs of a layer that meet in the skip memory, on golden model, gateware and cycle model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from legs import sealed, split, with_bias_through_skip
from strategies import compiled, examples, specs
from test_random_programs import compare_cycles

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.random_networks import NetworkSpec, Profile, build
from reverb_fpga.compiler.row_mode import slots_of
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, Gate, Opcode
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore

TINY = preset("tiny")
PROFILES = (Profile.ANY, Profile.DYNAMIC, Profile.TILED, Profile.MULTIBIT, Profile.EVERYTHING)


def layers_of(program: Program) -> list[dict[str, int]]:
    found = (program.descriptor(index) for index in range(1, program.n_descriptors - 1))
    return [fields for opcode, fields in found if opcode is Opcode.LAYER]


def altered(program: Program, index: int, **fields: int) -> Program:
    """One descriptor changed, the checksum mended."""
    desc = program.desc.copy()
    words = contract.pack(DESCRIPTOR_FIELDS[Opcode.LAYER], program.descriptor(index)[1] | fields, DESCRIPTOR_WORDS)
    desc[index * DESCRIPTOR_WORDS : (index + 1) * DESCRIPTOR_WORDS] = words
    return sealed(dataclasses.replace(program, desc=desc))


@pytest.fixture(scope="module")
def core() -> Iterator[RtlCore]:
    with RtlCore(TINY) as running:
        yield running


@dataclasses.dataclass
class Coverage:
    """Programs, and in how many of them each thing occurred."""

    programs: int = 0
    hits: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, program: Program) -> None:
        self.programs += 1
        fields = layers_of(program)
        legs = [one for one in fields if one["store_skip"] or one["add_skip"]]
        found = {
            "legs": bool(legs),
            "add and store": any(one["store_skip"] and one["add_skip"] for one in legs),
            "T > 1": any(one["timesteps"] > 1 for one in legs),
            "static input": any(one["static_input"] and one["timesteps"] > 1 for one in legs),
            "several passes": any(one["n_passes"] > 1 for one in legs),
            "several groups": any(one["skip_groups"] > 1 for one in legs),
            "several rows": any(one["rows"] > 1 for one in legs),
            "gates": any(one["gate"] for one in legs),
            "gates of several steps": any(one["gate"] == Gate.SIGMOID and one["timesteps"] > 1 for one in legs),
            "gates of several groups": any(one["gate"] == Gate.SIGMOID and one["skip_groups"] > 1 for one in legs),
            "sums over a single short pass": any(
                one["gate"] == Gate.SUM and one["timesteps"] * one["n_passes"] * slots_of(one, TINY) < 12
                for one in legs
            ),
            "most steps": any(one["timesteps"] == TINY.max_timesteps for one in legs),
            "the output layer": any(one["add_skip"] and not one["store_skip"] and not one["spiking"] for one in legs),
            "unlike passes": any(
                one["store_skip"] and one["n_passes"] != after["n_passes"] for one, after in itertools.pairwise(fields)
            ),
        }
        for name, hit in found.items():
            self.hits[name] = self.hits.get(name, 0) + hit


def check_on_gateware(spec: NetworkSpec, core: RtlCore, coverage: Coverage) -> None:
    case = build(spec)
    program = split(compiled(case, TINY), TINY, np.random.default_rng(spec.seed), gates=spec.seed % 2 == 0)
    model = GoldenModel(program, TINY)
    expected = model.run(case.codes)
    core.load(program)
    for image, logits in zip(model.input_bytes(case.codes), expected, strict=True):
        np.testing.assert_array_equal(core.infer(image), logits)
    compare_cycles(core, CycleModel(program, TINY).strips(case.codes[-1:])[0])
    coverage.add(program)


def sweep(core: RtlCore, number: int) -> Coverage:
    coverage = Coverage()
    for profile in PROFILES:

        @examples(number)
        @given(specs(profile, max_steps=TINY.max_timesteps))
        def check(spec: NetworkSpec) -> None:
            check_on_gateware(spec, core, coverage)

        check()
    return coverage


def test_some_programs_on_the_gateware(core: RtlCore) -> None:
    coverage = sweep(core, 5)
    assert coverage.programs >= 20
    assert coverage.hits["legs"] >= 15
    assert coverage.hits["add and store"] >= 5
    assert coverage.hits["gates"] >= 5


@pytest.mark.slow
def test_200_programs_on_the_gateware(core: RtlCore) -> None:
    coverage = sweep(core, 50)
    print(coverage)
    assert coverage.programs >= 200
    assert min(coverage.hits.values()) >= 10, coverage.hits


@examples(60)
@given(specs(Profile.ANY, max_steps=TINY.max_timesteps))
def test_a_bias_through_the_skip_memory_changes_nothing(spec: NetworkSpec) -> None:
    """``q + (b - k) + k``: the three are added exactly before anything saturates."""
    case = build(spec)
    program = with_bias_through_skip(compiled(case, TINY), TINY, np.random.default_rng(spec.seed))
    assert any(fields["store_skip"] for fields in layers_of(program)) or program.n_descriptors > TINY.descriptors // 2
    expected = reference.evaluate(case.network, case.codes)
    layers, logits = GoldenModel(program, TINY).run_layers(case.codes)
    for info, codes, found in zip(program.layers, expected.codes, layers, strict=True):
        np.testing.assert_array_equal(found, codes, err_msg=info.name)
    np.testing.assert_array_equal(logits, expected.logits)


def _two_legs() -> Program:
    """A program whose first strip has two legs."""
    rng = np.random.default_rng(4)
    for seed in range(100):
        spec = dataclasses.replace(_SPEC, seed=seed)
        program = split(compiled(build(spec), TINY), TINY, rng)
        if layers_of(program)[0]["store_skip"] and not layers_of(program)[1]["store_skip"]:
            return program
    raise AssertionError("none found")


def _spec() -> NetworkSpec:
    found: list[NetworkSpec] = []

    @examples(1)
    @given(specs(Profile.TILED))
    def first(spec: NetworkSpec) -> None:
        found.append(spec)

    first()
    return dataclasses.replace(found[0], input_rows=None, spare_rows=None)


_SPEC = _spec()

FAULTS: dict[str, tuple[Callable[[Program], Program], str]] = {
    "nothing adds it": (lambda p: altered(p, 2, add_skip=0, skip_groups=0), "does not add what the leg before it"),
    "nothing stored it": (lambda p: altered(p, 1, add_skip=1), "adds what no leg has stored"),
    "other columns": (lambda p: altered(p, 1, cols=layers_of(p)[0]["cols"] - 1), "cols is"),
    "a leg that fires": (lambda p: altered(p, 1, spiking=1), "fires"),
    "other groups": (lambda p: altered(p, 1, skip_groups=1), "skip_groups = 1, its slot program has"),
    "groups of nothing": (lambda p: altered(p, 2, add_skip=0), "skip_groups = . without"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_golden_model_refuses_legs_that_do_not_meet(fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(InputError, match=message):
        GoldenModel(change(_two_legs()), TINY)


def test_golden_model_refuses_more_than_the_skip_memory_holds() -> None:
    program = _two_legs()
    small = dataclasses.replace(TINY, skip_words=1)
    _, head = program.descriptor(0)
    head |= {"config_low": small.digest & 0xFFFFFFFF, "config_high": small.digest >> 32}
    desc = program.desc.copy()
    desc[:DESCRIPTOR_WORDS] = contract.pack(DESCRIPTOR_FIELDS[Opcode.PROGRAM], head, DESCRIPTOR_WORDS)
    moved = sealed(dataclasses.replace(program, desc=desc, config_digest=small.digest))
    with pytest.raises(InputError, match="words of skip memory and its gates, there are 1"):
        GoldenModel(moved, small)
