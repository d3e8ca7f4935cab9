"""Several small blocks as one component, so that one compilation serves all their benches."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

__all__ = ["SideBySide"]


class SideBySide(wiring.Component):
    """Blocks that share nothing but the clock. A port is called ``block_port``.

    Parameters
    ----------
    blocks : mapping of str to Component
    """

    def __init__(self, blocks: Mapping[str, wiring.Component]) -> None:
        self._blocks = dict(blocks)
        super().__init__({name: Out(block.signature) for name, block in self._blocks.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, block in self._blocks.items():
            m.submodules[name] = block
            connect(m, flipped(getattr(self, name)), block)
        return m
