"""Proofs, for all inputs, with a bit-vector solver: rounding, shifting, saturation, and the emitter's queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, ClockDomain, Module, Mux, Signal, Value, signed

from reverb_fpga.hw.config import preset
from reverb_fpga.hw.neuron.emitter import FIFO_DEPTH, Emitter
from reverb_fpga.hw.neuron.fixed import delayed, limits
from reverb_fpga.hw.neuron.lane import _add_saturate, _shift_round_saturate

SCRIPT = """
[options]
mode {mode}
depth {depth}
[engines]
smtbmc boolector
[script]
read_rtlil top.il
prep -top top
[files]
top.il
"""


def prove(folder: Path, m: Module, ports: list[Signal], mode: str, depth: int) -> bool:
    """True if every assertion holds; False if one is refuted."""
    m.domains.sync = clock = ClockDomain(reset_less=True)
    (folder / "top.il").write_text(rtlil.convert(m, name="top", ports=[clock.clk, *ports]))
    (folder / "proof.sby").write_text(SCRIPT.format(mode=mode, depth=depth))
    tools = folder / "bin"  # sby and smtbmc call the tools by their plain names
    tools.mkdir()
    for name in ("sby", "yosys", "yosys-smtbmc", "boolector"):
        (tools / name).symlink_to(Path(sys.executable).parent / f"yowasp-{name}")
    # on its first run ever the solver prints a notice, which smtbmc would take for an answer
    subprocess.run([str(tools / "boolector"), "--version"], capture_output=True, check=True)
    done = subprocess.run(
        [str(tools / "sby"), "-f", "proof.sby"],
        cwd=folder,
        env=os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 2), done.stdout[-3000:] + done.stderr[-1000:]
    return done.returncode == 0


def settled(m: Module, cycles: int) -> Value:
    """1 once ``cycles`` have passed."""
    count = Signal(range(cycles + 1))
    with m.If(count != cycles):
        m.d.sync += count.eq(count + 1)
    return count == cycles


def clipped(value: Value, width: int) -> Value:
    """The specification's sat."""
    low, high = limits(width)
    return Mux(value < low, low, Mux(value > high, high, value))


@pytest.mark.parametrize("wrong", [False, True])
def test_shift_round_saturate(tmp_path: Path, wrong: bool) -> None:
    """``sat24((v + half) >> r)`` for every 44-bit v and every r; a spec that rounds down instead is refuted."""
    m = Module()
    value, r = Signal(signed(44)), Signal(6)
    q = _shift_round_saturate(m, value, r, 24)
    half = Mux(r == 0, 0, Value.cast(1) << (r - 1)[:6])[:64]
    late = delayed(m, value, 5, "value").as_signed()
    shifted = Signal(signed(66))
    m.d.comb += shifted.eq((late + (0 if wrong else half)) >> r)
    m.d.comb += Assume((r == delayed(m, r, 1, "r")) | ~settled(m, 1))
    m.d.comb += Assert(~settled(m, 6) | (q == clipped(shifted, 24)))
    # a pipeline without feedback: what holds once it is full holds for ever
    assert prove(tmp_path, m, [value, r], "bmc", 8) != wrong


@pytest.mark.parametrize("width", [24, 25])
def test_add_saturate(tmp_path: Path, width: int) -> None:
    """The membrane's addition; that of the bias and what comes from the skip memory, exact before it saturates."""
    m = Module()
    a, b = Signal(signed(24)), Signal(signed(width))
    total = _add_saturate(m, a, b, "total")
    expected = clipped(delayed(m, a, 2, "a").as_signed() + delayed(m, b, 2, "b").as_signed(), 24)
    m.d.comb += Assert(~settled(m, 2) | (total == expected))
    assert prove(tmp_path, m, [a, b], "bmc", 5)


@pytest.mark.parametrize("margin_kept", [True, False])
def test_emitter_never_overflows(tmp_path: Path, margin_kept: bool) -> None:
    """By induction: whoever issues only when there was room, a cycle ago, never meets a full queue."""
    m = Module()
    m.submodules.emitter = emitter = Emitter(preset("tiny"))
    issue, arrive = Signal(), Signal()
    entry = Signal(emitter.entry.shape())
    m.d.comb += emitter.entry.eq(entry)
    allowed = emitter.room if margin_kept else 1
    wish, flying = Signal(), Signal(range(4 * FIFO_DEPTH))
    m.d.sync += emitter.issued.eq(wish)
    m.d.sync += flying.eq(flying + emitter.issued - arrive)
    m.d.comb += [wish.eq(issue & allowed), emitter.entry_valid.eq(arrive)]
    m.d.comb += Assume(~arrive | (flying != 0))
    level = emitter.level
    m.d.comb += [
        Assert(emitter.outstanding == flying + level),
        Assert(emitter.outstanding + emitter.issued <= FIFO_DEPTH),
        Assert(~arrive | (level < FIFO_DEPTH)),
    ]
    mode, depth = ("prove", 6) if margin_kept else ("bmc", 25)
    assert prove(tmp_path, m, [issue, arrive, entry.as_value()], mode, depth) == margin_kept
