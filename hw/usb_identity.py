"""How an overlay with a USB link names itself to its host."""

from __future__ import annotations

__all__ = ["USB_MANUFACTURER", "USB_PRODUCT", "USB_PRODUCT_ID", "USB_VENDOR_ID"]

USB_VENDOR_ID = 0x1209  # pid.codes; this product of it is for tests and for whoever has none of their own
USB_PRODUCT_ID = 0x0001
USB_MANUFACTURER = "reverb-fpga"  # tells it from others with that number
USB_PRODUCT = "reverb-fpga overlay"
