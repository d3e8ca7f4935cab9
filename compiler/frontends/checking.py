"""Does an imported graph compute what the module computes? In floating point, before anything is rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.passes.evaluate import evaluate_folded
from reverb_fpga.compiler.passes.fold import fold
from reverb_fpga.compiler.passes.graph import FloatNetwork
from reverb_fpga.hw.errors import InputError

__all__ = ["check_import"]

_CONTINUOUS = 1e-3  # of the logits' spread: what float32 may cost
_SPIKING = 0.05  # of the median sample: a spike on the edge of a threshold may fall on either side

Reals = NDArray[np.float64]


def check_import(network: FloatNetwork, codes: Reals, wanted: Reals, *, border: bool) -> None:
    """Compare a graph whose weights are not rounded with the logits (N, classes) of the module.

    Parameters
    ----------
    codes : float array (N, C, H, W) or (N, T, C, H, W)
        Inputs as codes, not rounded either.
    border : bool
        A border of zeros lies between two codes.

    Raises
    ------
    InputError
        If they differ: the module does something that the trace did not see.
    """
    found = evaluate_folded(fold(network), codes)
    if found.shape != wanted.shape:
        raise InputError(f"the module returns {wanted.shape[1:]} numbers a sample, its import {found.shape[1:]}")
    spread = float(np.ptp(wanted, axis=1).max()) or float(np.ptp(wanted)) or float(np.abs(wanted).max()) or 1.0
    off = np.abs(found - wanted).max(axis=1) / spread
    rough = border or any(layer.binary or layer.v_th > 0 for layer in network.layers)
    if float(np.median(off)) > _SPIKING if rough else float(off.max()) > _CONTINUOUS:
        raise InputError(
            f"the module computes something that could not be followed: its import differs by {100 * off.max():.2g} % "
            "of the logits' spread before any rounding. Likely causes: a view of a tensor that is changed in place, "
            "values taken out of tensors, state of its own, randomness, or autocast in its forward"
        )
