"""Errors a user can cause or meet. Each is one clear line; the exit code tells its class.

Exit codes: 1 device or link, 2 bad input or usage, 3 gateware build or environment; 128 and a signal's number where one
ended the command (130: Ctrl-C).
"""

from __future__ import annotations

__all__ = ["BuildError", "DeviceError", "EnvironmentMissing", "InputError", "Interrupted", "ReverbError", "printable"]


class ReverbError(Exception):
    """Base of every error that is reported as one line, without a traceback.

    Attributes
    ----------
    exit_code : int
        What the command exits with.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable(super().__str__())  # names in it come from strangers


class InputError(ReverbError):
    """A file, option, network or program that cannot be used; says what is wrong, where, and what to do."""

    exit_code = 2


class DeviceError(ReverbError):
    """The board, the link or the running program failed."""

    exit_code = 1


class BuildError(ReverbError):
    """Synthesis, place and route or simulation build failed."""

    exit_code = 3


class EnvironmentMissing(BuildError):
    """A package or tool that this command needs is not installed; says how to install it."""


class Interrupted(ReverbError):
    """The user stopped a long command; says what was kept and how to go on."""

    exit_code = 130


def printable(text: str) -> str:
    """`text` on one line and harmless to a terminal, for names that strangers chose.

    Control and format characters (escape sequences, line feeds, reversals of the writing direction) appear as Python
    writes them, and bytes of file names that are not UTF-8 as ``\\xNN``.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    # how Python keeps the bytes of a file name that it cannot decode
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode()
