"""Arrays of numbers as the input codes of a model that was compiled from a module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import InputError

__all__ = ["ARRAY_SUFFIX", "array_codes", "array_items", "plain", "real_array", "wanted"]

Codes = NDArray[np.uint8]
ARRAY_SUFFIX = ".npy"
_CODE_MAX = 255
_MAX_BYTES = 1 << 30


def wanted(shape: tuple[int, ...], steps: int) -> str:
    """What a model of inputs of that shape takes, for messages."""
    sides = ", ".join(map(str, shape))
    return f"float (N, {sides})" if steps == 1 else f"float ({steps}, N, {sides})"


def plain(x: Any) -> Any:
    """Numbers of a torch tensor, wherever it lies; anything else as it is."""
    if not hasattr(x, "detach"):
        return x
    tensor = x.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()


def real_array(x: Any) -> NDArray[Any]:
    """What was given as an array of real numbers.

    Raises
    ------
    TypeError, ValueError, OverflowError
        It is none: complex, dates, texts, ragged, with masked entries, or beyond float64.
    """
    if np.ma.is_masked(x):
        raise ValueError("masked entries have no value")
    values = np.asarray(plain(x))
    if values.dtype.kind == "O":
        values = values.astype(np.float64)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"numbers of {values.dtype}")
    return values


def array_codes(values: Any, program: Program, stacklevel: int = 2) -> Codes:
    """Input codes (N, T_in, H, W, C) of arrays as the module took them.

    Parameters
    ----------
    values : array-like
        (N, *shape), with time (T, N, *shape); one alone without N.
    stacklevel : int
        Of the warning that values were clipped to the range of the samples.

    Raises
    ------
    InputError
        Another shape, or numbers that are not finite.
    """
    array, source = program.input.array, program.input
    assert array is not None
    steps, own = program.input_records // (source.height * source.width), len(array.shape)
    given = np.shape(values)
    values = np.asarray(values, dtype=np.float64)
    if steps == 1 and values.shape == array.shape:
        values = values[None]
    if values.ndim == own + 1:
        values = values[None] if steps == 1 else values[:, None]
    if values.ndim != own + 2 or values.shape[2:] != array.shape or values.shape[0] != steps or not values.shape[1]:
        raise InputError(f"an input of shape {given}; the model takes {wanted(array.shape, steps)}")
    if not np.isfinite(values).all():
        raise InputError("the input has entries that are not finite numbers")
    sides = (-1,) + (1,) * (own - 1)
    rounded = np.floor(values * np.reshape(array.scale, sides) + np.reshape(array.offset, sides) + 0.5)
    if beyond := np.count_nonzero((rounded < 0) | (rounded > _CODE_MAX)):
        warnings.warn(
            f"{beyond} of {rounded.size} input values lie outside the range of the samples that the model was "
            "compiled with, and are clipped to it",
            stacklevel=stacklevel + 1,
        )
    codes = np.clip(rounded, 0, _CODE_MAX).astype(np.uint8)
    shaped = codes.reshape(steps, -1, source.channels, source.height, source.width)
    return np.ascontiguousarray(shaped.transpose(1, 0, 3, 4, 2))


def array_items(path: Path, program: Program) -> list[tuple[str, Callable[[], Codes]]]:
    """The inputs of a ``.npy`` file, by a name each: codes (T_in, H, W, C).

    Raises
    ------
    InputError
        No such file, none of arrays of numbers, or of another shape than the model takes.
    """
    array, source = program.input.array, program.input
    assert array is not None
    shape = wanted(array.shape, program.input_records // (source.height * source.width))
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if path.suffix != ARRAY_SUFFIX or not path.is_file():
        raise InputError(f"{path}: the model takes arrays of numbers in a {ARRAY_SUFFIX} file, {shape}, not pictures")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES >> 20} MiB")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path}: no array of numbers; the model takes {shape}")
    try:
        codes = array_codes(values, program, stacklevel=3)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return [(f"{path}[{index}]", _given(one)) for index, one in enumerate(codes)]


def _given(codes: Codes) -> Callable[[], Codes]:
    return lambda: codes
