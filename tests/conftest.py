"""Fixtures shared by the tests of the command line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.backend import lower
from reverb_fpga.compiler.geometry import Geometry
from reverb_fpga.compiler.intnet import INPUT, IntInput, IntNetwork
from reverb_fpga.compiler.program import InputTransform, Program, ProgramMeta
from reverb_fpga.compiler.testing import plain_layer
from reverb_fpga.hw.config import preset

# Read when torch is loaded, here and by what tests start: workers share the cores already, results are the same each
# time, and no worker changes the number of threads under a torch that has run with another.
os.environ["OMP_NUM_THREADS"] = "1"

# A suite that a shell put in the background is deaf to Ctrl-C, and so would be every command that a test interrupts.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@pytest.fixture(scope="session")
def fashion_program() -> Program:
    """A program for the tiny configuration with random weights that takes 28 x 28 grey images."""
    rng = np.random.default_rng(1)
    layers = (
        plain_layer(
            "conv", INPUT, rng.choice([-1, 1], (4, 1, 4, 4)), gain=np.full(4, 16), geometry=Geometry(stride=(4, 4))
        ),
        plain_layer("fc", "conv", rng.choice([-1, 1], (10, 4, 7, 7)), gain=np.full(10, 16), spiking=False, tau_q=256),
    )
    network = IntNetwork(IntInput(1, 28, 28, np.zeros(1, dtype=np.uint8)), layers, 1, static_input=True)
    transform = InputTransform(1, 28, 28, (1.0,), (0.0,))
    meta = ProgramMeta("random", "test", "reverb", "fashion-mnist", None, FASHION, transform, 1e-5)
    return lower(network, preset("tiny"), meta)


@pytest.fixture(scope="session")
def fashion_rvb(fashion_program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program as a file."""
    return rvb.save(fashion_program, tmp_path_factory.mktemp("programs") / "random.rvb")
