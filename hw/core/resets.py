"""Resets that reach thousands of flip-flops."""

from __future__ import annotations

from amaranth.hdl import Instance, Module, Signal, Value

from ..carry import Platform

__all__ = ["distribute"]


def distribute(m: Module, name: str, source: Value, platform: Platform) -> Signal:
    """``source`` as a net for thousands of loads.

    On ECP5 it goes through a DCCA to the global network: the reset of the data path has 14,000 loads, and as an
    ordinary net it was the longest path by far and congested the routing. Elsewhere a plain wire. No delay.

    Parameters
    ----------
    name : str
        Of the buffer, unique in ``m``.
    source : Value
        A register; logic before the buffer would lengthen the path.
    """
    net = Signal(name=name)
    if platform == "ecp5":
        m.submodules[f"{name}_buffer"] = Instance("DCCA", i_CLKI=source, i_CE=1, o_CLKO=net)
    else:
        m.d.comb += net.eq(source)
    return net
