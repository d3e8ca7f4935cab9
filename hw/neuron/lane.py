"""Two or four neuron lanes on one datapath: current, membrane, threshold, code and leak (numerics.md section 3)."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .. import contract
from ..config import Config
from ..contract import Gate
from ..memory import DISTRIBUTED
from ..signatures import layer_layout, word_layout
from .fixed import delayed, saturate, saturated, shift_right_mux, split_multiply, truncated
from .gate import INDEX_BITS, sigmoid, sigmoid_value
from .skip import SkipMemory

__all__ = ["LAYER_CONSTANTS", "LaneResult", "NeuronPair", "NeuronParams", "row_layout"]

LAYER_CONSTANTS = ("r_shift", "tau_q", "code_max", "spiking", "reset", "soft_reset")
"""Fields of the layer that every pair holds a copy of, for the fan-out."""


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
    reset: int | None = None  # what a neuron that fires is lowered by; None: it is set to 0


@dataclasses.dataclass(frozen=True)
class LaneResult:
    """Outcome of one update: code, membrane potential after reset and leak, and what goes to the skip memory."""

    code: int
    membrane: int
    fired: bool
    skip: int


def row_layout(config: Config, groups: int) -> data.StructLayout:
    """Row of a memory of the lanes of a datapath: ``group * neuron_ways + way``."""
    return data.StructLayout({"way": range(config.neuron_ways), "group": range(groups)})


class NeuronPair(wiring.Component):
    """Neuron updates of two lanes, or four, one per cycle in turn, their membrane memory and their skip memory.

    The pipeline has no valid bit and never stalls; the caller says when a result is one. Cycle numbers count from the
    cycle in which ``z[0]`` is applied, for the first lane; everything of each further lane comes one cycle later.

    Members
    -------
    z : In(ArrayLayout(signed(z_width), neuron_ways))
        Synaptic currents: ``z[0]`` in cycle 0, ``z[1]`` in cycle 1, and so on.
    way : In(range(neuron_ways))
        Which of them counts, one cycle ahead: 0 in cycle -1, 1 in cycle 0, and so on.
    word0, word1 : In(layout of a word of PARAM_FIELDS)
        In cycles ``word0_at`` and ``word1_at``.
    r_shift, tau_q, code_max, spiking, reset, soft_reset : In
        Fields of the layer; stable while updates are under way. ``tau_q`` is TAU_ONE for a leg.
    apply, sigmoid : In(1)
        The layer is such a leg (:class:`contract.Gate`): the membrane is multiplied by what lies in the skip memory, or
        by the threshold, instead of ``tau_q``. Only with a skip memory, as the next ones.
    r_addr, r_clear : In
        ``group * neuron_ways + way`` of the membrane to read, and 1 if it is to be taken as 0; in cycle ``read_at``.
    w_addr, w_en : In
        Where the new membrane goes; in cycle ``write_at``.
    skip_r_addr, skip_add : In
        ``entry * neuron_ways + way`` of the skip memory to read, and 1 if that is added to the current; in cycle
        ``skip_read_at``, for a leg that applies gates in cycle ``gate_read_at``.
    skip_w_addr, skip_w_en : In
        Where the new membrane goes in the skip memory, saturated, or the gate made of it; in cycle ``skip_write_at``.
        With a membrane that was read as 0, no firing and ``tau_q`` = TAU_ONE, it is the current.
    code : Out(8)
        Activation code, in cycle ``delay``; 0 if the neuron does not fire.
    membrane : Out(signed(membrane_width))
        Membrane that was read, two cycles after ``r_addr``.
    """

    word0_at = 1
    word1_at = 7
    skip_read_at = 4
    gate_read_at = 11
    read_at = 8
    write_at = 15
    skip_write_at = 17
    delay = 14
    recurrence = write_at - read_at + 1
    """Least distance between two updates of the same group, in cycles."""
    skip_recurrence = skip_write_at + SkipMemory.store_delay - skip_read_at
    """The same for a word of the skip memory."""

    def __init__(self, config: Config) -> None:
        self.config = config
        ways = config.neuron_ways
        address = range(ways * config.layer_groups)
        entry = range(ways * config.skip_words)
        skip = {"skip_r_addr": In(entry), "skip_w_addr": In(entry)}
        skip |= {name: In(1) for name in ("skip_add", "skip_w_en", "apply", "sigmoid")}
        super().__init__(
            {
                **(skip if config.skip_words else {}),
                "z": In(data.ArrayLayout(signed(config.z_width), ways)),
                "way": In(range(ways)),
                **{f"word{n}": In(word_layout(contract.PARAM_FIELDS, n)) for n in range(contract.PARAM_WORDS)},
                **{name: In(layer_layout()[name].shape) for name in LAYER_CONSTANTS},
                "r_addr": In(address),
                "r_clear": In(1),
                "w_addr": In(address),
                "w_en": In(1),
                "code": Out(contract.EVENT_VALUE_BITS),
                "membrane": Out(signed(config.membrane_width)),
            }
        )

    @staticmethod
    def model(
        config: Config, z: int, membrane: int, params: NeuronParams, skip: int = 0, gate: contract.Gate = Gate.NONE
    ) -> LaneResult:
        """Integer-exact update; ``membrane`` is V after leak of the step before (0 at the first step, and of a leg).

        ``skip`` is what is added to the current, or multiplies it if ``gate`` is APPLY.
        """
        width = config.membrane_width
        fraction = config.fraction_bits
        half = (1 << params.r_shift) >> 1
        q = saturated((z * params.gain + half) >> params.r_shift, width)
        y = saturated(q + params.bias + (0 if gate is Gate.APPLY else skip), width)
        u = saturated(membrane + y, width)
        fired = params.spiking and u >= params.threshold
        code = max(0, min(params.code_max, (u + ((1 << fraction) >> 1)) >> fraction)) if fired else 0
        if gate is Gate.SIGMOID:
            factor = truncated(params.threshold, contract.FACTOR_BITS)
            return LaneResult(code, 0, fired, sigmoid(saturated((u * factor) >> contract.GATE_SHIFT, INDEX_BITS)))
        lowered = u - params.reset if params.reset is not None and u >= 0 else 0
        after = ((lowered if fired else u) * (skip if gate is Gate.APPLY else params.tau_q)) >> 8
        return LaneResult(code, after, fired, saturated(after, config.skip_width))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.membrane_width
        constants = [delayed(m, getattr(self, name), 1, name) for name in LAYER_CONSTANTS]
        r_shift, tau_q, code_max, spiking, reset, soft_reset = constants
        way, z = Signal.like(self.way), Signal(signed(self.config.z_width))
        m.d.sync += way.eq(self.way)
        m.d.sync += z.eq(self.z[way])  # cycle 1
        gain = Cat(self.word0.gain, 0).as_signed()
        bias_low = delayed(m, self.word0.bias_low, self.word1_at - self.word0_at, "bias_low")
        bias = Cat(bias_low, self.word1.bias_high).as_signed()  # cycle 7
        threshold = delayed(m, self.word1.threshold, 5, "threshold")  # cycle 12
        added = Signal(signed(width + 1))  # cycle 8
        factor = Signal(signed(contract.FACTOR_BITS))  # cycle 14

        scaled = split_multiply(m, z, gain, "scaled")  # cycle 3
        q = _shift_round_saturate(m, scaled, r_shift, width)  # cycle 8
        y = _add_saturate(m, q, added, "y")  # cycle 10
        u = _add_saturate(m, y, self.membrane, "u")  # cycle 12

        fired = Signal()
        m.d.sync += fired.eq(spiking & (u >= threshold))  # cycle 13
        u_late = delayed(m, u, 1, "u").as_signed()
        self._encode(m, u, fired, code_max)  # cycle 14
        kept, lowered = Signal(signed(width)), Signal(signed(width))
        m.d.sync += lowered.eq(u - reset)  # cycle 13; never used where u < 0, so nothing overflows
        after = Mux(soft_reset & ~u_late[-1], lowered, 0)
        m.d.sync += kept.eq(Mux(fired, after, u_late))  # cycle 14
        leaked = split_multiply(m, kept, factor, "leaked")  # cycle 16
        self._membranes(m, leaked >> 8)
        if not self.config.skip_words:
            m.d.comb += factor.eq(tau_q)
            m.d.sync += added.eq(bias)
            return m
        skip = self._skip(m, leaked)
        m.d.sync += added.eq(bias + skip.value)
        apply, sigmoid = Signal(), Signal()
        m.d.sync += [apply.eq(self.apply), sigmoid.eq(self.sigmoid)]
        constant = Signal(signed(contract.FACTOR_BITS))  # cycle 13
        m.d.sync += [
            constant.eq(Mux(sigmoid, threshold[: contract.FACTOR_BITS].as_signed(), tau_q)),
            factor.eq(Mux(apply, skip.early, constant)),
        ]
        return m

    def _skip(self, m: Module, product: Value) -> SkipMemory:
        """The skip memory, and what is written there of ``product``, in cycle 16."""
        config = self.config
        m.submodules.skip = skip = SkipMemory(config.neuron_ways * config.skip_words, config.skip_width)
        kept, index = Signal(signed(config.skip_width)), Signal(signed(INDEX_BITS))  # cycle 17
        sigmoid = Signal()
        m.d.sync += [
            kept.eq(saturate(product >> 8, config.skip_width)),
            index.eq(saturate(product >> contract.GATE_SHIFT, INDEX_BITS)),
            sigmoid.eq(self.sigmoid),
        ]
        m.d.comb += [
            skip.r_addr.eq(self.skip_r_addr),
            skip.add.eq(self.skip_add),
            skip.w_addr.eq(self.skip_w_addr),
            skip.w_en.eq(self.skip_w_en),
            skip.w_data.eq(Mux(sigmoid, sigmoid_value(index), kept)),
        ]
        return skip

    def _membranes(self, m: Module, new: Value) -> None:
        """Addresses are copied into registers of the pair, for the fan-out: used in cycles 9 and 16."""
        m.submodules.store = store = memory.Memory(
            shape=signed(self.config.membrane_width),
            depth=self.config.neuron_ways * self.config.layer_groups,
            init=[],
            attrs=DISTRIBUTED,
        )
        read, write = store.read_port(domain="comb"), store.write_port()
        clear = Signal()
        m.d.sync += [read.addr.eq(self.r_addr), clear.eq(self.r_clear)]
        m.d.sync += self.membrane.eq(Mux(clear, 0, read.data))
        m.d.sync += [write.addr.eq(self.w_addr), write.en.eq(self.w_en)]
        m.d.comb += write.data.eq(new)

    def _encode(self, m: Module, u: Value, fired: Signal, code_max: Signal) -> None:
        """Rounded, clipped activation code; two cycles after ``u``, one after ``fired``."""
        fraction = self.config.fraction_bits
        rounded = Signal(signed(self.config.membrane_width + 1 - fraction))
        m.d.sync += rounded.eq((u + ((1 << fraction) >> 1)) >> fraction)
        bits = contract.EVENT_VALUE_BITS
        too_large = rounded[bits:].any() | (rounded[:bits] > code_max)
        clipped = Mux(rounded[-1], 0, Mux(too_large, code_max, rounded[:bits]))
        m.d.sync += self.code.eq(Mux(fired, clipped, 0))


def _shift_round_saturate(m: Module, value: Value, r_shift: Signal, width: int) -> Signal:
    """``sat((value + half) >> r_shift)``, five cycles.

    Rounding comes after shifting: with ``v = 2*value >> r``, the result is ``(v + 1) >> 1``, for r = 0 too. What does
    not fit ``width + 1`` bits after shifting saturates whatever the rounding does, so only those bits are kept.
    """
    current = Cat(0, value).as_signed()
    for low in (0, 2):
        shifted = Signal(signed(len(current)), name=f"shifted_{low}")
        m.d.sync += shifted.eq(shift_right_mux(current, r_shift[low : low + 2], 1 << low))
        current = shifted
    coarse = r_shift[4:6]
    kept, beyond, sign = Signal(signed(width + 1)), Signal(), Signal()
    m.d.sync += [kept.eq(shift_right_mux(current, coarse, 16)), sign.eq(current[-1])]
    with m.Switch(coarse):
        for n in range(4):
            upper = current[min(width + 16 * n, len(current) - 1) :]
            with m.Case(n):
                m.d.sync += beyond.eq(upper.any() & ~upper.all())
    rounded = Signal(signed(width + 1))
    beyond_late, sign_late = Signal(), Signal()
    m.d.sync += [rounded.eq((kept + 1) >> 1), beyond_late.eq(beyond), sign_late.eq(sign)]
    q = Signal(signed(width))
    overflow = beyond_late | (rounded[-1] ^ rounded[-2])
    m.d.sync += q.eq(Mux(overflow, Cat((~sign_late).replicate(width - 1), sign_late), rounded[:width]))
    return q


def _add_saturate(m: Module, a: Value, b: Value, name: str) -> Signal:
    """``sat(a + b)`` to the width of ``a``, two cycles; ``b`` may be wider."""
    total = Signal(signed(max(len(a), len(b)) + 1), name=f"{name}_sum")
    result = Signal(signed(len(a)), name=name)
    m.d.sync += [total.eq(a + b), result.eq(saturate(total, len(a)))]
    return result
