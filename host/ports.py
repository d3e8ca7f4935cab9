"""Finds boards: which port, at which rate, and what is in the way where there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serial.tools import list_ports

from reverb_fpga.hw.boards.table import BAUD_RATES, BOARDS, LinkKind, UsbIdentity, uart_divisor
from reverb_fpga.hw.config import PRESETS
from reverb_fpga.hw.errors import DeviceError
from reverb_fpga.hw.usb_identity import USB_PRODUCT_ID, USB_VENDOR_ID

from .driver import Device
from .session import Identity, Timing, remedy
from .transport import SerialTransport

__all__ = ["AUTO", "Candidate", "candidates", "configuration_name", "connect", "likely_rates"]

AUTO = "auto"
_PROBE = Timing(response=0.3, hello_tries=2)  # of a rate that may be the wrong one


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A port that may be a board's.

    Parameters
    ----------
    port : str
    description : str
        What it says of itself on the USB.
    link : LinkKind
        A USB link has no rate.
    """

    port: str
    description: str
    link: LinkKind


def candidates() -> list[Candidate]:
    """Serial ports whose USB identity is that of a known board. Nothing is sent to any other device."""
    known = {identity for board in BOARDS.values() for identity in board.usb}
    found = []
    for entry in sorted(list_ports.comports(), key=lambda entry: str(entry.device)):
        says = f"{entry.manufacturer or ''} {entry.product or ''} {entry.description or ''}"
        if any(_matches(identity, entry.vid, entry.pid, says) for identity in known):
            ours = (entry.vid, entry.pid) == (USB_VENDOR_ID, USB_PRODUCT_ID)
            name = entry.product or entry.description or "no name"
            found.append(Candidate(entry.device, name, LinkKind.USB if ours else LinkKind.UART))
    return found


def _matches(identity: UsbIdentity, vendor: int | None, product: int | None, says: str) -> bool:
    return (vendor, product) == (identity.vendor, identity.product) and identity.text.lower() in says.lower()


def likely_rates() -> tuple[int, ...]:
    """Every rate that ``build`` chooses by itself; those of the boards at their usual clocks first."""
    usual = [uart_divisor(board.clock_mhz, None)[1] for board in BOARDS.values()]
    return tuple(dict.fromkeys([*usual, *BAUD_RATES]))


def configuration_name(digest: int) -> str:
    """Name of a configuration, or its digest if this version has none such."""
    return next((name for name, config in PRESETS.items() if config.digest == digest), f"{digest:016x}")


@contextmanager
def connect(
    port: str | None, baud: int | None, report: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[Device, Identity]]:
    """A device in a session, for the duration of the block.

    Parameters
    ----------
    port : str or None
        None or "auto": the first board that answers.
    baud : int or None
        None: whichever of :func:`likely_rates` it answers at.
    report : callable
        Told which port and rate are tried.

    Raises
    ------
    DeviceError
        If there is no board, or none answers; says for every port why.
    """
    device, identity = _find(baud, report) if port in (None, AUTO) else _answering(str(port), baud, report)
    with device:
        yield device, identity


def _find(baud: int | None, report: Callable[[str], None]) -> tuple[Device, Identity]:
    reasons = []
    for candidate in candidates():
        rate = 115_200 if candidate.link is LinkKind.USB else baud
        try:
            return _answering(candidate.port, rate, report)
        except DeviceError as error:
            reasons.append(str(error))
    if reasons:
        raise DeviceError("; ".join(reasons))
    others = ", ".join(sorted(str(entry.device) for entry in list_ports.comports())) or "none"
    raise DeviceError(
        f"no board found: no serial port here has a known board's USB identity (serial ports: {others}); plug it in, "
        "or name its port with --port"
    )


def _answering(port: str, baud: int | None, report: Callable[[str], None]) -> tuple[Device, Identity]:
    """The device behind a port, at the first rate at which it answers."""
    rates = likely_rates() if baud is None else (baud,)
    transport = SerialTransport(port, rates[0])
    refused: list[str] = []
    heard = 0
    try:
        for rate in rates:
            report(f"trying {port} at {rate} baud" if baud is None else f"connecting to {port}")
            try:
                transport.set_rate(rate)
            except DeviceError as error:
                refused.append(str(error))
                continue
            timing = Timing.at(rate)
            probe = dataclasses.replace(_PROBE, per_byte=timing.per_byte) if len(rates) > 1 else timing
            device = Device(transport, probe)
            if (identity := device.try_connect()) is not None:
                device.set_timing(timing)
                return device, identity
            heard += device.heard
        if refused and len(refused) == len(rates):
            raise DeviceError(refused[0])
        tried = ", ".join(map(str, rates))
        state = "powered and programmed" + (", and was its bitstream built for that rate?" if baud is not None else "?")
        raise DeviceError(f"no answer from {port} at {tried} baud; {remedy(heard, state)}")
    except BaseException:
        transport.close()
        raise
