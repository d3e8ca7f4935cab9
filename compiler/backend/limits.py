"""One wording for everything that does not fit."""

from __future__ import annotations

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["require_fit", "too_large"]

_HINTS = {"count words": "; they follow from image size and time steps, not from the channels"}


def too_large(config: Config, where: str, resource: str, needed: int, available: int) -> InputError:
    """The error that names the place, the resource and by how much it is exceeded."""
    return InputError(
        f"network too large for {config.name}: {where} needs {needed} {resource}, there are {available} "
        f"({needed - available} too many){_HINTS.get(resource, '')}"
    )


def require_fit(config: Config, where: str, resource: str, needed: int, available: int) -> None:
    """Raise :func:`too_large` if ``needed`` exceeds ``available``."""
    if needed > available:
        raise too_large(config, where, resource, needed, available)
