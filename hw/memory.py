"""What memories are made of; block RAM with two read ports, one of which can write, as true dual-port ones offer it."""

from __future__ import annotations

from amaranth.hdl import Assert, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

__all__ = ["BLOCK", "DISTRIBUTED", "SYNTHESIS_SCRIPT", "DualReadMemory", "segments"]

DISTRIBUTED = {"ram_style": "distributed"}
"""Attributes of a memory that must not take block RAM, of which there is least."""

BLOCK = {"ram_style": "block"}
"""Attributes of a memory that must not take logic."""

_RAM_NAME = "dual_read_ram"
_SMALLEST_SEGMENT = 1024  # deeper than wide beyond this: a DP16KD is 1024 x 18 up to 16384 x 1

SYNTHESIS_SCRIPT = f"""\
setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:MEMID=*{_RAM_NAME}* %i
chformal -remove
"""
"""Yosys commands to run after reading the design and before ``synth_ecp5``.

Without the first, yosys surrounds every memory that is written with logic that makes a read of the address being
written return the old data. Nothing here does that, and simulation asserts it (the second command drops the assertion).
"""


def segments(depth: int) -> list[tuple[int, int]]:
    """Split ``depth`` words into segments ``(base, words)``: falling powers of two, and a remainder below 1024 words.

    Each power of two uses block RAMs as deep as the segment and narrow; so the output multiplexer has as many inputs
    as there are segments, not one per 1024 words. 7168 words: 4096 + 2048 + 1024.
    """
    out = []
    base = 0
    while base < depth:
        left = depth - base
        words = 1 << (left.bit_length() - 1)
        if words < _SMALLEST_SEGMENT:
            words = left
        out.append((base, words))
        base += words
    return out


class DualReadMemory(wiring.Component):
    """Port A reads; port B reads or writes at one address. Data come ``delay`` cycles after the address.

    They come out of the block RAMs' own output registers (``hw/boards/netlist.py`` puts them there on ECP5), behind
    which there is only the choice among the segments.

    Reading an address in the cycle in which it is written is an error (asserted in simulation): block RAM returns
    garbage.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words. Addresses beyond it read garbage and must not be written.

    Members
    -------
    a_en, a_addr : In
        Read on port A. ``a_data`` is only meaningful ``delay`` cycles after a cycle with ``a_en``.
    b_addr : In
        Address of port B; ``b_data`` follows, except of a cycle with ``w_en``.
    w_en, w_data : In
        Write ``w_data`` at ``b_addr``.
    a_data, b_data : Out(width)
    """

    delay = 2

    def __init__(self, width: int, depth: int) -> None:
        self.width = width
        self.depth = depth
        addr_width = bits_for(depth - 1)
        super().__init__(
            {
                "a_en": In(1),
                "a_addr": In(addr_width),
                "a_data": Out(width),
                "b_addr": In(addr_width),
                "b_data": Out(width),
                "w_en": In(1),
                "w_data": In(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a_parts, b_parts = [], []
        for number, (base, words) in enumerate(segments(self.depth)):
            m.submodules[f"{_RAM_NAME}_{number}"] = ram = Memory(shape=self.width, depth=words, init=[])
            a_port, b_port, w_port = ram.read_port(), ram.read_port(), ram.write_port()
            low = bits_for(words - 1)
            here = Signal(name=f"here_{number}")
            # Without a reset and with nothing between: these become the output registers of the block RAMs.
            a_word, b_word = (Signal(self.width, name=f"{port}_word_{number}", reset_less=True) for port in "ab")
            # Bases are multiples of their (power of two) size, so a segment is recognised by its upper address bits.
            m.d.comb += [
                here.eq(self.b_addr[low:] == base >> low),
                a_port.addr.eq(self.a_addr[:low]),
                a_port.en.eq(1),
                b_port.addr.eq(self.b_addr[:low]),
                b_port.en.eq(~w_port.en),
                w_port.addr.eq(self.b_addr[:low]),
                w_port.en.eq(self.w_en & here),
                w_port.data.eq(self.w_data),
            ]
            m.d.sync += [a_word.eq(a_port.data), b_word.eq(b_port.data)]
            a_parts.append(a_word)
            b_parts.append(b_word)
        m.d.comb += [
            self.a_data.eq(self._select(m, "a", self.a_addr, a_parts)),
            self.b_data.eq(self._select(m, "b", self.b_addr, b_parts)),
        ]
        m.d.sync += Assert(
            ~(self.a_en & self.w_en & (self.a_addr == self.b_addr)), "read of an address that is being written"
        )
        return m

    def _select(self, m: Module, name: str, addr: Signal, parts: list[Signal]) -> Value:
        """Output of the segment that was addressed ``delay`` cycles ago."""
        lows = [bits_for(words - 1) for _, words in segments(self.depth)]
        hits: Value = Cat(addr[low:] == base >> low for low, (base, _) in zip(lows, segments(self.depth), strict=True))
        for cycle in range(self.delay):
            flags = Signal(len(parts), name=f"{name}_segment_{cycle}", reset_less=True)
            m.d.sync += flags.eq(hits)
            hits = flags
        chosen: Value = parts[-1]
        for number in reversed(range(len(parts) - 1)):
            chosen = Mux(hits[number], parts[number], chosen)
        return chosen
