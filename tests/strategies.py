"""Hypothesis draws a small specification of a network, which shrinks well; and how it is asked to."""

from __future__ import annotations

import dataclasses

from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st

from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.intnet import WeightKind
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.random_networks import (
    MAX_SIDE,
    Case,
    Images,
    LayerSpec,
    NetworkSpec,
    Neurons,
    Profile,
    Shortcut,
)
from reverb_fpga.compiler.testing import plain_meta
from reverb_fpga.hw.config import Config
from reverb_fpga.hw.errors import InputError

__all__ = ["compiled", "examples", "specs"]


def examples(number: int) -> settings:
    """The same examples in every run; no shrinking, for the first failure is readable."""
    return settings(
        max_examples=number, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def compiled(case: Case, config: Config) -> Program:
    """The case's program; the example is dropped if the overlay cannot hold it."""
    hints = dataclasses.replace(case.hints, row_mode=True) if config.taps > 1 else case.hints
    try:
        return lower(case.network, config, plain_meta(case.network), hints)
    except InputError as error:
        assume("too large" not in str(error))
        raise


_LEAKS = st.sampled_from([0, 1, 64, 128, 200, 255, 256])
_RESETS = st.sampled_from([None, None, None, 0, 300, 4096, (1 << 23) - 1])
_CODE_MAX = st.sampled_from([1, 3, 15, 127, 255])


def _layers(profile: Profile) -> st.SearchStrategy[LayerSpec]:
    everything = profile is Profile.EVERYTHING
    tiled = profile is Profile.TILED or everything
    multibit = profile is Profile.MULTIBIT or everything
    dynamic = profile is Profile.DYNAMIC or everything
    if profile is Profile.BURST:
        return st.builds(
            LayerSpec, channels=st.integers(30, 40), kernel=st.just(1), stride=st.just(1), padding=st.just(0),
            in_pool=st.just(1), out_pool=st.just(1), kind=st.just(WeightKind.BINARY), bits=st.just(1),
            neurons=st.just(Neurons.DENSE), extreme_weights=st.just(False), threshold_positive=st.just(False),
            tau_q=_LEAKS, code_max=_CODE_MAX,
        )  # fmt: skip
    if profile is Profile.GRAPH:
        return st.builds(
            LayerSpec,
            channels=st.sampled_from([5, 5, 5, 9]),
            kernel=st.sampled_from([3, 3, 3, 1, 2]),
            stride=st.sampled_from([1, 1, 1, 2]),
            padding=st.sampled_from([1, 1, 1, 0]),
            in_pool=st.sampled_from([1, 1, 1, 1, 2]),
            out_pool=st.sampled_from([1, 1, 1, 1, 2]),
            kind=st.sampled_from([WeightKind.BINARY, WeightKind.TERNARY, WeightKind.MULTIBIT]),
            bits=st.integers(2, 4),
            neurons=st.sampled_from([Neurons.USUAL, Neurons.USUAL, Neurons.USUAL, *Neurons]),
            extreme_weights=st.sampled_from([False, False, False, True]),
            threshold_positive=st.booleans(),
            tau_q=_LEAKS,
            code_max=st.sampled_from([1, 1, 15, 255]),
            kernel_x=st.sampled_from([None, None, 1, 3]),
            dilation=st.sampled_from([1, 1, 1, 2]),
            overlap=st.sampled_from([False, False, True]),
            shortcut=st.sampled_from([Shortcut.IDENTITY, *Shortcut]),
            back=st.integers(0, 2),
            source_back=st.sampled_from([0, 0, 0, 1]),
            once=st.booleans(),
            gate=st.sampled_from([False, False, False, True]),
            reset=_RESETS,
        )
    return st.builds(
        LayerSpec,
        channels=st.integers(9, 20) if tiled else st.integers(1, 12),
        kernel=st.integers(1, 3),
        stride=st.sampled_from([1, 1, 2]),
        padding=st.integers(0, 2),
        in_pool=st.sampled_from([1, 1, 1, 2]),
        out_pool=st.sampled_from([1, 1, 1, 2]),
        kind=st.just(WeightKind.MULTIBIT) if multibit else st.sampled_from(WeightKind),
        bits=st.integers(2, 8),
        neurons=st.just(Neurons.USUAL) if dynamic else st.sampled_from([Neurons.USUAL, Neurons.USUAL, *Neurons]),
        extreme_weights=st.sampled_from([False, False, True]),
        threshold_positive=st.just(True) if dynamic else st.booleans(),
        tau_q=_LEAKS,
        code_max=_CODE_MAX,
        reset=_RESETS,
    )


_LONGEST = dict.fromkeys(Profile, 3) | {Profile.BURST: 1, Profile.GRAPH: 6}


def _steps(profile: Profile, max_steps: int) -> list[int]:
    if profile is Profile.GRAPH:
        return [1, 1, 2, 3, 8]
    return list(range(2 if profile in (Profile.DYNAMIC, Profile.EVERYTHING) else 1, max_steps + 1))


@st.composite
def specs(draw: st.DrawFn, profile: Profile = Profile.ANY, max_steps: int = 4) -> NetworkSpec:
    """Specifications of a profile."""
    everything = profile is Profile.EVERYTHING
    tiled = profile is Profile.TILED or everything
    signed = profile is Profile.SIGNED or everything
    dynamic = profile is Profile.DYNAMIC or everything
    burst = profile is Profile.BURST
    graph = profile is Profile.GRAPH
    side = st.integers(4, MAX_SIDE) if tiled or signed or burst or graph else st.integers(1, MAX_SIDE)
    return NetworkSpec(
        profile=profile,
        channels=draw(st.integers(1, 6)),
        height=draw(side),
        width=draw(side),
        timesteps=draw(st.sampled_from(_steps(profile, max_steps))),
        static_input=not dynamic and draw(st.booleans()),
        signed_input=signed or draw(st.booleans()),
        images=draw(st.just(Images.MIXED) if dynamic or signed else st.sampled_from(Images)),
        layers=tuple(draw(st.lists(_layers(profile), min_size=3 if graph else 1, max_size=_LONGEST[profile]))),
        outputs=draw(st.integers(1, 12)),
        max_strip_rows=draw(st.integers(1, 2)) if tiled else draw(st.sampled_from([None, None, 1, 2, 3])),
        ring_rows=draw(st.sampled_from([None, 1, 2, 3, 4])),
        seed=draw(st.integers(0, 2**32 - 1)),
        input_rows=draw(st.sampled_from([None, None, 1, 2, 3])),
        spare_rows=draw(st.sampled_from([None, 1, 3])),
    )
