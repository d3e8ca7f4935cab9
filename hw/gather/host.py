"""Host-bus leaf in front of a group of memories, one per bank (and per 32-bit word of a row)."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..memory import DualReadMemory
from ..signatures import LocalBus

__all__ = ["HostLeaf", "memory_port_layout"]


def memory_port_layout(addr_width: int, width: int, memories: int) -> data.StructLayout:
    """What the host wants of the port B of some memories with a common address."""
    return data.StructLayout({"active": 1, "addr": addr_width, "w_en": memories, "w_data": width})


class HostLeaf(wiring.Component):
    """Splits an offset ``(row * banks + bank) * words + word``; has a set of registers for each bank, on both ways.

    The banks lie all over the device: their registers, loaded only for them, keep every net short.

    Parameters
    ----------
    banks, words : int
        Groups of memories, and memories of a group. Powers of two.
    addr_width : int
        Bits of a row number; higher bits are ignored.
    width : int
        Bits of a word, at most 32.

    Members
    -------
    bus : In(LocalBus())
        Answers ``read_cycles`` after the request.
    port : Out(ArrayLayout(memory_port_layout(addr_width, width, words), banks))
        What each bank is to do with its port B in the next cycle; to be followed while ``active``.
    r_data : In(ArrayLayout(width, banks * words))
    """

    read_cycles = DualReadMemory.delay + 4  # to the bank's registers, the memories', from them, all banks together

    def __init__(self, banks: int, words: int, addr_width: int, width: int) -> None:
        self.banks, self.words = banks, words
        self._addr_width, self._width = addr_width, width
        super().__init__(
            {
                "bus": In(LocalBus()),
                "port": Out(data.ArrayLayout(memory_port_layout(addr_width, width, words), banks)),
                "r_data": In(data.ArrayLayout(width, banks * words)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word_bits = exact_log2(self.words)
        word = self.bus.addr[:word_bits]
        bank = self.bus.addr[word_bits:][: exact_log2(self.banks)]
        row = self.bus.addr[word_bits + exact_log2(self.banks) :]
        answer: Value = Const(0, self._width)
        for number in range(self.banks):
            here, port = Signal(name=f"here_{number}"), self.port[number]
            m.d.comb += here.eq((self.bus.r_en | self.bus.w_en) & (bank == number if self.banks > 1 else 1))
            m.d.sync += [port.active.eq(here), port.w_en.eq(Mux(here & self.bus.w_en, 1 << word, 0))]
            with m.If(here):
                m.d.sync += [port.addr.eq(row), port.w_data.eq(self.bus.w_data)]
            answer = answer | self._picked(m, number, here & self.bus.r_en, word)
        m.d.sync += self.bus.r_data.eq(answer)
        return m

    def _picked(self, m: Module, number: int, asked: Value, word: Value) -> Signal:
        """The word of one bank that was asked for, 0 if none was."""
        cycles = DualReadMemory.delay + 2
        was_asked = delayed_bits(m, asked, cycles, f"asked_{number}")
        which = delayed_bits(m, word, cycles, f"word_{number}")
        words = [self.r_data[number * self.words + k] for k in range(self.words)]
        picked = Signal(self._width, name=f"picked_{number}", reset_less=True)
        m.d.sync += picked.eq(Mux(was_asked, Array(words)[which] if self.words > 1 else words[0], 0))
        return picked


def delayed_bits(m: Module, value: Value, cycles: int, name: str) -> Value:
    """``value`` as it was ``cycles`` clock cycles ago."""
    for cycle in range(cycles):
        later = Signal(len(value), name=f"{name}_{cycle}")
        m.d.sync += later.eq(value)
        value = later
    return value
