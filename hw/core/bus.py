"""From the host bus to one leaf per region."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..bus import HostBus
from ..contract import OFFSET_BITS, REGION_BITS, WORD_BITS, Region
from ..signatures import READ_CYCLES, LocalBus

__all__ = ["BusDecoder", "leaf_name"]

_OPEN = (Region.CSR, Region.COUNTER)
_PROGRAM = (Region.DESC, Region.SLOT, Region.PARAM, Region.WEIGHT, Region.ACT, Region.COUNT)
_READ_ONLY = (Region.MEMBRANE, Region.COUNTER)


def leaf_name(region: Region) -> str:
    """Attribute of :class:`BusDecoder` for a region."""
    return region.name.lower()


def _is_one_of(region: Value, regions: tuple[Region, ...]) -> Value:
    return Cat(region == one for one in regions).any()


class BusDecoder(wiring.Component):
    """Two initiators, one request at a time, one leaf per region; a read takes four cycles and those of its leaf.

    A read of a region that does not exist, or that is closed, returns 0; such a write is dropped.

    Members
    -------
    host, check : In(HostBus)
        The link, and the sequencer's reader of the sections. They take turns when both want the bus.
    locked : In(1)
        The sequencer is running: of the host's requests only those to CSR and COUNTER are served.
    hold : In(1)
        Accept nothing, from the next cycle on.
    touched : Out(1)
        Pulse: a program memory is being written.
    csr, desc, slot, param, weight, act, count, membrane, counter : Out(LocalBus())
    """

    def __init__(self) -> None:
        leaves = {leaf_name(region): Out(LocalBus()) for region in Region}
        super().__init__(
            {
                "host": In(HostBus()),
                "check": In(HostBus()),
                "locked": In(1),
                "hold": In(1),
                "touched": Out(1),
                **leaves,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        address = Signal(OFFSET_BITS)
        region = Signal(REGION_BITS)
        w_data = Signal(WORD_BITS)
        for_check, prefer_check = Signal(), Signal()
        here = {one: Signal(name=f"here_{leaf_name(one)}") for one in Region}  # region == one
        read, write, answers = Signal(), Signal(), Signal()
        allowed = Signal()
        answer, left = Signal(WORD_BITS), Signal(range(max(READ_CYCLES.values()) + 1))

        read_cycles = Array(READ_CYCLES[Region(k)] if k in set(Region) else 0 for k in range(1 << len(region)))
        take_host, take_check, idle = Signal(), Signal(), Signal()
        held = Signal(init=1)  # `hold` a cycle later; a request taken meanwhile meets the reset as one before it
        m.d.sync += held.eq(self.hold)
        m.d.comb += [
            self.host.ready.eq(idle & ~held & ~(self.check.valid & prefer_check)),
            self.check.ready.eq(idle & ~held & ~(self.host.valid & ~prefer_check)),
            take_host.eq(self.host.valid & self.host.ready),
            take_check.eq(self.check.valid & self.check.ready),
        ]
        m.d.sync += [read.eq(0), write.eq(0)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                chosen = Mux(take_check, self.check.addr, self.host.addr)
                is_write = take_host & self.host.write
                top = chosen[OFFSET_BITS:]
                m.d.sync += [
                    address.eq(chosen[:OFFSET_BITS]),
                    region.eq(top),
                    *(here[one].eq(top == one) for one in Region),
                    w_data.eq(self.host.w_data),
                    for_check.eq(take_check),
                    allowed.eq(take_check | ~self.locked | _is_one_of(top, _OPEN)),
                ]
                with m.If(take_host | take_check):
                    m.d.sync += [prefer_check.eq(take_host), read.eq(~is_write), write.eq(is_write)]
                    m.next = "ISSUE"
            with m.State("ISSUE"):
                m.d.sync += [answers.eq(read), left.eq(read_cycles[region])]
                m.next = "ACCESS"
                # A write to CSR may change `locked`, on which the next request depends: it takes as long as a read.
                with m.If(write & (region != Region.CSR)):
                    m.next = "IDLE"
            with m.State("ACCESS"):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [self.host.r_valid.eq(answers & ~for_check), self.check.r_valid.eq(answers & for_check)]
                m.next = "IDLE"

        m.d.sync += self.touched.eq(write & allowed & _is_one_of(region, _PROGRAM))
        m.d.comb += [self.host.r_data.eq(answer), self.check.r_data.eq(answer)]
        said = self._leaves(m, (address, w_data), here, (read & allowed, write & allowed))
        m.d.sync += answer.eq(Mux(read | write, 0, answer | said))
        return m

    def _leaves(
        self, m: Module, request: tuple[Value, Value], chosen: dict[Region, Signal], access: tuple[Value, Value]
    ) -> Value:
        """Drive the leaves with address and data for a region; what the one that was read says, 0 in all other cycles.

        ``access``: read and write.

        Every leaf has registers of its own, loaded only for it, so that no net reaches all of them (and synthesis
        cannot make one of equal registers).
        """
        (address, w_data), (read, write) = request, access
        result: Value = Value.cast(0)
        for one in Region:
            leaf = getattr(self, leaf_name(one))
            here = chosen[one]
            was_read = Signal(READ_CYCLES[one], name=f"was_read_{leaf_name(one)}")
            m.d.sync += [
                leaf.w_en.eq(write & here if one not in _READ_ONLY else 0),
                leaf.r_en.eq(read & here),
                was_read.eq(Cat(leaf.r_en, was_read)),
            ]
            with m.If((read | write) & here):
                m.d.sync += [leaf.addr.eq(address), leaf.w_data.eq(w_data)]
            result = result | Mux(was_read[-1], leaf.r_data, 0)
        return result
