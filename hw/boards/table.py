"""The boards this project knows, as plain data."""

from __future__ import annotations

import dataclasses
import enum

from ..errors import InputError
from ..usb_identity import USB_MANUFACTURER, USB_PRODUCT_ID, USB_VENDOR_ID

__all__ = ["BAUD_RATES", "BOARDS", "Board", "Flow", "LinkKind", "UsbIdentity", "board", "link_of", "uart_divisor"]

BAUD_RATES = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 500_000, 250_000, 115_200)
_MAX_BAUD_ERROR = 0.015  # half a bit over ten bits is 5 %; leave most of it to the other end
_MIN_DIVISOR = 8


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
class Board:
    """One board.

    Parameters
    ----------
    name : str
        What ``--board`` takes.
    config : str
        Preset of :data:`reverb_fpga.hw.config.PRESETS` that is built for it.
    platform : str
        ``module:Class`` of its amaranth-boards platform.
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
    loader : str or None
        Board name that openFPGALoader knows.
    """

    name: str
    config: str
    platform: str
    device: str
    flow: Flow
    input_mhz: float
    clock_mhz: float
    bram: int | None = None
    links: tuple[LinkKind, ...] = (LinkKind.UART,)
    usb: tuple[UsbIdentity, ...] = ()
    ring: int = 2048
    loader: str | None = None

    @property
    def builds_here(self) -> bool:
        """Whether pip's tools make its bitstream."""
        return self.flow is Flow.TRELLIS


def _ulx3s(size: str, bram: int) -> Board:
    return Board(
        name=f"ulx3s-{size.lower()}",
        config=f"ulx3s-{size.lower()}",
        platform=f"amaranth_boards.ulx3s:ULX3S_{size}_Platform",
        device=f"Lattice LFE5U-{size}-6BG381C",
        flow=Flow.TRELLIS,
        input_mhz=25.0,
        clock_mhz=50.0,
        bram=bram,
        links=(LinkKind.UART, LinkKind.USB),
        usb=(UsbIdentity(0x0403, 0x6015, "ULX3S"), UsbIdentity(USB_VENDOR_ID, USB_PRODUCT_ID, USB_MANUFACTURER)),
        ring=4096 if size == "85F" else 2048,
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


BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        _ulx3s("12F", 56),  # the 12F is a 25F die: 56 block RAMs, all usable with the open tools
        _ulx3s("25F", 56),
        _ulx3s("85F", 208),
        _arty("35", "ulx3s-25f"),
        _arty("100", "ulx3s-85f"),
    )
}


def board(name: str) -> Board:
    """Board by name.

    Raises
    ------
    InputError
        If there is none of that name; lists those there are.
    """
    try:
        return BOARDS[name]
    except KeyError:
        raise InputError(f"no board {name!r}; there are: {', '.join(BOARDS)}") from None


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
