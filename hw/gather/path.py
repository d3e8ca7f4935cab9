"""Data path of one bank: from the two issued events to two codes and two weight rows."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..contract import EVENT_VALUE_BITS
from ..memory import DualReadMemory
from ..signatures import event_layout
from .host import delayed_bits, memory_port_layout
from .shapes import act_addr_width, pair_layout, row_addr_width

__all__ = ["BankPath", "word_bits"]


def word_bits(config: Config) -> int:
    """Bits of the memories that hold a weight row: 32, or all lanes if there are fewer."""
    return min(32, config.lanes)


class BankPath(wiring.Component):
    """Fixed pipeline, never stalls. The answer to an issue comes ``delay`` cycles later.

    Members
    -------
    pair : In(pair_layout(config))
    pass_base : In
        Weight row of tap 0, index 0.
    w_en, w_addr, w_data : In
        Event to be stored; takes the place of the second event, which must not be valid in this cycle.
    host_act, host_weight : In(memory_port_layout(...))
    act_data : Out(16)
        Port B of the activation memory, for the host.
    weight_data : Out(ArrayLayout(word_bits, weight_words))
        Port B of the weight memory, for the host.
    x : Out(ArrayLayout(8, 2))
        Codes; 0 where there was no event.
    row : Out(ArrayLayout(lanes, 2))
    """

    delay = 4 + 2 * DualReadMemory.delay
    """Registers behind the queue, in front of the activations, behind the sum that is a weight row, in front of the
    weights; and the memories."""

    def __init__(self, config: Config) -> None:
        self.config = config
        events = event_layout().size
        super().__init__(
            {
                "pair": In(pair_layout(config)),
                "pass_base": In(row_addr_width(config)),
                "w_en": In(1),
                "w_addr": In(act_addr_width(config)),
                "w_data": In(events),
                "host_act": In(memory_port_layout(act_addr_width(config), events, 1)),
                "host_weight": In(memory_port_layout(row_addr_width(config), word_bits(config), config.weight_words)),
                "act_data": Out(events),
                "weight_data": Out(data.ArrayLayout(word_bits(config), config.weight_words)),
                "x": Out(data.ArrayLayout(EVENT_VALUE_BITS, 2)),
                "row": Out(data.ArrayLayout(config.lanes, 2)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = self._activations(m)
        bases, valid = self._bases(m)
        addrs = []
        for port in range(2):
            row = Signal(row_addr_width(self.config), name=f"row_addr_{port}")
            code = Signal(EVENT_VALUE_BITS, name=f"code_{port}")
            m.d.sync += [
                row.eq(bases[port] + words[port].index),
                code.eq(Mux(valid[port], words[port].value, 0)),
            ]
            addrs.append(row)
            m.d.comb += self.x[port].eq(delayed_bits(m, code, 1 + DualReadMemory.delay, f"code_{port}"))
        self._weights(m, addrs)
        return m

    def _activations(self, m: Module) -> list[data.View]:
        """Reads both events; writes one if there is one to be written. Host accesses go first."""
        width = event_layout().size
        m.submodules.activations = memory = DualReadMemory(width, self.config.act_words)
        issued, host = Signal.like(self.pair), self.host_act
        write, w_addr, w_data = Signal(), Signal.like(self.w_addr), Signal.like(self.w_data)
        m.d.sync += [issued.eq(self.pair), write.eq(self.w_en), w_addr.eq(self.w_addr), w_data.eq(self.w_data)]
        first, second = self._places(issued)
        m.d.sync += [
            memory.a_en.eq(issued.valid[0]),
            memory.a_addr.eq(first.addr),
            memory.b_addr.eq(
                Mux(host.active, host.addr, Mux(write, w_addr, (second.addr + ~issued.alone)[: len(w_addr)]))
            ),
            memory.w_en.eq(write | host.w_en),
            memory.w_data.eq(Mux(host.active, host.w_data, w_data)),
        ]
        m.d.comb += self.act_data.eq(memory.b_data)
        return [data.View(event_layout(), memory.a_data), data.View(event_layout(), memory.b_data)]

    @staticmethod
    def _places(issued: data.View) -> tuple[data.View, data.View]:
        """Of the first event, and that with whose address the second event's begins."""
        layout = issued.even.shape()
        return tuple(
            data.View(layout, Mux(odd, issued.odd.as_value(), issued.even.as_value()))
            for odd in (issued.odd_first, issued.odd_first ^ issued.alone)
        )

    def _bases(self, m: Module) -> tuple[list[Value], list[Value]]:
        """Weight row of index 0 and valid bit of each event, when its word comes out of the activation memory."""
        issued, base = Signal.like(self.pair), delayed_bits(m, self.pass_base, 2, "base")
        m.d.sync += issued.eq(self.pair)
        sums, valids = [], []
        for port, place in enumerate(self._places(issued)):
            tap, total = Signal.like(place.tap, name=f"tap_{port}"), Signal.like(place.tap, name=f"total_{port}")
            m.d.sync += [tap.eq(place.tap), total.eq(base + tap)]
            sums.append(delayed_bits(m, total, DualReadMemory.delay - 1, f"base_{port}"))
            valids.append(delayed_bits(m, issued.valid[port], 1 + DualReadMemory.delay, f"valid_{port}"))
        return sums, valids

    def _weights(self, m: Module, addrs: list[Signal]) -> None:
        config, host = self.config, self.host_weight
        memories = config.weight_memories
        # nothing but registers in front of the block RAMs of a bank, which lie all over the device
        a_addr, b_addr = (Signal.like(addr, name=f"weight_addr_{port}") for port, addr in zip("ab", addrs, strict=True))
        m.d.sync += [a_addr.eq(addrs[0]), b_addr.eq(Mux(host.active, host.addr, addrs[1]))]
        rows = [self._memory(m, word, a_addr, b_addr) for word in range(memories)]  # bus words beyond them read as 0
        if config.weight_strip:  # its rows follow; the other lanes of a pass in them are not drained
            strip = self._memory(m, memories, a_addr, b_addr)
            beyond = delayed_bits(m, Cat(a_addr[-1], b_addr[-1]), DualReadMemory.delay, "in_strip")
            rows[0] = tuple(Mux(beyond[port], strip[port], rows[0][port]) for port in range(2))
        m.d.comb += [self.row[port].eq(Cat(words[port] for words in rows)) for port in range(2)]

    def _memory(self, m: Module, word: int, a_addr: Signal, b_addr: Signal) -> tuple[Value, ...]:
        """One word of all rows, or of those of the strip; what both ports read."""
        config, host = self.config, self.host_weight
        m.submodules[f"weights_{word}"] = memory = DualReadMemory(word_bits(config), config.weight_rows)
        m.d.comb += [
            memory.a_addr.eq(a_addr),
            memory.b_addr.eq(b_addr),
            self.weight_data[word].eq(memory.b_data),
        ]
        m.d.sync += [
            memory.a_en.eq(~host.active),
            memory.w_en.eq(host.w_en[word]),
            memory.w_data.eq(host.w_data),
        ]
        return memory.a_data, memory.b_data
