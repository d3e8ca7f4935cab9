"""cocotb on the whole core and on the whole overlay: every layer's tensor of every image against the golden model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.program import Program
from reverb_fpga.compiler.testing import RandomOptions, plain_meta, random_codes, random_network
from reverb_fpga.host.bundled import bundled_models
from reverb_fpga.host.inputs import Selection
from reverb_fpga.host.verifying import input_codes
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.core import Core
from reverb_fpga.hw.top import Top
from reverb_fpga.sim.bench.model import Options
from reverb_fpga.sim.bench.runner import run_bench

BENCHES = Path(__file__).parent / "cocotb"
TINY = preset("tiny")
CONFIG = {"config": dataclasses.asdict(TINY)}
DIVISOR = 4
SMALL = RandomOptions(max_side=6, max_channels=8, max_layers=2, min_timesteps=2, saturate=True)
IMAGES = 10

Codes = NDArray[np.uint8]


def random_case(seed: int, options: RandomOptions, images: int) -> tuple[Program, Codes]:
    """A random program in strips of two rows at most, and input codes."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, options)
    return lower(network, TINY, plain_meta(network), Hints(max_strip_rows=2)), random_codes(rng, network, images)


def store(directory: Path, name: str, program: Program, codes: Codes) -> tuple[str, str]:
    """Program and codes as the files that a bench takes."""
    np.save(directory / f"{name}.npy", codes)
    return str(rvb.save(program, directory / f"{name}.rvb")), str(directory / f"{name}.npy")


def test_core(tmp_path: Path) -> None:
    """Random programs through the host bus, with random pauses of bus and input."""
    cases = [store(tmp_path, f"random{seed}", *random_case(seed, SMALL, 3)) for seed in (0, 1, 3, 5)]
    parameters = {"cases": cases, "limit": 2_000_000, "pauses": True, **CONFIG}
    outcome = run_bench(Core(TINY), "core-tiny", BENCHES / "bench_core.py", parameters)
    assert outcome.figures["images"] == 3 * len(cases)
    assert outcome.figures["descriptors"] > 10
    assert outcome.figures["events"] > 100


def test_top_through_its_pins(tmp_path: Path) -> None:
    """Ten images through the UART's pins, halting after every descriptor."""
    options = RandomOptions(max_side=4, max_channels=5, max_layers=2, max_timesteps=2, min_timesteps=2)
    program, codes = store(tmp_path, "random", *random_case(2, options, IMAGES))
    parameters = {"program": program, "codes": codes, "divisor": DIVISOR, "limit": 20_000_000, **CONFIG}
    outcome = run_bench(Top(TINY, DIVISOR), "top-tiny", BENCHES / "bench_top.py", parameters)
    assert outcome.figures["images"] == IMAGES
    assert outcome.figures["descriptors"] >= 2 * IMAGES
    assert outcome.figures["events"] > 100


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not bundled_models(), reason="no model is bundled")
def test_bundled_model(tmp_path: Path) -> None:
    """Ten bundled images on the bundled model's own configuration, through the host bus of its core."""
    program = rvb.load(next(iter(bundled_models().values())))
    codes = input_codes(program, Selection(limit=IMAGES))[1]
    config = preset(program.config_name)
    cases = [store(tmp_path, program.name, program, codes)]
    parameters = {"cases": cases, "limit": 100_000_000, "pauses": False, "config": dataclasses.asdict(config)}
    outcome = run_bench(
        Core(config), f"core-{config.name}", BENCHES / "bench_core.py", parameters, options=Options(fast=True)
    )
    assert outcome.figures["images"] == IMAGES
    assert outcome.figures["logits"] == IMAGES * len(program.labels)
    assert outcome.figures["events"] > 100 * IMAGES
