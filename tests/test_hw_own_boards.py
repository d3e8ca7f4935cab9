"""Boards of one's own: TOML and Python files, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from board_cores import ByteEcho, Echo

from reverb_fpga.hw.boards import flow
from reverb_fpga.hw.boards.own import find_board
from reverb_fpga.hw.boards.table import BOARDS, Board, Flow, LinkKind, Pins, board
from reverb_fpga.hw.boards.tools import Toolchain
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError

EXAMPLE = Path(__file__).parent.parent / "examples" / "boards" / "colorlight-i9.toml"
pytestmark = pytest.mark.filterwarnings(
    "ignore::amaranth.hdl.UnusedElaboratable", "ignore::DeprecationWarning"
)  # LUNA uses what amaranth will drop


def plan(target: Board) -> flow._Plan:
    """The smallest core on that board, elaborated."""
    link = target.links[0]
    options = flow.BuildOptions(clock_mhz=target.clock_mhz, divisor=25, baud=2_000_000)
    core = ByteEcho() if link is LinkKind.USB else Echo()
    return flow._plan(flow.Design(target, preset("tiny"), core, link), options, Toolchain({}, {}))


@pytest.mark.parametrize("name", [name for name, entry in BOARDS.items() if entry.flow is Flow.TRELLIS])
def test_every_board_of_open_tools_elaborates_with_pins_for_its_link(name: str) -> None:
    made = plan(board(name))
    constraints = str(made.files["top.lpf"])
    assert ("uart" in constraints) == (board(name).links[0].value == "uart")
    assert ("usb" in constraints) == (board(name).links[0].value == "usb")
    assert made.platform.device in board(name).device
    assert "\\EHXPLLL" in str(made.files["top.il"])
    arguments = flow._nextpnr_arguments(made)
    assert arguments[arguments.index("--speed") + 1] == board(name).device.split("-")[2][0]


def test_a_board_in_toml_has_its_pins() -> None:
    found = find_board(str(EXAMPLE))
    assert (found.name, found.bram, found.clock_mhz) == ("colorlight-i9", 108, 50.0)
    constraints = str(plan(found).files["top.lpf"])
    for ball in ("P3", "H18", "J17", "L2"):
        assert f'SITE "{ball}"' in constraints


def test_a_board_in_python(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import dataclasses\nfrom amaranth_boards.ulx3s import ULX3S_45F_Platform\n"
        "from reverb_fpga.hw.boards.table import board\n"
        "BOARD = dataclasses.replace(board('ulx3s-25f'), name='ulx3s-45f', platform=ULX3S_45F_Platform,\n"
        "                            device='Lattice LFE5U-45F-6BG381C', bram=108)\n"
    )
    assert plan(find_board(str(own))).platform.device == "LFE5U-45F"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("device", '"LFE5U-99F"'), "device = 'LFE5U-99F' is none of: LFE5U-12F"),
        (("clock_pin", '"P3 J4"'), "ball 'P3 J4' is none, as in P3"),
        (("leds", '["L2", 3]'), "ball 3 is none"),
        (("name", '"../evil"'), "name '../evil' is none"),
        (("clock_mhz", "nan"), "a clock of nan MHz is not in 1..400"),
        (("clock_mhz", '"25"'), "clock_mhz = '25' is no float"),
        (("config", '"huge"'), "no configuration 'huge'"),
        (("speed", "6"), "speed = 6 is no str"),
        (("colour", "1"), "unknown: colour; known: name, device"),
        (("uart_rx", ""), "no TOML"),
    ],
)
def test_what_is_wrong_with_a_board_in_toml_is_one_line(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith(f"{change[0]} =")]
    path = tmp_path / "own.toml"
    path.write_text("\n".join([*lines, f"{change[0]} = {change[1]}"]))
    with pytest.raises(InputError) as caught:
        find_board(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('name = "x"\n')
    with pytest.raises(InputError, match="lacks device, package, speed, config"):
        find_board(str(tmp_path / "own.toml"))
    (tmp_path / "own.py").write_text("1 / 0")
    with pytest.raises(InputError, match=r"own\.py: fails with ZeroDivisionError"):
        find_board(str(tmp_path / "own.py"))
    (tmp_path / "own.py").write_text("BOARD = 3")
    with pytest.raises(InputError, match="defines no BOARD"):
        find_board(str(tmp_path / "own.py"))
    for name in ("none.toml", "none.py"):
        with pytest.raises(InputError, match="no such file"):
            find_board(str(tmp_path / name))


def test_an_unknown_board_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no board 'ulx3s_85F'; did you mean ulx3s-85f\?.*docs/boards\.md"):
        find_board("ulx3s_85F")
    with pytest.raises(InputError, match="no board 'zzz'; There are"):
        find_board("zzz")


def test_boards_without_a_port_of_their_own_say_what_to_connect() -> None:
    assert "J19" in board("colorlight-5a75b").wiring
    assert all(entry.usb or entry.wiring for entry in BOARDS.values())
    assert isinstance(board("colorlight-i5").platform, Pins)
    assert dataclasses.replace(board("colorlight-i5"), name="x").wiring
