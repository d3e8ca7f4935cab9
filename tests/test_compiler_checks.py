"""What does not fit, cannot be proven, or was tampered with is refused by name and number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.backend.geometry import walks_of
from reverb_fpga.compiler.geometry import Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntNetwork, WeightKind
from reverb_fpga.compiler.program import Program, sections_crc32
from reverb_fpga.compiler.program_checks import check_program
from reverb_fpga.compiler.testing import RandomOptions, plain_layer, plain_meta, random_codes, random_network
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import CRC_WORD, DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, field_range, pack
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel

TINY = preset("tiny")


def _layer(name: str, source: str, c_in: int, c_out: int, kernel: int = 3, **changes: object) -> IntLayer:
    return plain_layer(name, source, np.ones((c_out, c_in, kernel, kernel), dtype=np.int64), **changes)


def _network(*hidden: IntLayer, side: int = 8, channels: int = 2, timesteps: int = 1) -> IntNetwork:
    """Hidden layers, then a classifier that covers what is left."""
    source = IntInput(channels, side, side, np.zeros(channels, dtype=np.uint8))
    for layer in hidden:
        side = layer.maps[-1].geometry.sides(side, layer.maps[-1].kernel[0], 0)[2]
    last = _layer("fc", hidden[-1].name, hidden[-1].channels, 3, side, spiking=False, tau_q=256)
    layers = tuple(dataclasses.replace(layer, timesteps=timesteps) for layer in (*hidden, last))
    return IntNetwork(source, layers, timesteps, static_input=True)


def _compile(network: IntNetwork, config: Config = TINY) -> Program:
    return lower(network, config, plain_meta(network))


LIMITS = [
    ({"weight_rows": 8}, "layer conv1 .*needs 9 weight rows per bank, there are 8"),
    ({"param_groups": 1}, "layer fc .*needs 2 groups of neuron parameters, there are 1"),
    ({"descriptors": 3}, "needs 4 descriptors, there are 3"),
    ({"act_words": 70}, "layer conv1 needs 96 activation words per bank, there are 70"),
    ({"count_words": 50}, "layer conv1 needs 60 count words, there are 50"),
    ({"table_entries": 8}, "layer conv1 needs 9 table entries"),
    ({"table_entries": 32}, "layer fc needs 36 table entries"),
]


@pytest.mark.parametrize(("limits", "message"), LIMITS)
def test_what_is_too_large_is_named_with_its_numbers(limits: dict[str, int], message: str) -> None:
    network = _network(_layer("conv1", INPUT, 2, 4))
    _compile(network)
    with pytest.raises(InputError, match="network too large for tiny: .*" + message):
        _compile(network, dataclasses.replace(TINY, **limits))


def test_slot_entries_are_limited() -> None:
    with pytest.raises(InputError, match=r"layer conv1 .*needs 2 slot entries, there are 1"):
        _compile(_network(_layer("conv1", INPUT, 2, 8)), dataclasses.replace(TINY, slot_entries=1))


def test_channels_and_time_steps_are_limited() -> None:
    with pytest.raises(InputError, match="layer conv1 needs 200 channels, there are 128"):
        _compile(_network(_layer("conv1", INPUT, 2, 200)))
    with pytest.raises(InputError, match="needs 9 time steps, there are 8"):
        _compile(_network(_layer("conv1", INPUT, 2, 4), timesteps=9))


MALFORMED = [
    ({"gain": np.full(4, 1 << 16)}, r"layer conv1: gain 65536 is not in 0\.\.65535"),
    ({"gain": np.full(4, -1)}, r"layer conv1: gain -1"),
    ({"bias": np.full(4, 1 << 23)}, r"layer conv1: bias 8388608"),
    ({"threshold": np.full(4, -(1 << 23) - 1)}, r"layer conv1: threshold -8388609"),
    ({"weight": np.zeros((4, 2, 3, 3), dtype=np.int64)}, r"a binary weight is neither"),
    ({"kind": WeightKind.MULTIBIT, "bits": 2, "weight": np.full((4, 2, 3, 3), 2)}, r"a weight does not fit 2 bits"),
    ({"kind": WeightKind.MULTIBIT, "bits": 1}, r"1 weight bits"),
    ({"r_shift": 64}, r"shift 64"),
    ({"tau_q": 257}, r"tau_q 257"),
    ({"code_max": 0}, r"code_max 0"),
    ({"spiking": False}, r"only the last layer may be without firing"),
    ({"weight": np.ones((4, 3, 3, 3), dtype=np.int64)}, r"weights expect 3 channels, its input has 2"),
    (
        {"geometry": Geometry((2, 2), (2, 2), (1, 1), Pool((2, 2), (2, 2)), Pool((2, 2), (2, 2)))},
        r"pooling before and after a convolution is only supported with stride 1",
    ),
    (
        {"geometry": Geometry(padding=(1, 1), in_pool=Pool((3, 3), (2, 2)))},
        r"overlapping pooling windows \(3 wide, stride 2\) in front of a padded convolution",
    ),
    (
        {"geometry": Geometry(out_pool=Pool((2, 2), (2, 2), (1, 1)))},
        r"pooling of its current with padding was not split",
    ),
    ({"source": "fc"}, r"reads 'fc', which is neither the input nor an earlier layer"),
    ({"timesteps": 2}, r"has 2 time steps"),
]


@pytest.mark.parametrize(("changes", "message"), MALFORMED)
def test_malformed_networks_are_refused(changes: dict[str, object], message: str) -> None:
    network = _network(_layer("conv1", INPUT, 2, 4))
    weight = changes.get("weight", network.layers[0].maps[0].weight)
    bad = plain_layer("conv1", **({"source": INPUT, "weight": weight} | changes))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        _compile(dataclasses.replace(network, layers=(bad, network.layers[1])))


def test_accumulators_are_proven() -> None:
    narrow = dataclasses.replace(TINY, acc_width=12)
    with pytest.raises(InputError, match="layer conv1: the sum S may reach 4590, which 12 bits do not hold"):
        _compile(_network(_layer("conv1", INPUT, 2, 4)), narrow)
    narrow = dataclasses.replace(TINY, z_width=13)
    with pytest.raises(InputError, match=r"layer conv1: P << shift may reach 9180, which 13 bits do not hold"):
        _compile(_network(_layer("conv1", INPUT, 2, 4)), narrow)
    weight = np.full((4, 2, 3, 3), -8)
    heavy = plain_layer("conv1", INPUT, weight, kind=WeightKind.MULTIBIT, bits=4)
    narrow = dataclasses.replace(TINY, z_width=16)
    with pytest.raises(InputError, match=r"layer conv1: P << shift may reach 36720"):
        _compile(_network(heavy), narrow)


def _sealed(program: Program, desc: np.ndarray) -> Program:
    """The program with another schedule and a checksum that matches it."""
    changed = dataclasses.replace(program, desc=desc)
    desc[CRC_WORD] = sections_crc32(changed.sections())
    return changed


def test_tampered_schedules_are_refused_or_harmless() -> None:
    """One field of one descriptor changed at random, checksum mended: an InputError, or a program that runs."""
    rng = np.random.default_rng(3)
    refused = 0
    for trial in range(150):
        network = random_network(rng, RandomOptions(max_side=6, max_channels=6, max_layers=2, max_timesteps=2))
        if max(walk.window for walks in walks_of(network) for walk in walks) > TINY.table_entries:
            continue
        program = lower(network, TINY, plain_meta(network), Hints(ring_rows=1))
        index = int(rng.integers(0, program.n_descriptors - 1))
        opcode, values = program.descriptor(index)
        names = [field for field in DESCRIPTOR_FIELDS[opcode] if field.name not in ("opcode", "gap", "crc32")]
        field = names[int(rng.integers(0, len(names)))]
        low, high = field_range(field)
        values[field.name] = int(np.clip(values[field.name] + rng.integers(-2, 3), low, high))
        if trial % 2:
            values[field.name] = int(rng.integers(low, high + 1))
        desc = program.desc.copy()
        words = pack(DESCRIPTOR_FIELDS[opcode], values, DESCRIPTOR_WORDS)
        desc[index * DESCRIPTOR_WORDS : (index + 1) * DESCRIPTOR_WORDS] = words
        try:
            changed = _sealed(program, desc)
            check_program(changed, TINY)
            GoldenModel(changed, TINY).run(random_codes(rng, network, 1))
        except InputError:
            refused += 1
    assert refused > 60


def test_a_ring_that_is_too_small_is_found() -> None:
    """The verifier proves what a strip reads by itself: shrink a ring behind the scheduler's back."""
    network = _network(_layer("conv1", INPUT, 2, 4, geometry=Geometry(padding=(1, 1))), _layer("conv2", "conv1", 4, 4))
    program = lower(network, TINY, plain_meta(network), Hints(ring_rows=4))
    desc = program.desc.copy()
    for index in range(1, program.n_descriptors - 1):
        opcode, values = program.descriptor(index)
        ring = 2 * 8  # rows times records of a row; three rows are read
        for name in ("src_ring",) if values["layer"] == 1 else ("dst_ring",) if values["layer"] == 0 else ():
            values[name] = ring
        for name in ("src_row0", "src_row_step", "src_row_pool", "src_row_tap"):
            values[name] %= values["src_ring"]
        values["dst_row0"] %= values["dst_ring"]
        start = index * DESCRIPTOR_WORDS
        desc[start : start + DESCRIPTOR_WORDS] = pack(DESCRIPTOR_FIELDS[opcode], values, DESCRIPTOR_WORDS)
    with pytest.raises(InputError, match=r"row .* of its source is not where output row|more rows than its ring"):
        check_program(_sealed(program, desc), TINY)
