"""The boards this project knows, as plain data."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
from typing import Any

from ..errors import InputError
from ..usb_identity import USB_MANUFACTURER, USB_PRODUCT_ID, USB_VENDOR_ID

__all__ = [
    "BAUD_RATES", "BLOCK_RAMS", "BOARDS", "Board", "Flow", "LinkKind", "Pins", "UsbIdentity", "board", "link_of",
    "lut_count", "uart_divisor",
]  # fmt: skip

BAUD_RATES = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 500_000, 250_000, 115_200)
_MAX_BAUD_ERROR = 0.015  # half a bit over ten bits is 5 %; leave most of it to the other end
_MIN_DIVISOR = 8
_SIZES = {"12F": 56, "25F": 56, "45F": 108, "85F": 208}  # the 12F is a 25F die, all of it usable with the open tools
BLOCK_RAMS = {
    f"{family}-{size}": _SIZES[size]
    for family, sizes in (("LFE5U", _SIZES), ("LFE5UM", ("25F", "45F", "85F")), ("LFE5UM5G", ("25F", "45F", "85F")))
    for size in sizes
}
"""Block RAMs (18 Kbit) by ECP5 device."""
_LUTS = {"12F": 24_288, "25F": 24_288, "45F": 43_848, "85F": 83_640}
_SIZE = re.compile(r"LFE5U\w*-(\d+F)")


class Flow(enum.Enum):
    """How a board's bitstream comes about."""

    TRELLIS = "yosys, nextpnr, ecppack from pip"
    VIVADO = "Vivado; exported here"


class LinkKind(enum.Enum):
    """What carries the link's bytes."""

    UART = "uart"
    USB = "usb"


@dataclasses.dataclass(frozen=True)
class UsbIdentity:
    """What a port that may be a board says of itself on the USB.

    Parameters
    ----------
    vendor, product : int
    text : str
        In its product string; for identities that are not ours alone.
    """

    vendor: int
    product: int
    text: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pins:
    """What the overlay needs to know of an ECP5 board that amaranth-boards does not have.

    Parameters
    ----------
    device : str
        One of :data:`BLOCK_RAMS`.
    package : str
        As in the part's name: BG256, MG285, BG381, BG554 or BG756.
    speed : str
        Speed grade: 6, 7 or 8.
    clock, rx, tx : str
        Balls of the crystal and of the UART, as the FPGA sees it.
    leds : tuple of str
    leds_inverted : bool
        They light at 0.
    io_standard : str
    """

    device: str
    package: str
    speed: str
    clock: str
    rx: str
    tx: str
    leds: tuple[str, ...] = ()
    leds_inverted: bool = False
    io_standard: str = "LVCMOS33"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """One board.

    Parameters
    ----------
    name : str
        What ``--board`` takes.
    config : str
        Preset of :data:`reverb_fpga.hw.config.PRESETS` that is built for it.
    platform : str, Pins or class
        ``module:Class`` of its amaranth-boards platform, its pins, or a platform class.
    device : str
        FPGA, for people.
    flow : Flow
    input_mhz : float
        Crystal on the board.
    clock_mhz : float
        Clock of the overlay unless another is asked for.
    bram : int or None
        Block RAMs (18 Kbit) of the device, where the flow counts them.
    links : tuple of LinkKind
        What it can be built with, the usual one first.
    usb : tuple of UsbIdentity
        Of the serial ports behind which it may be.
    ring : int
        Bytes of input that the link takes ahead of the core; as much block RAM as is left.
    seed : int
        Of the placer, unless another one is asked for: of several, one that was routed.
    loader : str or None
        Board name that openFPGALoader knows.
    wiring : str
        What to connect before it can be talked to; empty if nothing.
    """

    name: str
    config: str
    platform: str | Pins | type[Any]
    device: str
    flow: Flow
    input_mhz: float
    clock_mhz: float
    bram: int | None = None
    links: tuple[LinkKind, ...] = (LinkKind.UART,)
    usb: tuple[UsbIdentity, ...] = ()
    ring: int = 2048
    seed: int = 1
    loader: str | None = None
    wiring: str = ""

    @property
    def builds_here(self) -> bool:
        """Whether pip's tools make its bitstream."""
        return self.flow is Flow.TRELLIS


def _ring(size: str) -> int:
    """Only the largest device has a block RAM to spare."""
    return 4096 if size == "85F" else 2048


def _ulx3s(size: str, array: str = "") -> Board:
    name = f"ulx3s-{size.lower()}{array}"
    return Board(
        name=name,
        config=name,
        platform=f"amaranth_boards.ulx3s:ULX3S_{size}_Platform",
        device=f"Lattice LFE5U-{size}-6BG381C",
        flow=Flow.TRELLIS,
        input_mhz=25.0,
        clock_mhz=50.0,
        bram=_SIZES[size],
        links=(LinkKind.UART, LinkKind.USB),
        usb=(UsbIdentity(0x0403, 0x6015, "ULX3S"), UsbIdentity(USB_VENDOR_ID, USB_PRODUCT_ID, USB_MANUFACTURER)),
        ring=_ring(size),
        seed=1 if size == "12F" else 2,  # those that were routed
        loader="ulx3s",
    )


def _arty(size: str, config: str) -> Board:
    return Board(
        name=f"arty-a7-{size}t",
        config=config,
        platform=f"amaranth_boards.arty_a7:ArtyA7_{size}Platform",
        device=f"AMD XC7A{size}T-1LCSG324",
        flow=Flow.VIVADO,
        input_mhz=100.0,
        clock_mhz=100.0,
        usb=(UsbIdentity(0x0403, 0x6010, "Digilent"),),
        loader=f"arty_a7_{size}t",
    )


def _ecpix5(size: str, config: str) -> Board:
    return Board(
        name=f"ecpix5-{size.lower()}",
        config=config,
        platform=f"amaranth_boards.ecpix5:ECPIX5{size[:2]}Platform",
        device=f"Lattice LFE5UM5G-{size}-8BG554",
        flow=Flow.TRELLIS,
        input_mhz=100.0,
        clock_mhz=50.0,
        bram=_SIZES[size],
        ring=_ring(size),
        loader="ecpix5",
        wiring="the serial port is the second one of the FTDI bridge on micro-USB; name it with --port",
    )


def _orangecrab(size: str) -> Board:
    return Board(
        name=f"orangecrab-{size.lower()}",
        config="ulx3s-85f" if size == "85F" else "ulx3s-12f",  # as _SMALL
        platform=f"amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_{size}Platform",
        device=f"Lattice LFE5U-{size}-8MG285C",
        flow=Flow.TRELLIS,
        input_mhz=48.0,
        clock_mhz=48.0,
        bram=_SIZES[size],
        links=(LinkKind.USB,),
        usb=(UsbIdentity(USB_VENDOR_ID, USB_PRODUCT_ID, USB_MANUFACTURER),),
        ring=_ring(size),
        loader="orangeCrab",
    )


# The configuration of the ULX3S-12F, whose FPGA is a 25F by its die: it routes, that of the ULX3S-25F does not yet.
_SMALL: dict[str, Any] = {"config": "ulx3s-12f", "flow": Flow.TRELLIS, "clock_mhz": 50.0, "bram": _SIZES["25F"]}
_SINGLE = (
    Board(
        name="icepi-zero",
        platform="amaranth_boards.icepi_zero:IcepiZero1_3Platform",
        device="Lattice LFE5U-25F-6BG256C",
        input_mhz=50.0,
        wiring="the serial port is that of its own USB bridge; name it with --port",
        **_SMALL,
    ),
    Board(
        name="colorlight-5a75b",
        platform="amaranth_boards.colorlight_5a75b_r7_0:Colorlight_5A75B_R70Platform",
        device="Lattice LFE5U-25F-6BG256C",
        input_mhz=25.0,
        loader="colorlight",
        wiring="version 7.0 has no serial port: connect a 3.3 V USB-serial bridge to J19, its TX to KEY+ (ball M13) "
        "and its RX to DATA_LED- (ball P11), and name it with --port",
        **_SMALL,
    ),
    Board(
        name="icesugar-pro",
        platform="amaranth_boards.icesugar_pro:ICESugarProPlatform",
        device="Lattice LFE5U-25F-6BG256C",
        input_mhz=25.0,
        wiring="load top.bit by dropping it on the iCELink drive; the serial port is iCELink's, name it with --port",
        **_SMALL,
    ),
    Board(
        name="colorlight-i5",
        platform=Pins(
            device="LFE5U-25F", package="BG381", speed="6", clock="P3", rx="H18", tx="J17", leds=("U16",),
            leds_inverted=True,
        ),
        device="Lattice LFE5U-25F-6BG381C",
        input_mhz=25.0,
        loader="colorlight-i5",
        wiring="the serial port is that of the extension board's debugger (balls H18, J17); name it with --port",
        **_SMALL,
    ),
)  # fmt: skip


BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        _ulx3s("12F"),
        _ulx3s("25F"),
        _ulx3s("85F"),
        _ulx3s("85F", "-row"),
        _ecpix5("45F", "ulx3s-25f"),
        _ecpix5("85F", "ulx3s-85f"),
        _orangecrab("25F"),
        _orangecrab("85F"),
        *_SINGLE,
        _arty("35", "ulx3s-25f"),
        _arty("100", "ulx3s-85f"),
    )
}


def lut_count(device: str) -> int:
    """LUT4 of a device by its name, of which it has as many flip-flops; 0 of one that is no ECP5."""
    size = _SIZE.search(device)
    return _LUTS.get(size[1], 0) if size else 0


def board(name: str) -> Board:
    """Board by name.

    Raises
    ------
    InputError
        If there is none of that name; names the nearest, and where to read on.
    """
    try:
        return BOARDS[name]
    except KeyError:
        near = difflib.get_close_matches(name, BOARDS, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"no board {name!r}; {meant}There are: {', '.join(BOARDS)}; for a board of your own give FILE.toml, see "
            "docs/boards.md"
        ) from None


def link_of(target: Board, name: str | None) -> LinkKind:
    """What a board is built with; None is its usual one.

    Raises
    ------
    InputError
        If the board does not have it.
    """
    kind = target.links[0] if name is None else LinkKind(name)
    if kind not in target.links:
        raise InputError(f"{target.name} has no {kind.value} link; it has: {', '.join(k.value for k in target.links)}")
    return kind


def uart_divisor(clock_mhz: float, baud: int | None) -> tuple[int, int]:
    """Clock cycles per UART bit, and the baud rate they are meant to give.

    Parameters
    ----------
    clock_mhz : float
        Clock of the overlay.
    baud : int or None
        None takes the fastest usual rate that the clock divides into.

    Raises
    ------
    InputError
        If the clock cannot make this rate within 1.5 %.
    """
    for rate in BAUD_RATES if baud is None else (baud,):
        divisor = round(clock_mhz * 1e6 / rate)
        if divisor >= _MIN_DIVISOR and abs(clock_mhz * 1e6 / divisor / rate - 1) <= _MAX_BAUD_ERROR:
            return divisor, rate
    wanted = "any usual baud rate" if baud is None else f"{baud} baud"
    raise InputError(
        f"a clock of {clock_mhz:g} MHz cannot make {wanted} within 1.5 %; choose another --clock or --baud"
    )
