"""Channels over banks: other orders compute the same, those that are chosen take fewer beats."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import compiled, examples, specs
from targets import ModelTarget

from reverb_fpga.compiler import reference, rvb
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.backend.banks import beats_of, place_channels, tables_of
from reverb_fpga.compiler.geometry import Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork
from reverb_fpga.compiler.manifest import parse_manifest
from reverb_fpga.compiler.passes.reorder import in_first_order, reordered
from reverb_fpga.compiler.random_networks import NetworkSpec, Profile, build
from reverb_fpga.compiler.testing import plain_layer, plain_meta, random_codes
from reverb_fpga.host.balancing import balanced
from reverb_fpga.host.commands import spikes
from reverb_fpga.host.model import Model
from reverb_fpga.hw.config import Config, preset
from reverb_fpga.hw.contract import Region
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.cycles import CycleModel
from reverb_fpga.sim.golden import GoldenModel
from reverb_fpga.sim.verify import Verifier

TINY, ROWS = preset("tiny"), preset("tiny-row")
Orders = dict[str, NDArray[np.int64]]


def drawn_orders(network: IntNetwork, seed: int) -> Orders:
    rng = np.random.default_rng(seed)
    return {layer.name: rng.permutation(layer.channels) for layer in network.layers[:-1]}


def skewed(pool: int = 1, channels: int = 12, loud: bool = True) -> IntNetwork:
    """Convolutions 3 x 3 over 3 x 8 x 8 of which the even channels alone fire, if at all; all channels without."""
    rng = np.random.default_rng(3)
    threshold = np.where(np.arange(channels) % 2 == 0, -1 << 20, 1 << 20) if loud else np.full(channels, -1 << 20)
    pools = Pool((pool, pool), (pool, pool))
    one = plain_layer(
        "one", INPUT, rng.choice([-1, 1], (channels, 3, 3, 3)), geometry=Geometry(padding=(1, 1)), threshold=threshold,
        bias=np.full(channels, 4000),
    )  # fmt: skip
    two = plain_layer(
        "two", "one", rng.choice([-1, 1], (channels, channels, 3, 3)), threshold=threshold,
        geometry=Geometry(padding=(1, 1), out_pool=pools), bias=np.full(channels, 4000),
    )  # fmt: skip
    last = plain_layer("fc", "two", rng.choice([-1, 1], (4, channels, 8 // pool, 8 // pool)), spiking=False, tau_q=256)
    return IntNetwork(IntInput(3, 8, 8, np.zeros(3, dtype=np.uint8)), (one, two, last), 1, static_input=True)


def fired_by(network: IntNetwork, codes: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    found = reference.evaluate(network, codes).codes
    return {layer.name: each.astype(np.uint8) for layer, each in zip(network.layers[:-1], found, strict=False)}


@pytest.mark.parametrize("profile", [Profile.GRAPH, Profile.EVERYTHING, Profile.ANY])
@given(data=st.data(), seed=st.integers(0, 1 << 16))
@examples(40)
def test_another_order_computes_the_same(profile: Profile, data: st.DataObject, seed: int) -> None:
    """Shortcuts, gates, pooling, linear layers over several positions: every tensor has an order of its own."""
    spec: NetworkSpec = data.draw(specs(profile))
    case = build(spec)
    orders = drawn_orders(case.network, seed)
    other = dataclasses.replace(case, network=reordered(case.network, orders))
    wanted, found = (reference.evaluate(which.network, case.codes) for which in (case, other))
    np.testing.assert_array_equal(found.membrane, wanted.membrane)
    program = compiled(other, TINY)
    layers, logits = GoldenModel(program, TINY).run_layers(case.codes)
    np.testing.assert_array_equal(logits, wanted.logits)
    for info, mine, theirs in zip(program.layers[:-1], layers, wanted.codes, strict=False):
        np.testing.assert_array_equal(info.of_network(mine), theirs)
        np.testing.assert_array_equal(mine, theirs[..., orders[info.name]])


@given(spec=specs(Profile.GRAPH), seed=st.integers(0, 1 << 16))
@examples(15)
def test_an_order_can_be_taken_back(spec: NetworkSpec, seed: int) -> None:
    network = build(spec).network
    orders = drawn_orders(network, seed)
    twice = reordered(reordered(network, orders), drawn_orders(network, seed + 1))
    back = in_first_order(twice)
    for ours, theirs, moved in zip(back.layers, network.layers, twice.layers, strict=True):
        assert ours.order is None
        if moved.order is not None:
            np.testing.assert_array_equal(moved.threshold, theirs.threshold[list(moved.order)])
        for mine, other in zip(ours.maps, theirs.maps, strict=True):
            np.testing.assert_array_equal(mine.weight, other.weight)
            np.testing.assert_array_equal(mine.gain, other.gain)
        np.testing.assert_array_equal(ours.threshold, theirs.threshold)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ({INPUT: [0, 1, 2]}, "tensor input: not one between two layers"),
        ({"fc": [0, 1, 2, 3]}, "tensor fc: not one between two layers"),
        ({"nine": [0]}, "tensor nine: not one between two layers"),
        ({"one": [0, 0, *range(2, 12)]}, "layer one: the order is no permutation of its 12 channels"),
        ({"one": [0]}, "layer one: the order is no permutation of its 12 channels"),
    ],
)
def test_what_is_no_order_is_refused(orders: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reordered(skewed(), {name: np.array(order) for name, order in orders.items()})


@pytest.mark.parametrize("config", [TINY, ROWS], ids=lambda config: config.name)
@given(data=st.data(), row_mode=st.sampled_from([True, None]))
@examples(15)
def test_tables_are_those_of_the_cycle_model(config: Config, data: st.DataObject, row_mode: bool | None) -> None:
    """Beats of all tables, less those that writes cost, which only the cycle model knows."""
    case = build(data.draw(specs(Profile.GRAPH)))
    hints = Hints(row_mode=row_mode)
    try:
        program = lower(case.network, config, plain_meta(case.network), hints)
    except InputError:
        return
    codes = case.codes[:1]
    tables = tables_of(case.network, fired_by(case.network, codes), config, row_mode)
    found = sum(
        beats_of([dataclasses.replace(part, least=1) for part in parts], config.banks) for parts in tables.values()
    )
    of_input = {
        index for info in program.layers for position, leg in enumerate(info.maps) if leg.source < 0
        for index in info.descriptors_of(position)
    }  # fmt: skip
    idle = {
        index for info in program.layers for position, leg in enumerate(info.maps) if leg.additions == 0
        for index in info.descriptors_of(position)
    }  # fmt: skip
    (strips,) = CycleModel(program, config).strips(codes)
    assert found == sum(strip.beats - strip.stolen for strip in strips if strip.index not in of_input | idle)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("config", [TINY, ROWS], ids=lambda config: config.name)
def test_channels_that_share_a_bank_are_parted(config: Config, pool: int) -> None:
    network = skewed(pool)
    codes = random_codes(np.random.default_rng(0), network, 6)
    program = lower(network, config, plain_meta(network))
    found = balanced(program, network, config, codes)
    assert found is not None
    told = found.balance
    assert (told.layers, told.unit, told.images, told.banks) == (("one", "two"), "cycles", 3, config.banks)
    # the even channels are all in the even banks: half of them in each bank saves half of what they take
    cycles = [np.mean(CycleModel(which, config).cycles(codes[1::2])) for which in (program, found.program)]
    assert [told.before, told.after] == cycles
    assert told.after < 0.8 * told.before
    assert str(told).startswith(f"channels placed over {config.banks} banks: {told.before:,.0f} -> {told.after:,.0f}")
    for info in found.program.layers[:-1]:
        assert info.order is not None
        firing = [np.array(info.order[bank :: config.banks]) % 2 == 0 for bank in range(config.banks)]
        assert max(each.sum() for each in firing) - min(each.sum() for each in firing) <= 1
        for bank in range(config.banks):  # within a bank as they were
            assert list(info.order[bank :: config.banks]) == sorted(info.order[bank :: config.banks])
    wanted = GoldenModel(program, config).run(codes)
    np.testing.assert_array_equal(GoldenModel(found.program, config).run(codes), wanted)
    np.testing.assert_array_equal(reference.evaluate(found.network, codes).logits, wanted)


def test_the_same_images_give_the_same_program() -> None:
    network = skewed()
    codes = random_codes(np.random.default_rng(0), network, 6)
    program = lower(network, TINY, plain_meta(network))
    one, two = (balanced(program, network, TINY, codes, measure=False) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.balance == two.balance
    assert one.balance.unit == "beats"
    for (_, first), (_, second) in zip(one.program.sections(), two.program.sections(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_where_nothing_is_gained_nothing_changes() -> None:
    network = skewed(loud=False)  # all fire: the banks are even
    codes = random_codes(np.random.default_rng(0), network, 4)
    program = lower(network, TINY, plain_meta(network))
    found = balanced(program, network, TINY, codes)
    assert found is not None
    assert found.program is program
    assert found.network is network
    assert found.balance.layers == ()
    assert "channels are left as they are" in str(found.balance)
    assert balanced(program, network, TINY, codes[:1]) is None


def test_a_gain_of_the_search_alone_is_none() -> None:
    """On the images that are kept all channels fire."""
    network = skewed(loud=False)
    fired = {name: np.ones((4, 1, 8, 8, 12), dtype=np.uint8) for name in ("one", "two")}
    for codes in fired.values():
        codes[::2, ..., 1::2] = 0
    found = place_channels(network, fired, TINY, None)
    assert found.orders == {}
    assert all(before == after for before, after in found.beats.values())


def test_a_share_of_many_tables_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = skewed()
    codes = random_codes(np.random.default_rng(0), network, 6)
    fired = fired_by(network, codes)
    whole = place_channels(network, fired, TINY, None)
    monkeypatch.setattr("reverb_fpga.compiler.backend.banks._TABLES", 50)
    part = place_channels(network, fired, TINY, None)
    assert set(part.orders) == {"one", "two"}
    for name in part.beats:
        np.testing.assert_allclose(part.beats[name], whole.beats[name], rtol=0.15)


def test_codes_of_another_shape_are_refused() -> None:
    network = skewed()
    for shape in ((2, 1, 8, 8, 11), (2, 8, 8, 12), (0, 1, 8, 8, 12)):
        with pytest.raises(InputError, match=r"layer one: codes .* \(N, T, H, W, 12\) are wanted"):
            place_channels(network, {"one": np.zeros(shape, dtype=np.uint8)}, TINY, None)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, IntNetwork]:
    """The skewed network as two files, the second with other orders."""
    network = skewed()
    meta = dataclasses.replace(plain_meta(network), dataset="cifar10")
    other = reordered(network, drawn_orders(network, 5))
    one, two = (rvb.save(lower(which, TINY, meta), tmp_path / f"{name}.rvb") for which, name in
                ((network, "one"), (other, "two")))  # fmt: skip
    return one, two, other


def test_a_file_keeps_the_order(pair: tuple[Path, Path, IntNetwork]) -> None:
    one, two, network = pair
    assert [info.order for info in rvb.load(one).layers] == [None] * 3
    assert [info.order for info in rvb.load(two).layers] == [layer.order for layer in network.layers]
    again = rvb.save(rvb.load(two), two.with_name("again.rvb"))
    assert again.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("order", [[0] * 12, list(range(11)), [*range(11), 12], "0", None])
def test_a_file_with_another_order_is_refused(pair: tuple[Path, Path, IntNetwork], order: Any) -> None:
    manifest = json.loads(zipfile.ZipFile(pair[1]).read("manifest.json"))
    manifest["layers"][0]["order"] = order
    with pytest.raises(InputError, match=r"manifest: layers\[0\].order"):
        parse_manifest(manifest)


def test_logits_of_a_file_have_no_order(pair: tuple[Path, Path, IntNetwork]) -> None:
    manifest = json.loads(zipfile.ZipFile(pair[1]).read("manifest.json"))
    manifest["layers"][2]["order"] = [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"manifest: layers\[2\].order: logits have an order of their own"):
        parse_manifest(manifest)


def test_layers_are_shown_in_the_order_of_the_network(pair: tuple[Path, Path, IntNetwork], tmp_path: Path) -> None:
    one, two = (rvb.load(path) for path in pair[:2])
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    wanted, found = (Model(program).layers(pixels) for program in (one, two))
    assert list(found) == ["one", "two"]
    for name, codes in wanted.items():
        np.testing.assert_array_equal(found[name], codes)
    archives = []
    for path in pair[:2]:
        target = tmp_path / f"{path.stem}.npz"
        result = CliRunner().invoke(spikes.command, [str(path), "-o", str(target)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        archives.append(np.load(target))
    for name in ("layer0", "layer1", "logits"):
        np.testing.assert_array_equal(archives[1][name], archives[0][name])


def test_a_difference_names_the_channel_of_the_network(pair: tuple[Path, Path, IntNetwork]) -> None:
    def spoil(region: Region, _offset: int, word: int) -> int:
        return word ^ 1 if region is Region.ACT and word else word

    codes = random_codes(np.random.default_rng(0), pair[2], 1)
    for path in pair[:2]:
        program = rvb.load(path)
        found = Verifier(program, TINY, ModelTarget(TINY, spoil)).run(codes).difference
        assert found is not None
        order = program.layers[0].order
        channel = int(np.flatnonzero(GoldenModel(program, TINY).run_layers(codes)[0][0][0, 0, 0, 0])[:: TINY.banks][0])
        place = f"channel {channel}" if order is None else f"channel {channel} ({order[channel]} of the network)"
        assert found.place == f"row 0, column 0, step 0, {place}"
