"""Data path of one bank: from the two issued events to two codes and two weight rows."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..contract import EVENT_VALUE_BITS
from ..memory import DualReadMemory
from ..signatures import event_layout
from .host import memory_port_layout
from .shapes import act_addr_width, event_address, row_addr_width

__all__ = ["BankPath", "word_bits"]


def word_bits(config: Config) -> int:
    """Bits of the memories that hold a weight row: 32, or all lanes if there are fewer."""
    return min(32, config.lanes)


class BankPath(wiring.Component):
    """Fixed pipeline, never stalls. The answer to an issue comes ``delay`` cycles later.

    Members
    -------
    event : In(ArrayLayout(event_address(config), 2))
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

    delay = 2 + 2 * DualReadMemory.delay

    def __init__(self, config: Config) -> None:
        self.config = config
        events = event_layout().size
        super().__init__(
            {
                "event": In(data.ArrayLayout(event_address(config), 2)),
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
            for k in range(DualReadMemory.delay):
                later = Signal(EVENT_VALUE_BITS, name=f"code_{port}_{k}")
                m.d.sync += later.eq(code)
                code = later
            m.d.comb += self.x[port].eq(code)
        self._weights(m, addrs)
        return m

    def _activations(self, m: Module) -> list[data.View]:
        """Reads both events; writes one if there is one to be written. Host accesses go first."""
        width = event_layout().size
        m.submodules.activations = memory = DualReadMemory(width, self.config.act_words)
        addr_a, addr_b = Signal(act_addr_width(self.config)), Signal(act_addr_width(self.config))
        read_a, write = Signal(), Signal()
        w_data = Signal(width)
        m.d.sync += [
            read_a.eq(self.event[0].valid),
            addr_a.eq(self.event[0].addr),
            addr_b.eq(Mux(self.w_en, self.w_addr, self.event[1].addr)),
            write.eq(self.w_en),
            w_data.eq(self.w_data),
        ]
        host = self.host_act
        m.d.comb += [
            memory.a_en.eq(read_a),
            memory.a_addr.eq(addr_a),
            memory.b_addr.eq(Mux(host.active, host.addr, addr_b)),
            memory.w_en.eq(write | host.w_en),
            memory.w_data.eq(Mux(host.active, host.w_data, w_data)),
            self.act_data.eq(memory.b_data),
        ]
        return [data.View(event_layout(), memory.a_data), data.View(event_layout(), memory.b_data)]

    def _bases(self, m: Module) -> tuple[list[Signal], list[Signal]]:
        """Weight row of index 0 and valid bit of each event, when its word comes out of the activation memory."""
        issued = Signal.like(self.event)
        base = Signal.like(self.pass_base)
        m.d.sync += [issued.eq(self.event), base.eq(self.pass_base)]
        sums, valids = [], []
        for port in range(2):
            total = Signal(row_addr_width(self.config), name=f"base_{port}_0")
            valid = Signal(name=f"valid_{port}_0")
            m.d.sync += [total.eq(base + issued[port].tap), valid.eq(issued[port].valid)]
            for k in range(1, DualReadMemory.delay):
                total_later = Signal.like(total, name=f"base_{port}_{k}")
                valid_later = Signal(name=f"valid_{port}_{k}")
                m.d.sync += [total_later.eq(total), valid_later.eq(valid)]
                total, valid = total_later, valid_later
            sums.append(total)
            valids.append(valid)
        return sums, valids

    def _weights(self, m: Module, addrs: list[Signal]) -> None:
        config = self.config
        memories = config.weight_memories
        rows = [self._memory(m, word, addrs) for word in range(memories)]  # bus words beyond them read as 0
        if config.weight_strip:  # its rows follow; the other lanes of a pass in them are not drained
            strip = self._memory(m, memories, addrs)
            beyond = [addr[-1] for addr in addrs]
            for cycle in range(DualReadMemory.delay):
                later = Signal(2, name=f"in_strip_{cycle}")
                m.d.sync += later.eq(Cat(*beyond))
                beyond = list(later)
            rows[0] = tuple(Mux(beyond[port], strip[port], rows[0][port]) for port in range(2))
        m.d.comb += [self.row[port].eq(Cat(words[port] for words in rows)) for port in range(2)]

    def _memory(self, m: Module, word: int, addrs: list[Signal]) -> tuple[Value, ...]:
        """One word of all rows, or of those of the strip; what both ports read."""
        config, host = self.config, self.host_weight
        m.submodules[f"weights_{word}"] = memory = DualReadMemory(word_bits(config), config.weight_rows)
        width = len(memory.a_addr)
        m.d.comb += [
            memory.a_en.eq(~host.active),
            memory.a_addr.eq(addrs[0][:width]),
            memory.b_addr.eq(Mux(host.active, host.addr[:width], addrs[1][:width])),
            memory.w_en.eq(host.w_en[word]),
            memory.w_data.eq(host.w_data),
            self.weight_data[word].eq(memory.b_data),
        ]
        return memory.a_data, memory.b_data
