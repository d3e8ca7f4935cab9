"""Errors a user can cause or meet. Each is one clear line; the exit code tells its class.

Exit codes: 1 device or link, 2 bad input or usage, 3 gateware build or environment, 130 interrupted.
"""

from __future__ import annotations

__all__ = ["BuildError", "DeviceError", "EnvironmentMissing", "InputError", "Interrupted", "ReverbError"]


class ReverbError(Exception):
    """Base of every error that is reported as one line, without a traceback.

    Attributes
    ----------
    exit_code : int
        What the command exits with.
    """

    exit_code = 2


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
