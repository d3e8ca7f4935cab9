"""One host bus for two initiators."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..bus import HostBus

__all__ = ["BusArbiter"]


class BusArbiter(wiring.Component):
    """Passes the requests of two initiators on, one at a time. A request may be withdrawn.

    Members
    -------
    first, second : In(HostBus)
        ``first`` goes first when both want the bus.
    bus : Out(HostBus)
    """

    def __init__(self) -> None:
        super().__init__({"first": In(HostBus()), "second": In(HostBus()), "bus": Out(HostBus())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reading, for_second = Signal(), Signal()  # a read has not been answered yet; whose it is
        bus = self.bus
        choose_second = ~self.first.valid & self.second.valid
        for port in (self.first, self.second):
            m.d.comb += port.r_data.eq(bus.r_data)
        m.d.comb += [
            self.first.r_valid.eq(bus.r_valid & ~for_second),
            self.second.r_valid.eq(bus.r_valid & for_second),
        ]
        with m.If(~reading):
            for chosen, port in ((~choose_second, self.first), (choose_second, self.second)):
                with m.If(chosen):
                    m.d.comb += [
                        bus.valid.eq(port.valid),
                        bus.write.eq(port.write),
                        bus.addr.eq(port.addr),
                        bus.w_data.eq(port.w_data),
                        port.ready.eq(bus.ready),
                    ]
        with m.If(bus.r_valid):
            m.d.sync += reading.eq(0)
        with m.If(bus.valid & bus.ready & ~bus.write):
            m.d.sync += [reading.eq(1), for_second.eq(choose_second)]
        return m
