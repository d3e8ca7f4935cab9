"""The overlay's clock and reset on ECP5: EHXPLLL from the crystal, reset held until it has locked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Signal, Value
from amaranth.lib import io
from amaranth.lib.cdc import AsyncFFSynchronizer, ResetSynchronizer

from ..core.resets import distribute
from ..errors import InputError

__all__ = ["Ecp5Clock", "Ecp5UsbClock", "PllSettings", "solve_pll"]

_VCO_MHZ = (400.0, 800.0)
_PFD_MHZ = 3.125
_TOLERANCE = 2e-5  # a crystal is no better; what an error message names, in three places, can be asked for
_USB_VCO_MHZ = 480.0
_USB_FEEDBACK_MHZ = 60.0  # what is fed back: a multiple of what the crystal divides into
_USB_MHZ = {"usb_io": 48.0, "usb": 12.0}


@dataclasses.dataclass(frozen=True)
class PllSettings:
    """Dividers of an EHXPLLL that feeds back its first output.

    ``clock = input / input_div * feedback_div``; the oscillator runs at ``clock * output_div``.
    """

    input_mhz: float
    clock_mhz: float
    input_div: int
    feedback_div: int
    output_div: int

    @property
    def vco_mhz(self) -> float:
        """Frequency of the oscillator, 400 to 800 MHz."""
        return self.clock_mhz * self.output_div


def solve_pll(input_mhz: float, clock_mhz: float) -> PllSettings:
    """Dividers that make exactly ``clock_mhz``, with the oscillator as near the middle of its range as they allow.

    Raises
    ------
    InputError
        If there are none; says which frequencies nearby are possible.
    """
    found: list[PllSettings] = []
    nearest: set[float] = set()
    for input_div in range(1, int(input_mhz / _PFD_MHZ) + 1):
        feedback = round(clock_mhz / input_mhz * input_div)
        for feedback_div in {max(1, feedback - 1), max(1, feedback), feedback + 1}:
            made = input_mhz / input_div * feedback_div
            divs = [d for d in range(1, 129) if _VCO_MHZ[0] <= made * d <= _VCO_MHZ[1]]
            if not divs or feedback_div > 128:
                continue
            nearest.add(round(made, 3))
            if abs(made / clock_mhz - 1) < _TOLERANCE:
                found += [PllSettings(input_mhz, clock_mhz, input_div, feedback_div, d) for d in divs]
    if not found:
        hint = ", ".join(f"{f:g}" for f in sorted(nearest, key=lambda f: abs(f - clock_mhz))[:4])
        raise InputError(f"the PLL cannot make {clock_mhz:g} MHz from {input_mhz:g} MHz; near it: {hint or 'nothing'}")
    return min(found, key=lambda s: (s.input_div, abs(s.vco_mhz - 600.0)))


def _pll(
    settings: PllSettings, crystal: Value, clock: Value, locked: Signal, others: Mapping[str, str] | None = None
) -> Instance:
    """An EHXPLLL that makes ``clock``, which it feeds back.

    ``others``: further outputs by the name of the pin, each of which drives the domain of that name; all rise together.
    """
    phase = (settings.output_div - 1) // 2
    arguments: dict[str, Any] = {}
    if others:
        phase = settings.output_div - 1
        arguments |= {f"p_OUTDIVIDER_MUX{letter}": f"DIV{letter}" for letter, _ in zip("BCD", others, strict=False)}
    for pin, domain in (others or {}).items():
        divider = round(settings.vco_mhz / _USB_MHZ[domain])
        arguments |= {
            f"a_FREQUENCY_PIN_{pin}": f"{_USB_MHZ[domain]:g}",
            f"p_{pin}_ENABLE": "ENABLED",
            f"p_{pin}_DIV": divider,
            f"p_{pin}_CPHASE": divider - 1,
            f"p_{pin}_FPHASE": 0,
            f"o_{pin}": ClockSignal(domain),
        }
    return Instance(
        "EHXPLLL",
        a_FREQUENCY_PIN_CLKI=f"{settings.input_mhz:g}",
        a_FREQUENCY_PIN_CLKOP=f"{settings.clock_mhz:g}",
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        p_PLLRST_ENA="DISABLED",
        p_INTFB_WAKE="DISABLED",
        p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA",
        p_CLKOP_ENABLE="ENABLED",
        p_CLKI_DIV=settings.input_div,
        p_CLKFB_DIV=settings.feedback_div,
        p_CLKOP_DIV=settings.output_div,
        p_CLKOP_CPHASE=phase,
        p_CLKOP_FPHASE=0,
        p_FEEDBK_PATH="CLKOP",
        i_CLKI=crystal,
        i_CLKFB=clock,
        i_RST=0,
        i_STDBY=0,
        i_PHASESEL0=0,
        i_PHASESEL1=0,
        i_PHASEDIR=1,
        i_PHASESTEP=1,
        i_PHASELOADREG=1,
        i_PLLWAKESYNC=0,
        i_ENCLKOP=0,
        o_CLKOP=clock,
        o_LOCK=locked,
        **arguments,
    )


class Ecp5Clock(Elaboratable):
    """Drives domain ``sync``, which its parent defines without a reset, from the board's crystal.

    Parameters
    ----------
    settings : PllSettings

    Attributes
    ----------
    locked : Signal
        Raw lock of the PLL, asynchronous.
    reset : Signal
        1 until the PLL has locked and whenever it has not; falls synchronously to ``sync``. On the global network.
    crystal : Signal
        The crystal's clock, for another PLL.
    """

    def __init__(self, settings: PllSettings) -> None:
        self.settings = settings
        self.locked = Signal()
        self.reset = Signal()
        self.crystal = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        settings = self.settings
        m.submodules.pin = pin = io.Buffer("i", platform.request(platform.default_clk, dir="-"))  # type: ignore[attr-defined]
        m.d.comb += self.crystal.eq(pin.i)
        m.submodules.pll = _pll(settings, pin.i, ClockSignal("sync"), self.locked)
        released = Signal(init=1)
        m.submodules.release = AsyncFFSynchronizer(~self.locked, released)
        m.d.comb += self.reset.eq(distribute(m, "reset", released, "ecp5"))
        return m


class Ecp5UsbClock(Elaboratable):
    """Drives domains ``usb_io`` (48 MHz) and ``usb`` (12 MHz), in phase, which its parent defines.

    Parameters
    ----------
    crystal : Signal
        Clock from the crystal.
    input_mhz : float
        Its rate; 12, 20, 25 or another that divides into 60 MHz by small numbers.

    Attributes
    ----------
    locked : Signal
        Both domains are in reset until the PLL has locked.
    """

    def __init__(self, crystal: Signal, input_mhz: float) -> None:
        settings = solve_pll(input_mhz, _USB_FEEDBACK_MHZ)
        self.settings = dataclasses.replace(settings, output_div=round(_USB_VCO_MHZ / _USB_FEEDBACK_MHZ))
        self.locked = Signal()
        self._crystal = crystal

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outputs = {"CLKOS": "usb_io", "CLKOS2": "usb"}
        m.submodules.pll = _pll(self.settings, self._crystal, Signal(), self.locked, outputs)
        for domain in outputs.values():
            m.submodules[f"reset_{domain}"] = ResetSynchronizer(~self.locked, domain=domain)
        return m
