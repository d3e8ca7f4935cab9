"""Images that the chip does not hold: their rows are taken between the strips of the layers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.typing import NDArray

from reverb_fpga.compiler import reference
from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntLayer, IntNetwork, WeightKind
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import plain_layer, plain_meta
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import Opcode
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.rtl_core import RtlCore
from reverb_fpga.sim.verify import Verifier

TINY = preset("tiny")


def _layer(name: str, source: str, shape: tuple[int, ...], **changes: object) -> IntLayer:
    rng = np.random.default_rng(len(name) + sum(shape))
    some = {"gain": np.full(shape[0], 200), "r_shift": 2, "threshold": np.full(shape[0], 100)}
    return plain_layer(name, source, rng.choice([-1, 1], shape), **(some | changes))


def _last(source: str, shape: tuple[int, ...]) -> IntLayer:
    return _layer("fc", source, shape, spiking=False, tau_q=256)


def large_image(side: int = 48) -> IntNetwork:
    """More pixels than the configuration has records; every layer halves them."""
    half = Geometry(stride=(2, 2), padding=(1, 1))
    layers = (
        _layer("one", INPUT, (4, 1, 3, 3), geometry=half),
        _layer("two", "one", (5, 4, 3, 3), geometry=half),
        _layer("three", "two", (6, 5, 3, 3), geometry=half),
        _last("three", (4, 6, side // 8, side // 8)),
    )
    return IntNetwork(IntInput(1, side, side, np.array([9], dtype=np.uint8)), layers, 1, static_input=True)


def stage(side: int = 23) -> IntNetwork:
    """Three residual blocks on maps of which the configuration holds two, but not with the constant record."""
    same = Geometry(padding=(1, 1))
    identity = {"kind": WeightKind.UNIT, "gain": np.full(4, 300), "r_shift": 0}
    unit = np.eye(4, dtype=np.int64)[:, :, None, None]
    layers = [_layer("stem", INPUT, (4, 3, 3, 3), geometry=same)]
    for block in "abc":
        source = layers[-1].name
        layers.append(_layer(f"{block}1", source, (4, 4, 3, 3), geometry=same))
        second = _layer(f"{block}2", f"{block}1", (4, 4, 3, 3), geometry=same)
        shortcut = plain_layer("", source, unit, **identity).maps[0]
        layers.append(IntLayer(**{**vars(second), "maps": (shortcut, *second.maps)}))
    layers.append(_layer("down", layers[-1].name, (5, 4, 3, 3), geometry=Geometry((4, 4), (1, 1))))
    layers.append(_last("down", (4, 5, -(-side // 4), -(-side // 4))))
    return IntNetwork(IntInput(3, side, side, np.array([5, 0, 7], dtype=np.uint8)), tuple(layers), 1, static_input=True)


@functools.cache
def compiled(name: str) -> tuple[IntNetwork, Program, NDArray[np.uint8]]:
    network = {"large image": large_image, "stage": stage}[name]()
    source = network.input
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (3, 1, source.height, source.width, source.channels)) * (
        rng.random((3, 1, 1, 1, 1)) + 1
    )
    return network, lower(network, TINY, plain_meta(network)), np.where(codes > 255, 0, codes).astype(np.uint8)


def loads(program: Program) -> list[int]:
    """Records that PROGRAM and each INPUT take."""
    found = (program.descriptor(index) for index in range(program.n_descriptors))
    return [fields["in_records"] for opcode, fields in found if opcode in (Opcode.PROGRAM, Opcode.INPUT)]


@pytest.mark.parametrize("name", ["large image", "stage"])
def test_golden_model_is_the_reference(name: str) -> None:
    network, program, codes = compiled(name)
    assert len(loads(program)) > 1
    assert program.input_records == network.input.height * network.input.width
    expected = reference.evaluate(network, codes)
    layers, logits = GoldenModel(program, TINY).run_layers(codes)
    np.testing.assert_array_equal(logits, expected.logits)
    for info, got, want in zip(program.layers, layers, expected.codes, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=info.name)
        assert want.any() or not info.spiking, info.name


def test_an_image_is_larger_than_the_memory() -> None:
    network, program, _ = compiled("large image")
    assert network.input.height * network.input.width > TINY.count_words
    assert max(loads(program)) < TINY.count_words


def test_whole_tensors_take_each_others_place() -> None:
    """Two of the stage's tensors side by side, and the constant record, are more than there is."""
    network, program, _ = compiled("stage")
    side = network.input.height
    assert 2 * side * side + 1 > TINY.count_words
    begins: dict[tuple[int, int], set[int]] = {}  # rows of a ring at which a tensor begins
    for info in program.layers:
        _, fields = program.descriptor(info.strips[0][0])
        begins.setdefault((fields["dst_cnt_base"], fields["dst_ring"]), set()).add(fields["dst_row0"])
    assert max(map(len, begins.values())) > 1


def test_what_fits_is_taken_whole() -> None:
    network = large_image(24)
    assert len(loads(lower(network, TINY, plain_meta(network)))) == 1


def test_what_fits_by_no_means_is_refused() -> None:
    network = large_image(400)
    with pytest.raises(InputError, match="network too large for tiny"):
        lower(network, TINY, plain_meta(network))


@pytest.mark.parametrize("name", ["large image", "stage"])
def test_gateware_is_the_golden_model(name: str) -> None:
    """Bytes that come late, in the middle of a row as well; every tensor and all logits."""
    _, program, codes = compiled(name)
    with RtlCore(TINY) as core:
        core.stall_input(4, 0.5)
        result = Verifier(program, TINY, core).run(codes)
        assert result.difference is None, str(result.difference)
        assert result.images == len(codes)
