"""Registers that many blocks hold alike, so that no net reaches all over the device, and how they survive synthesis."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, ValueLike

__all__ = ["SYNTHESIS_SCRIPT", "copied"]

_MARK = "fan_out_copy"

SYNTHESIS_SCRIPT = f"""\
proc
setattr -set keep 1 a:{_MARK} %ci1 t:$dff %i
"""
"""Yosys commands to run after reading the design and before ``synth_ecp5``.

Yosys makes one of registers with equal inputs; ``keep`` on their signals does not stop it, on the flip-flops it does.
"""


def copied(m: Module, value: ValueLike, name: str) -> Value:
    """``value`` one clock cycle later, in a register that synthesis does not share with others of the same input.

    It has no reset (``keep`` would turn it into logic): it follows ``value`` into its reset state, a cycle later.
    """
    source = Value.cast(value)
    register = Signal(source.shape(), name=name, reset_less=True, attrs={_MARK: 1})
    m.d.sync += register.eq(source)
    return register
