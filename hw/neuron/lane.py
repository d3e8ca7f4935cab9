"""One neuron lane: current, membrane, threshold, code and leak (numerics.md section 3)."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..config import Config
from .fixed import delayed, saturate, saturated, shift_right_mux, split_multiply

__all__ = ["LaneResult", "NeuronLane", "NeuronParams"]


@dataclasses.dataclass(frozen=True)
class NeuronParams:
    """Constants of one update. Widths and units: numerics.md; ``gain``, ``bias``, ``threshold`` are per channel."""

    gain: int
    bias: int
    threshold: int
    r_shift: int
    tau_q: int
    code_max: int
    spiking: bool


@dataclasses.dataclass(frozen=True)
class LaneResult:
    """Outcome of one update: code to emit, and the membrane potential after reset and leak."""

    code: int
    membrane: int
    fired: bool


class NeuronLane(wiring.Component):
    """Neuron update of one lane, one per cycle, and the membrane memory of the lane.

    The pipeline has no valid bit and never stalls; the caller says when a result is one. All cycle numbers count
    from the cycle in which ``z`` is applied.

    Members
    -------
    z : In(signed(z_width))
        Synaptic current.
    word : In(32)
        Parameter word 0 in cycle 0, word 1 in cycle 1.
    r_shift, tau_q, code_max, spiking : In
        Fields of the layer; stable while updates are under way.
    r_addr, r_clear : In
        Group whose membrane is read, and 1 if it is to be taken as 0; applied in cycle ``read_at``.
    w_addr, w_en : In
        Where the new membrane goes; applied in cycle ``write_at``.
    code : Out(8)
        Activation code, in cycle ``delay``; 0 if the neuron does not fire.
    membrane : Out(signed(membrane_width))
        Membrane that was read, two cycles after ``r_addr``.
    """

    delay = 13
    read_at = 7
    write_at = 14
    recurrence = write_at - read_at + 1
    """Least distance between two updates of the same group, in cycles."""

    def __init__(self, config: Config) -> None:
        self.config = config
        groups = range(config.layer_groups) if config.layer_groups > 1 else 1
        super().__init__(
            {
                "z": In(signed(config.z_width)),
                "word": In(32),
                "r_shift": In(6),
                "tau_q": In(9),
                "code_max": In(8),
                "spiking": In(1),
                "r_addr": In(groups),
                "r_clear": In(1),
                "w_addr": In(groups),
                "w_en": In(1),
                "code": Out(contract.EVENT_VALUE_BITS),
                "membrane": Out(signed(config.membrane_width)),
            }
        )

    @staticmethod
    def model(config: Config, z: int, membrane: int, params: NeuronParams) -> LaneResult:
        """Integer-exact update; ``membrane`` is V after leak of the step before (0 at the first step)."""
        width = config.membrane_width
        fraction = config.fraction_bits
        half = (1 << params.r_shift) >> 1
        q = saturated((z * params.gain + half) >> params.r_shift, width)
        y = saturated(q + params.bias, width)
        u = saturated(membrane + y, width)
        fired = params.spiking and u >= params.threshold
        code = max(0, min(params.code_max, (u + ((1 << fraction) >> 1)) >> fraction)) if fired else 0
        return LaneResult(code, ((0 if fired else u) * params.tau_q) >> 8, fired)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.membrane_width
        # copies of the layer's constants in every lane, for the fan-out
        r_shift, tau_q = Signal(6), Signal(9)
        code_max, spiking = Signal(8), Signal()
        m.d.sync += [
            r_shift.eq(self.r_shift),
            tau_q.eq(self.tau_q),
            code_max.eq(self.code_max),
            spiking.eq(self.spiking),
        ]
        gain, bias, threshold = self._parameters(m)

        scaled = split_multiply(m, self.z, Cat(gain, 0).as_signed(), "scaled")  # cycle 2
        q = self._shift_round_saturate(m, scaled, r_shift)  # cycle 7
        y = self._add_saturate(m, q, bias, "y")  # cycle 9

        kept = Signal(signed(width))
        m.submodules.store = store = memory.Memory(shape=signed(width), depth=self.config.layer_groups, init=[])
        read, write = store.read_port(domain="comb"), store.write_port()
        clear = Signal()
        m.d.sync += [read.addr.eq(self.r_addr), clear.eq(self.r_clear)]  # cycle 8
        m.d.sync += self.membrane.eq(Mux(clear, 0, read.data))  # cycle 9
        u = self._add_saturate(m, y, self.membrane, "u")  # cycle 11

        fired = Signal()
        m.d.sync += fired.eq(spiking & (u >= threshold))  # cycle 12
        u_late = delayed(m, u, 1, "u").as_signed()
        self._encode(m, u, fired, code_max)  # cycle 13
        m.d.sync += kept.eq(Mux(fired, 0, u_late))  # cycle 13
        leaked = split_multiply(m, kept, Cat(tau_q, 0).as_signed(), "leaked")  # cycle 15
        m.d.sync += [write.addr.eq(self.w_addr), write.en.eq(self.w_en)]
        m.d.comb += write.data.eq(leaked >> 8)
        return m

    def _parameters(self, m: Module) -> tuple[Value, Value, Value]:
        """Gain in cycle 0, bias in cycle 7, threshold in cycle 11."""
        bias_low = delayed(m, self.word[16:], 7, "bias_low")
        bias_high = delayed(m, self.word[:8], 6, "bias_high")
        threshold = delayed(m, self.word[8:], 10, "threshold").as_signed()
        return self.word[:16], Cat(bias_low, bias_high).as_signed(), threshold

    def _shift_round_saturate(self, m: Module, value: Value, r_shift: Signal) -> Value:
        """``sat((value + half) >> r_shift)``, five cycles.

        Rounding comes after shifting: with ``v = 2*value >> r``, the result is ``(v + 1) >> 1``, for r = 0 too.
        """
        width = self.config.membrane_width
        current = Cat(0, value).as_signed()
        for low, high in ((4, 6), (2, 4), (0, 2)):
            shifted = Signal(signed(len(current)), name=f"shifted_{low}")
            m.d.sync += shifted.eq(shift_right_mux(current, r_shift[low:high], 1 << low))
            current = shifted
        rounded = Signal(signed(width + 1))
        beyond, sign = Signal(), Signal()
        m.d.sync += [
            # what does not fit width + 1 bits saturates whatever the rounding does
            rounded.eq((current[: width + 1].as_signed() + 1) >> 1),
            beyond.eq(current[width:].any() & ~current[width:].all()),
            sign.eq(current[-1]),
        ]
        q = Signal(signed(width))
        overflow = beyond | (rounded[-1] ^ rounded[-2])
        m.d.sync += q.eq(Mux(overflow, Cat((~sign).replicate(width - 1), sign), rounded[:width]))
        return q

    def _add_saturate(self, m: Module, a: Value, b: Value, name: str) -> Signal:
        """``sat(a + b)``, two cycles."""
        total = Signal(signed(self.config.membrane_width + 1), name=f"{name}_sum")
        result = Signal(signed(self.config.membrane_width), name=name)
        m.d.sync += [total.eq(a + b), result.eq(saturate(total, self.config.membrane_width))]
        return result

    def _encode(self, m: Module, u: Value, fired: Signal, code_max: Signal) -> None:
        """Rounded, clipped activation code; two cycles after ``u``, one after ``fired``."""
        fraction = self.config.fraction_bits
        rounded = Signal(signed(self.config.membrane_width + 1 - fraction))
        m.d.sync += rounded.eq((u + ((1 << fraction) >> 1)) >> fraction)
        bits = contract.EVENT_VALUE_BITS
        too_large = rounded[bits:].any() | (rounded[:bits] > code_max)
        clipped = Mux(rounded[-1], 0, Mux(too_large, code_max, rounded[:bits]))
        m.d.sync += self.code.eq(Mux(fired, clipped, 0))
