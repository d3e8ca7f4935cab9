"""USB full speed: a CDC-ACM device, a serial port to every host without a driver of ours."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from ..signatures import byte_stream
from ..usb_identity import USB_MANUFACTURER, USB_PRODUCT, USB_PRODUCT_ID, USB_VENDOR_ID
from .signatures import received_bytes

__all__ = ["UsbPhy"]

_DEPTH = 16  # bytes, either way


class UsbPhy(wiring.Component):
    """The link's bytes on a USB's pins, or on UTMI.

    A frame of the link ends a transfer, so nothing waits for a packet to fill. When the link's bytes are not taken, the
    host's are refused (NAK) and come again: nothing is lost.

    Runs in domains ``usb`` (12 MHz) and ``usb_io`` (48 MHz, in phase with it), and ``sync``, which may have any rate.

    Parameters
    ----------
    bus : object
        What LUNA's ``USBDevice`` takes: pins ``d_p``, ``d_n``, ``pullup``, or a UTMI interface.

    Members
    -------
    received : Out(received bytes)
    bytes : In(byte stream)
    """

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        super().__init__({"received": Out(received_bytes()), "bytes": In(byte_stream())})

    def elaborate(self, platform: object) -> Module:
        from luna.full_devices import USBSerialDevice

        m = Module()
        m.submodules.device = device = USBSerialDevice(
            bus=self._bus,
            idVendor=USB_VENDOR_ID,
            idProduct=USB_PRODUCT_ID,
            manufacturer_string=USB_MANUFACTURER,
            product_string=USB_PRODUCT,
        )
        m.submodules.arriving = arriving = fifo.AsyncFIFOBuffered(
            width=8, depth=_DEPTH, r_domain="sync", w_domain="usb"
        )
        m.submodules.leaving = leaving = fifo.AsyncFIFOBuffered(width=9, depth=_DEPTH, r_domain="usb", w_domain="sync")
        m.d.comb += [
            device.connect.eq(1),
            arriving.w_data.eq(device.rx.payload),
            arriving.w_en.eq(device.rx.valid),
            device.rx.ready.eq(arriving.w_rdy),
            self.received.valid.eq(arriving.r_rdy),
            self.received.payload.data.eq(arriving.r_data),
            arriving.r_en.eq(self.received.ready),
        ]
        inside = Signal()  # of a frame: the next separator ends it
        ends = inside & (self.bytes.payload == 0)
        m.d.comb += [
            leaving.w_data.eq(Cat(self.bytes.payload, ends)),
            leaving.w_en.eq(self.bytes.valid),
            self.bytes.ready.eq(leaving.w_rdy),
            device.tx.payload.eq(leaving.r_data[:8]),
            device.tx.last.eq(leaving.r_data[8]),
            device.tx.valid.eq(leaving.r_rdy),
            leaving.r_en.eq(device.tx.ready),
        ]
        with m.If(self.bytes.valid & self.bytes.ready):
            m.d.sync += inside.eq(self.bytes.payload != 0)
        return m
