"""Estimates before a build, against builds that were made (docs/boards.md has the table)."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reverb_fpga.compiler.ebr import stacked
from reverb_fpga.host.commands.report import command
from reverb_fpga.host.estimate import PARTS, Estimate, estimate, features
from reverb_fpga.hw.boards.table import BOARDS, board
from reverb_fpga.hw.config import PRESETS, Config, preset
from reverb_fpga.hw.errors import InputError


@dataclasses.dataclass(frozen=True)
class Built:
    """LUT4, flip-flops, block RAMs and multipliers of a build; how far LUT4 and flip-flops may be off, in percent."""

    what: str
    config: str
    cells: tuple[int, int, int, int]
    luts_off: float
    ffs_off: float
    old: bool = False

    @property
    def shape(self) -> Config:
        """As it was built."""
        base = preset(self.config)
        return dataclasses.replace(base, **FOUR_BANKS[self.config]) if self.old else base


FOUR_BANKS = {
    "ulx3s-12f": {"banks": 4, "act_words": 5120, "weight_rows": 5120},
    "ulx3s-25f": {"banks": 4, "act_words": 4096, "weight_rows": 3072, "layer_groups": 128},
}
"""What these presets were when they were synthesised."""

BUILDS = (
    Built("tiny, synthesised", "tiny", (17_587, 13_720, 27, 13), 2, 2),
    Built("ulx3s-12f of four banks, with a ring of 4 KiB", "ulx3s-12f", (25_070, 16_889, 57, 13), 2, 2, old=True),
    Built("ulx3s-25f of four banks, synthesised, not fitted", "ulx3s-25f", (27_160, 19_987, 57, 13), 2, 2, old=True),
    Built("ulx3s-25f, packed, with a ring of 2 KiB", "ulx3s-25f", (21_081, 16_297, 54, 13), 3, 8),
    Built("ulx3s-85f, routed at 58.08 MHz", "ulx3s-85f", (45_660, 34_311, 205, 37), 2, 2),
    Built("ulx3s-85f with USB, routed at 61.59 MHz", "ulx3s-85f", (46_254, 35_676, 205, 37), 3, 5),
    Built("ulx3s-85f of an older version, routed at 66.69 MHz", "ulx3s-85f", (39_193, 32_288, 204, 37), 20, 8),
    Built(
        "ulx3s-85f of the one before, tools from pip, routed at 59.02 MHz",
        "ulx3s-85f",
        (38_017, 26_923, 196, 37),
        25,
        30,
    ),
    Built("the same, native tools, routed at 51.25 MHz", "ulx3s-85f", (37_727, 26_923, 196, 37), 25, 30),
)


def _of(config: Config) -> Estimate:
    return estimate(dataclasses.replace(board("ulx3s-85f"), config=config.name), config)


@pytest.mark.parametrize("built", BUILDS, ids=lambda built: built.what)
def test_estimates_are_near_real_builds(built: Built) -> None:
    luts, ffs, blocks, multipliers = (resource.used for resource in _of(built.shape).resources)
    assert 100 * abs(luts / built.cells[0] - 1) <= built.luts_off
    assert 100 * abs(ffs / built.cells[1] - 1) <= built.ffs_off
    assert 0 <= blocks - built.cells[2] <= 9  # older versions had no skip memory
    assert multipliers == built.cells[3]


def test_more_hardware_is_never_less() -> None:
    base = preset("ulx3s-25f")
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
    with pytest.raises(InputError, match="row mode"):
        estimate(board("ulx3s-85f"), preset("tiny-row"))
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
    assert "images/s computed at 60 MHz" in text
    assert re.search(r"latency of one image: [\d,]+ us: [\d,]+ for its 784 bytes", text)
    assert "nothing was synthesised" in page.read_text()


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
