"""The golden model against direct evaluation, and its refusal of damaged and senseless programs."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from strategies import compiled, specs

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import Hints
from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntNetwork
from reverb_fpga.compiler.program import Program, sections_crc32
from reverb_fpga.compiler.random_networks import Case, Images, Neurons, Profile, build
from reverb_fpga.compiler.testing import plain_layer
from reverb_fpga.hw import contract
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import DESCRIPTOR_WORDS, Opcode
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.golden.model import load_kernels
from reverb_fpga.sim.golden.neuron import NeuronUpdate
from reverb_fpga.sim.golden.workspace import Calls, Workspace

TINY = preset("tiny")
DETERMINISTIC = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(autouse=True, params=["numpy", "compiled"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType | None:
    """Every test here runs on numpy alone, and with compiled kernels from the first image on."""
    if request.param == "numpy":
        monkeypatch.setattr("reverb_fpga.sim.golden.model._WORTH", 1 << 62)
        return None
    pytest.importorskip("numba")
    monkeypatch.setattr("reverb_fpga.sim.golden.model._WORTH", 0)
    return load_kernels()


def require_equal(case: Case, program: Program) -> None:
    expected = reference.evaluate(case.network, case.codes)
    layers, logits = GoldenModel(program, TINY).run_layers(case.codes)
    for info, codes, found in zip(program.layers, expected.codes, layers, strict=True):
        np.testing.assert_array_equal(found, codes, err_msg=info.name)
    np.testing.assert_array_equal(logits, expected.logits)


@pytest.mark.parametrize("profile", Profile)
def test_random_programs_equal_reference(profile: Profile) -> None:
    @DETERMINISTIC
    @given(specs(profile))
    def check(spec) -> None:  # type: ignore[no-untyped-def]
        case = build(spec)
        require_equal(case, compiled(case, TINY))

    check()


@pytest.mark.parametrize("images", [Images.ZERO, Images.FULL])
@pytest.mark.parametrize("neurons", Neurons)
def test_extremes_equal_reference(images: Images, neurons: Neurons) -> None:
    @settings(DETERMINISTIC, max_examples=5)
    @given(specs())
    def check(spec) -> None:  # type: ignore[no-untyped-def]
        layers = tuple(dataclasses.replace(layer, neurons=neurons, extreme_weights=True) for layer in spec.layers)
        case = build(dataclasses.replace(spec, images=images, layers=layers))
        require_equal(case, compiled(case, TINY))

    check()


def _small() -> Case:
    """Two channels, 4 x 4, T = 2, one convolution and a linear layer, in strips of one row with rings of three."""
    rng = np.random.default_rng(5)

    def layer(name: str, source: str, shape: tuple[int, ...], padding: int, spiking: bool) -> IntLayer:
        channels = shape[0]
        return plain_layer(
            name, source, rng.choice([-1, 1], shape), geometry=Geometry(padding=(padding, padding)),
            gain=np.full(channels, 300), r_shift=3, bias=np.full(channels, 5000), threshold=np.full(channels, 500),
            tau_q=64 if spiking else 256, spiking=spiking, timesteps=2,
        )  # fmt: skip

    source = IntInput(2, 4, 4, np.array([7, 0], dtype=np.uint8))
    layers = (layer("conv", INPUT, (6, 2, 3, 3), 1, True), layer("linear", "conv", (3, 6, 4, 4), 0, False))
    network = IntNetwork(source, layers, 2, False)
    codes = rng.integers(0, 256, (3, 2, 4, 4, 2), dtype=np.uint8)
    return Case(network, Hints(max_strip_rows=1), codes)


def changed(program: Program, index: int, values: Mapping[str, int]) -> Program:
    """The program with fields of one descriptor replaced and its hash mended."""
    opcode, fields = program.descriptor(index)
    words = contract.pack(contract.DESCRIPTOR_FIELDS[opcode], {**fields, **values}, DESCRIPTOR_WORDS)
    desc = program.desc.copy()
    desc[index * DESCRIPTOR_WORDS : (index + 1) * DESCRIPTOR_WORDS] = words
    mended = dataclasses.replace(program, desc=desc)
    if "crc32" in values:
        return mended
    return changed(mended, 0, {"crc32": sections_crc32(mended.sections())})


def test_memory_image_holds_what_layers_hold() -> None:
    case = _small()
    program = compiled(case, TINY)
    model = GoldenModel(program, TINY)
    layers, _ = model.run_layers(case.codes)
    descriptor = program.layers[0].strips[-1][0]
    image = model.memory_image(case.codes, descriptor)
    _, fields = program.descriptor(descriptor)
    for t in range(2):
        record = fields["dst_row0"] + t  # last row, x = 0
        counts = image.counts[:, fields["dst_cnt_base"] + record]
        assert image.counts_valid[fields["dst_cnt_base"] + record]
        words = image.events[:, fields["dst_act_base"] + record * fields["dst_slots"] :][:, : fields["dst_slots"]]
        for n in range(len(case.codes)):
            found = np.zeros(fields["dst_slots"] * TINY.banks, dtype=np.int64)
            for bank in range(TINY.banks):
                events = words[n, : counts[n, bank], bank]
                assert list(events >> 8) == sorted(set(events >> 8))
                found[(events >> 8) * TINY.banks + bank] = events & 0xFF
            np.testing.assert_array_equal(found[:6], layers[0][n, t, 3, 0])


def test_statistics_count_the_events_of_every_position() -> None:
    case = _small()
    program = compiled(case, TINY)
    model = GoldenModel(program, TINY)
    stats = model.statistics(case.codes)
    layers, _ = model.run_layers(case.codes)
    padded = np.zeros((3, 2, 6, 6, 2), dtype=np.int64)
    padded[...] = case.network.input.pad_codes
    padded[:, :, 1:5, 1:5] = case.codes
    first = [stat for stat in stats if stat.index in {strip[0] for strip in program.layers[0].strips}]
    gathered = np.concatenate([stat.gathered for stat in first], axis=2).reshape(3, 2, 4, 4, 2)
    for y in range(4):
        for x in range(4):
            window = padded[:, :, y : y + 3, x : x + 3]
            np.testing.assert_array_equal(gathered[:, :, y, x], np.count_nonzero(window, axis=(2, 3)))
    stored = np.concatenate([stat.stored.sum(axis=3) for stat in first], axis=2).sum()
    assert stored == np.count_nonzero(layers[0])


def test_batches_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    case = _small()
    program = compiled(case, TINY)
    whole = GoldenModel(program, TINY).run(case.codes)
    monkeypatch.setattr("reverb_fpga.sim.golden.model._WORKING_BYTES", 1)
    monkeypatch.setattr("reverb_fpga.sim.golden.model._MAX_BATCH", 2)
    model = GoldenModel(program, TINY)
    assert model.batch == 2
    np.testing.assert_array_equal(model.run(case.codes), whole)


def test_threads_and_earlier_batches_do_not_change_results() -> None:
    case = _small()
    program = compiled(case, TINY)
    codes = np.concatenate([case.codes] * 20)
    whole = GoldenModel(program, TINY, threads=1).run(codes)
    model = GoldenModel(program, TINY, threads=3)
    for _ in range(2):  # the second time on memory that has been used
        np.testing.assert_array_equal(model.run(codes), whole)
        np.testing.assert_array_equal(model.run(codes[:1]), whole[:1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 0}, "rows is zero"),
        ({"n_tap_x": 0}, "n_tap_x is zero"),
        ({"rows": 1000}, "writes more records"),
        ({"n_tap_y": 63}, "the table holds 64"),
        ({"timesteps": 31, "t_src": 31}, "31 time steps, at most 8"),
        ({"t_src": 1}, "reads 1 steps"),
        ({"tau_q": 300}, "tau_q = 300"),
        ({"src_act_base": 65000}, "activation words"),
        ({"src_cnt_base": 1020}, "count words"),
        ({"src_act_base": 7}, "never written"),
        ({"src_col0": 300}, "reads record"),
        ({"w_base": 60000}, "weight rows"),
        ({"slot_base": 250}, "slot entry"),
        ({"param_base": 900}, "parameter groups"),
        ({"dst_row_stride": 0, "rows": 2}, "writes a record twice"),
        ({"pad_cnt_base": 5}, "pad record"),
        ({"src_ring": 0}, "not within the ring of 0"),
        ({"src_row_step": 500}, "src_row_step = 500"),
    ],
)
def test_senseless_layer_is_named(values: dict[str, int], message: str) -> None:
    program = compiled(_small(), TINY)
    with pytest.raises(InputError, match=message) as error:
        GoldenModel(changed(program, 1, values), TINY)
    assert "layer conv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crc32": 1}, "damaged"),
        ({"version": 9}, "compile it again"),
        ({"config_low": 1}, "compiled for configuration"),
        ({"n_outputs": 500}, "500 logits"),
        ({"in_records": 0}, "no records"),
        ({"in_slots": 0}, "no words"),
        ({"in_channels": 5}, "5 input channels"),
        ({"n_descriptors": 4}, "section DESC"),
    ],
)
def test_senseless_header(values: dict[str, int], message: str) -> None:
    program = compiled(_small(), TINY)
    with pytest.raises(InputError, match=message):
        GoldenModel(changed(program, 0, values), TINY)


def test_flipped_weight_bit_is_noticed() -> None:
    program = compiled(_small(), TINY)
    weight = program.weight.copy()
    weight[3] ^= 1
    with pytest.raises(InputError, match="damaged"):
        GoldenModel(dataclasses.replace(program, weight=weight), TINY)


def test_schedule_without_end() -> None:
    program = compiled(_small(), TINY)
    desc = program.desc.copy()
    desc[-DESCRIPTOR_WORDS:] = desc[-2 * DESCRIPTOR_WORDS : -DESCRIPTOR_WORDS]
    endless = dataclasses.replace(program, desc=desc)
    with pytest.raises(InputError, match="no END"):
        GoldenModel(changed(endless, 0, {"crc32": sections_crc32(endless.sections())}), TINY)


def test_unknown_opcode_and_reserved_bits() -> None:
    program = compiled(_small(), TINY)
    for word, message in ((0x99, "unknown opcode"), (Opcode.END | 1 << 30, "reserved bits")):
        desc = program.desc.copy()
        desc[-DESCRIPTOR_WORDS] = word
        odd = dataclasses.replace(program, desc=desc)
        with pytest.raises(InputError, match=message):
            GoldenModel(changed(odd, 0, {"crc32": sections_crc32(odd.sections())}), TINY)


def test_wrong_input_shape() -> None:
    case = _small()
    model = GoldenModel(compiled(case, TINY), TINY)
    with pytest.raises(InputError, match="input codes"):
        model.run(case.codes[:, :, :3])


def test_current_that_overflows_names_the_layer() -> None:
    """The back end refuses such a network, so the widths are taken away from a program that was fine."""
    program = compiled(_small(), TINY)
    narrow = dataclasses.replace(TINY, z_width=8)
    moved = changed(
        dataclasses.replace(program, config_digest=narrow.digest),
        0,
        {"config_low": narrow.digest & 0xFFFFFFFF, "config_high": narrow.digest >> 32},
    )
    model = GoldenModel(moved, narrow)
    with pytest.raises(InputError, match=r"layer conv: .* does not fit"):
        model.run(np.full((1, 2, 4, 4, 2), 255, dtype=np.uint8))
    narrow_sum = dataclasses.replace(TINY, acc_width=6)
    moved = changed(moved, 0, {"config_low": narrow_sum.digest & 0xFFFFFFFF, "config_high": narrow_sum.digest >> 32})
    with pytest.raises(InputError, match=r"layer conv: S = .* does not fit"):
        GoldenModel(moved, narrow_sum).run(np.full((1, 2, 4, 4, 2), 255, dtype=np.uint8))


def test_mutated_programs_run_or_are_refused() -> None:
    """Any field of any descriptor set to anything: a result or one clear line, never a crash."""
    case = _small()
    program = compiled(case, TINY)
    rng = np.random.default_rng(11)
    messages = []
    for _ in range(300):
        index = int(rng.integers(0, program.n_descriptors - 1))
        fields = contract.DESCRIPTOR_FIELDS[program.descriptor(index)[0]]
        field = fields[int(rng.integers(1, len(fields)))]
        low, high = contract.field_range(field)
        if field.name in ("gap", "crc32"):
            continue
        value = int(rng.choice([low, high, 0, 1, int(rng.integers(low, high + 1)), int(rng.integers(0, 8))]))
        try:
            odd = changed(program, index, {field.name: value})
            assert GoldenModel(odd, TINY).run(case.codes).shape[0] == len(case.codes)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def _integers(
    strip: Any, z: NDArray[np.int64], skip: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Section 3 of docs/numerics.md in Python's own integers, for one neuron after the other."""
    fields = strip.fields
    codes = np.zeros((z.shape[0], fields["timesteps"], *z.shape[2:]), dtype=np.int64)
    membranes = np.zeros((z.shape[0], z.shape[3]), dtype=np.int64)

    def sat24(value: int) -> int:
        return max(-(1 << 23), min((1 << 23) - 1, value))

    for n, position, channel in np.ndindex(z.shape[0], *z.shape[2:]):
        v, gain, bias, threshold = 0, *(int(a[channel]) for a in (strip.gain, strip.bias, strip.threshold))
        for t in range(fields["timesteps"]):
            current = int(z[n, min(t, z.shape[1] - 1), position, channel])
            r = fields["r_shift"]
            added = 0 if skip is None else int(skip[n, t, position, channel])
            u = sat24(v + sat24(sat24((current * gain + (1 << r >> 1)) >> r) + bias + added))
            fired = bool(fields["spiking"]) and u >= threshold
            codes[n, t, position, channel] = max(0, min(fields["code_max"], (u + 128) >> 8)) if fired else 0
            after = u - fields["reset"] if fields["soft_reset"] and u >= 0 else 0
            v = ((after if fired else u) * fields["tau_q"]) >> 8
        membranes[n, channel] = v
    return codes, membranes


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("r_shift", [0, 1, 8, 20, 28, 29, 30, 43, 53, 63])
def test_neurons_equal_the_integers_at_every_shift_and_extreme(
    r_shift: int, steps: int, kernels: types.ModuleType | None
) -> None:
    """Among them the values that sit on an edge: of a code, of the threshold, of the membrane's range."""
    rng = np.random.default_rng(100 * r_shift + steps)
    edges = np.array([-(1 << 23), -(1 << 22), 1 - (1 << 22), -1, 0, 127, 128, 129, 500, (1 << 22) - 1, 1 << 22])
    for small in (False, True):
        channels = 40
        extreme = np.array([*edges, (1 << 23) - 1])
        bias, threshold = (rng.choice(extreme, channels) for _ in range(2))
        if small:
            bias, threshold = rng.integers(-5000, 5000, channels), rng.integers(-300, 600, channels)
        z = rng.integers(-(1 << 27), 1 << 27, (2, steps, 30, channels))
        z[0] >>= rng.integers(0, 28, (steps, 30, channels))
        strip: Any = types.SimpleNamespace(
            fields={
                "timesteps": steps, "spiking": 1, "r_shift": r_shift, "code_max": int(rng.choice([1, 255])),
                "tau_q": int(rng.choice([0, 64, 77, 256])), "soft_reset": int(rng.integers(2)),
                "reset": int(rng.choice([0, 200, 40000, (1 << 23) - 1])),
            },
            gain=rng.choice([0, 1, 3, 4096, 65535], channels), bias=bias, threshold=threshold,
        )  # fmt: skip
        _require_integers(strip, z, None, None, kernels)


def _require_integers(
    strip: Any,
    z: NDArray[np.int64],
    reach: NDArray[np.int64] | None,
    skip: NDArray[np.int32] | None,
    kernels: types.ModuleType | None,
) -> None:
    currents = z.astype(np.float32 if kernels else np.float64)
    z = currents.astype(np.int64)  # kernels take what float32 holds
    expected = _integers(strip, z, skip)
    neurons, calls, space = NeuronUpdate(strip, TINY, reach), Calls(), Workspace()
    codes = neurons.update(calls, currents, space, skip, kernels)
    calls.run()
    np.testing.assert_array_equal(codes, expected[0])
    calls = Calls()
    membranes = neurons.membranes(calls, currents, space, skip)
    calls.run()
    np.testing.assert_array_equal(membranes, expected[1])


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99999, 1, 1.5])
def test_neurons_whose_currents_are_bounded_equal_the_integers(
    share: float, steps: int, kernels: types.ModuleType | None
) -> None:
    """Currents at their bounds; bounds, biases and sums over the steps just fit the membrane, or just do not."""
    rng = np.random.default_rng(steps)
    limit, channels = 1 << 23, 6
    for r_shift in (0, 3, 12, 20, 29):
        for room in (-3, 3, -limit):
            gain = rng.choice([1, 3, 4096, 65535], channels)
            reach = np.minimum(share * limit * 2.0**r_shift // gain, 1 << 27).astype(np.int64)
            left = np.maximum(limit - 1 - (reach * gain >> r_shift), 0)
            bias = rng.choice([-1, 1], channels) * np.clip(left + room, 0, limit - 1)
            z = reach * rng.choice([-1, 1, 1], (2, steps, 3, channels))
            strip: Any = types.SimpleNamespace(
                fields={
                    "timesteps": steps, "spiking": 1, "r_shift": r_shift, "code_max": int(rng.choice([1, 255])),
                    "tau_q": int(rng.choice([64, 77, 256])), "soft_reset": int(rng.integers(2)),
                    "reset": int(rng.choice([200, limit - 1])),
                },
                gain=gain, bias=bias, threshold=rng.choice([-1, 129, limit - 1], channels),
            )  # fmt: skip
            _require_integers(strip, z, reach, None, kernels)
            skip = rng.integers(-(1 << 17), 1 << 17, z.shape).astype(np.int32)
            _require_integers(strip, z, reach, skip, kernels)
