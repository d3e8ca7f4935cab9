"""Networks of binary weights and real-valued spikes on FPGAs, from Python: ``import reverb_fpga as rf``.

``rf.load(NAME or FILE)`` is a compiled model, ``rf.compile(MODULE or CHECKPOINT, SAMPLES)`` makes one, ``rf.devices()``
are the boards that are attached. Importing this imports neither torch nor amaranth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverb_fpga.host.api import Input, Model, compile, devices, load

__all__ = ["Input", "Model", "__version__", "compile", "devices", "load"]

_LAZY = ("Input", "Model", "compile", "devices", "load")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("reverb-fpga")
    if name in _LAZY:
        from reverb_fpga.host import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
