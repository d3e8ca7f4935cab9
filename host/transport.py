"""Byte transports under the link protocol: a serial port, or anything else that moves bytes both ways."""

from __future__ import annotations

import abc
import errno
import os
import time
from types import TracebackType
from typing import Self

import serial
from serial.tools import list_ports

from reverb_fpga.hw.errors import DeviceError

__all__ = ["SerialTransport", "Transport"]

WRITE_TIMEOUT = 10.0  # seconds until a port that takes no bytes is given up
POLL = 0.02  # seconds; how much later than asked for a read may return
CHUNK = 4096


class Transport(abc.ABC):
    """Moves bytes; knows nothing of frames.

    Every method raises :class:`DeviceError`, one line, when the other end is gone.

    Attributes
    ----------
    name : str
        What error messages call it.
    """

    name: str

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of ``data``."""

    @abc.abstractmethod
    def read(self, timeout: float) -> bytes:
        """What has arrived; waits at most ``timeout`` seconds for the first byte, returns none if there was none."""

    def clock(self) -> float:
        """Seconds by which ``timeout`` is measured; a simulated line may have a time of its own."""
        return time.monotonic()

    def discard(self) -> None:
        """Forget what has arrived so far."""
        for _ in range(16):  # a babbling line must not hold us here
            if not self.read(0.0):
                return

    def close(self) -> None:
        """Let go of the line. Closing twice is allowed; errors are not reported."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_such_port(port: str) -> DeviceError:
    known = ", ".join(sorted(entry.device for entry in list_ports.comports())) or "none"
    return DeviceError(f"no such port: {port}; serial ports here: {known}")


def _cannot_open(port: str, error: Exception) -> DeviceError:
    if not os.path.exists(port):
        return _no_such_port(port)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EPERM):
        return DeviceError(f"no permission to open {port}; join the group that owns it (often dialout)")
    if number in (errno.EBUSY, errno.EAGAIN):
        return DeviceError(f"{port} is in use by another program; close it")
    return DeviceError(f"cannot open {port} as a serial port: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class SerialTransport(Transport):
    """A serial port, 8N1 without handshake, or a pseudo-terminal.

    Whatever the serial library raises, which differs by system and driver, is one DeviceError here.

    Parameters
    ----------
    port : str
        For example ``/dev/ttyUSB0``.
    baud : int
        Any rate the port can do; must be that of the bitstream.

    Attributes
    ----------
    baud : int
    low_latency : bool
        The driver has been told not to hold short answers back; it may know no such thing.

    Raises
    ------
    DeviceError
        If the port does not exist, is in use, may not be opened, or cannot do the rate.
    """

    def __init__(self, port: str, baud: int) -> None:
        self.name = port
        self.baud = baud
        try:
            self._serial = serial.Serial(port, baud, timeout=POLL, write_timeout=WRITE_TIMEOUT, exclusive=True)
        except ValueError as error:
            raise DeviceError(f"{port} cannot run at {baud} baud: {_one_line(error)}") from None
        except Exception as error:
            raise _cannot_open(port, error) from None
        self.low_latency = self._ask_for_low_latency()

    def _ask_for_low_latency(self) -> bool:
        try:
            self._serial.set_low_latency_mode(True)
        except Exception:  # another system, a driver without it, or no permission: streaming does not need it
            return False
        return True

    def set_rate(self, baud: int) -> None:
        """Go on at another rate. Raises DeviceError if the port cannot do it."""
        try:
            if baud != self._serial.baudrate:
                self._serial.baudrate = baud
        except Exception as error:
            raise DeviceError(f"{self.name} cannot run at {baud} baud: {_one_line(error)}") from None
        self.baud = baud

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException:
            raise DeviceError(f"{self.name} takes no bytes; is a board attached and configured?") from None
        except Exception as error:
            raise self._lost(error) from None

    def read(self, timeout: float) -> bytes:
        deadline = self.clock() + timeout
        try:
            while True:
                if waiting := self._serial.in_waiting:
                    return bytes(self._serial.read(min(waiting, CHUNK)))
                if self.clock() >= deadline:
                    return b""
                if first := self._serial.read(1):  # blocks for POLL at most, returns at once when a byte comes
                    return bytes(first) + bytes(self._serial.read(min(self._serial.in_waiting, CHUNK)))
        except Exception as error:
            raise self._lost(error) from None

    def close(self) -> None:
        try:
            self._serial.close()
        except Exception:
            return  # the device is gone already, which is what was asked for

    def _lost(self, error: BaseException) -> DeviceError:
        return DeviceError(f"lost the connection to {self.name} ({_one_line(error)}); check the cable")
