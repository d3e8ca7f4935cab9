"""The back end through the golden model against direct evaluation of the network."""

from __future__ import annotations

import numpy as np
import pytest

from reverb_fpga.compiler.backend import Hints, lower
from reverb_fpga.compiler.reference import evaluate
from reverb_fpga.compiler.testing import RandomOptions, plain_meta, random_codes, random_network
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel

HINTS = (
    None, Hints(max_strip_rows=1), Hints(ring_rows=1), Hints(ring_rows=3, max_strip_rows=2), Hints(input_rows=1),
    Hints(input_rows=2, max_strip_rows=2), Hints(input_rows=1, ring_rows=1), Hints(spare_rows=2),
)  # fmt: skip


def _agree(seed: int, config_name: str) -> bool:
    """Whether the network of ``seed`` fits; if so, compare every layer's codes and the logits."""
    rng = np.random.default_rng(seed)
    config = preset(config_name)
    network = random_network(rng, RandomOptions(saturate=seed % 2 == 0))
    codes = random_codes(rng, network, 4)
    try:
        program = lower(network, config, plain_meta(network), HINTS[seed % len(HINTS)])
    except InputError as error:
        if "too large" in str(error) or "may reach" in str(error):
            return False
        raise
    expected = evaluate(network, codes)
    layers, logits = GoldenModel(program, config).run_layers(codes)
    np.testing.assert_array_equal(logits, expected.logits)
    for got, want in zip(layers, expected.codes, strict=True):
        np.testing.assert_array_equal(got, want)
    return True


@pytest.mark.parametrize("config_name", ["tiny", "ulx3s-12f", "ulx3s-25f", "ulx3s-85f", "large"])
def test_random_networks_agree_with_the_reference(config_name: str) -> None:
    fitting = sum(_agree(seed, config_name) for seed in range(25))
    assert fitting >= 15
