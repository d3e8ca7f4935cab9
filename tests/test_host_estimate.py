"""Estimates before a build, against builds that were made (docs/boards.md has the table)."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reverb_fpga.compiler.ebr import DEVICE_BLOCKS, block_rams, stacked
from reverb_fpga.host.commands.report import command
from reverb_fpga.host.estimate import CLOCKS, PARTS, Estimate, clock_words, estimate, features
from reverb_fpga.hw.boards.table import BOARDS, LinkKind, board
from reverb_fpga.hw.config import PRESETS, Config, preset
from reverb_fpga.hw.errors import InputError

BUILDS = [
    json.loads(line) for line in (Path(__file__).parent.parent / "benchmarks" / "builds.jsonl").read_text().splitlines()
]
OLDER = {"LUT4": 16.0, "flip-flops": 40.0, "block RAM": 5.0, "multipliers": 0.0}
"""Percent, for versions that had more logic for the same, or less in them."""
FIELDS = {"LUT4": "lut4", "flip-flops": "ff", "block RAM": "bram", "multipliers": "dsp"}


def _named(build: dict[str, Any]) -> str:
    return f"{build['build']}, {build['stage']}, {build['link']}, {build['sources']}"


def _shape(text: str) -> Config:
    """As the benchmarks have it: a preset, with fields changed."""
    name, *changes = text.split(",")
    return dataclasses.replace(preset(name), **{key: int(value) for key, value in (c.split("=") for c in changes)})


def _of(config: Config, on: str = "ulx3s-85f", link: str = "uart") -> Estimate:
    target = dataclasses.replace(board(on), config=config.name)
    return estimate(target, config, link=LinkKind(link))


def test_there_are_builds_of_several_kinds() -> None:
    now = [build for build in BUILDS if not build.get("older")]
    assert len({build["build"] for build in now}) >= 5
    assert len([build for build in now if not build["fitted"]]) >= 3
    assert all(build["tools"].keys() >= {"yosys", "nextpnr"} for build in BUILDS)


COUNTED = [build for build in BUILDS if "lut4" in build]  # of IcePi Zero's only the clock was kept


@pytest.mark.parametrize("build", COUNTED, ids=_named)
def test_estimates_are_as_near_real_builds_as_they_say(build: dict[str, Any]) -> None:
    on, _, shape = build["build"].partition("=")
    for resource in _of(_shape(shape), on, build["link"]).resources:
        real = build[FIELDS[resource.name]]
        most = OLDER[resource.name] if build.get("older") else resource.error
        assert 100 * abs(resource.used / real - 1) <= most, (resource, real)


def test_the_clock_is_that_of_the_routed_builds() -> None:
    reached: dict[str, list[tuple[bool, float]]] = {}
    for build in BUILDS:
        if build["stage"] == "routed":
            found = re.search(r"-\d+F-(\d)", board(build["build"].partition("=")[0]).device)
            assert found is not None
            reached.setdefault(found[1], []).append((build.get("older", False), build["fmax_mhz"]))
    assert CLOCKS.keys() == reached.keys()
    for grade, clock in CLOCKS.items():
        values = [mhz for older, mhz in reached[grade] if not older] or [mhz for _, mhz in reached[grade]]
        assert (clock.low, clock.high, clock.builds) == (min(values), max(values), len(values))
        assert clock.mhz == pytest.approx(sum(values) / len(values), abs=0.1)
    assert _of(preset("ulx3s-85f")).clock == CLOCKS["6"]
    assert _of(preset("ulx3s-85f"), "ecpix5-85f").clock == CLOCKS["8"]
    seven = dataclasses.replace(board("icepi-zero"), device="Lattice LFE5U-25F-7BG256C")
    assert "no build of this speed grade" in clock_words(estimate(seven, preset("ulx3s-12f")))


def test_usb_takes_more_than_a_uart() -> None:
    target, config = board("orangecrab-25f"), preset("ulx3s-12f")
    usual, uart = estimate(target, config), estimate(target, config, link=LinkKind.UART)
    assert [more.used - less.used for more, less in zip(usual.resources, uart.resources, strict=True)] == [
        1585,
        855,
        0,
        0,
    ]


def test_no_baud_is_told_of_a_board_with_usb() -> None:
    arguments = ["fashion-mnist-12f", "--images", "1", "--json", "--board"]
    late = {
        name: json.loads(CliRunner().invoke(command, [*arguments, name], catch_exceptions=False).stdout)["latency"]
        for name in ("orangecrab-25f", "icepi-zero")
    }
    assert late["orangecrab-25f"] is None
    assert late["icepi-zero"]["baud"] == 2_000_000


def test_more_hardware_is_never_less() -> None:
    base = dataclasses.replace(preset("ulx3s-25f"), neuron_lanes=4, layer_groups=64)
    changes: list[dict[str, Any]] = [
        {"clusters": 4},
        {"neuron_lanes": 8},
        {"weight_rows": 7168},
        {"banks": 8, "neuron_lanes": 8},
    ]
    for change in changes:
        more, less = _of(dataclasses.replace(base, **change)), _of(base)
        for one, other in zip(more.resources, less.resources, strict=True):
            assert one.used >= other.used, (change, one.name)
        assert more.resources[0].used > less.resources[0].used, change


def test_the_flattest_arrangement_of_the_fewest_blocks() -> None:
    assert stacked(16, 4096) == 1  # four of 4 bits x 4096
    assert stacked(64, 7168) == 7
    assert stacked(16, 14336) == 7  # two of 9 bits, seven times 2048
    assert stacked(8, 2048) == 1


@pytest.mark.parametrize("name", DEVICE_BLOCKS)
def test_a_preset_fits_the_blocks_of_its_device(name: str) -> None:
    uses = block_rams(preset(name))
    assert sum(uses.values()) < DEVICE_BLOCKS[name]  # the link's ring of the ULX3S takes a block more than its smallest
    if name == "ulx3s-85f-row":  # as synthesised: seven memories a bank, 32 lanes each
        assert uses["weights"] == 112


def test_every_part_has_its_coefficients() -> None:
    for config in PRESETS.values():
        found = features(config)
        assert found.keys() == PARTS.keys()
        for part, values in found.items():
            assert {len(values)} == {len(coefficients) for coefficients in PARTS[part]}


def test_boards_that_estimates_are_of() -> None:
    for target in BOARDS.values():
        config = preset(target.config)
        if not target.builds_here:
            with pytest.raises(InputError, match="not by Vivado"):
                estimate(target, config)
            continue
        found = estimate(target, config).resources
        assert found[2].available == target.bram
        assert found[2].used <= found[2].available
    assert not _of(dataclasses.replace(preset("ulx3s-85f"), weight_rows=16384)).fits


def test_the_command(tmp_path: Path) -> None:
    arguments = ["fashion-mnist", "--images", "1", "--board", "ulx3s-85f"]
    value = json.loads(CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert value["clock_mhz"] == 50
    assert value["images_per_second"] == pytest.approx(50e6 / value["cycles"])
    late = value["latency"]
    assert late["baud"] == 2_000_000
    assert late["input_us"] == pytest.approx(784 * 10 / 2)
    assert late["core_us"] == pytest.approx(value["cycles"] / 50)
    assert late["output_us"] == pytest.approx(10 * 4 * 10 / 2)
    assert late["total_us"] == pytest.approx(late["input_us"] + late["core_us"] + late["output_us"])
    assert [entry["name"] for entry in value["estimate"]["resources"]] == [
        "LUT4",
        "flip-flops",
        "block RAM",
        "multipliers",
    ]
    page = tmp_path / "p.html"
    text = CliRunner().invoke(command, [*arguments, "--clock", "60", "-o", str(page)], catch_exceptions=False).stdout
    assert "fits" in text
    assert re.search(r"LUT4 +[\d,]+ +\+-4 % +83,640", text)
    assert re.search(r"block RAM +205 +exact +208", text)
    assert "clock: 75 MHz, -13 to +8 (9 routed builds)" in text
    assert "images/s computed at 60 MHz" in text
    assert re.search(r"latency of one image: [\d,]+ us: [\d,]+ for its 784 bytes", text)
    for words in ("nothing was synthesised", "LUT4 +-4 %, flip-flops", "Clock: 75 MHz"):
        assert words in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fashion-mnist", "--board", "ulx3s-12f"], "compile it with --target ulx3s-12f"),
        (["fashion-mnist", "--board", "nothing"], "no board 'nothing'"),
        (["fashion-mnist", "--board", "arty-a7-100t"], "not by Vivado"),
    ],
)
def test_what_cannot_be_estimated(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, InputError), result.output
    assert message in str(result.exception)
