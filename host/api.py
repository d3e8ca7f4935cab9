"""What ``import reverb_fpga`` offers: models that are compiled, loaded and run from Python."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.manifest import MAX_TEXT
from reverb_fpga.hw.boards.table import BOARDS
from reverb_fpga.hw.config import PRESETS, Config, preset
from reverb_fpga.hw.errors import EnvironmentMissing, InputError

from .agreement import agreement, compared
from .arrays import array_codes, plain, real_array
from .bundled import load_model
from .images import encoded
from .model import Input, Model

if TYPE_CHECKING:
    from .ports import Candidate

__all__ = ["Input", "Model", "compile", "devices", "load"]


def load(model: str | Path | None = None) -> Model:
    """A bundled model by name, or a ``.rvb`` file; None: the one that ``reverb-fpga classify`` uses.

    Raises
    ------
    InputError
        No such model or file, or a damaged one.
    """
    return Model(load_model(None if model is None else str(model)))


def devices() -> list[Candidate]:
    """Serial ports whose USB identity is that of a known board: ``port``, ``description``, ``link``."""
    from . import ports

    return ports.candidates()


def compile(
    module: Any,
    samples: Any = None,
    *,
    target: str = "ulx3s-85f",
    timesteps: int | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    truth: Any = None,
    dt: float = 1e-4,
    balance: bool = True,
) -> Model:
    """Compile a network.

    Parameters
    ----------
    module : torch.nn.Module, nir.NIRGraph, or path
        A module (of torch layers, SpikingJelly, snnTorch), a NIR graph, or a checkpoint of ``reverb-fpga train``.
    samples : array-like
        Of a module: inputs as it takes them, float (N, C, H, W), (N, features), or with time (T, N, C, H, W); for
        shapes, calibration and the comparison. Inputs outside their range are clipped to it later, with a warning. Of
        a checkpoint: uint8 (N, C, H, W), for calibration; may be left out.
    target : str
        Configuration: of a board, or ``large`` or ``tiny`` for simulation.
    timesteps : int or None
        How often to run a module that runs one step at a time.
    labels, name : optional
        Names of the classes ("0", "1", ...) and of the program.
    truth : array-like of int (N,), optional
        The true classes of the samples of a module: then ``model.agreement`` says how many of them module and golden
        model have right.
    dt : float
        Length of a step of a NIR graph, in its units of time.
    balance : bool
        Place the channels of hidden layers over the banks of the target by what fires on the samples, if there are at
        least two: fewer cycles, the same logits.

    Raises
    ------
    InputError
        What the target cannot express: names the layer and the reason.
    EnvironmentMissing
        Without torch.
    """
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= MAX_TEXT and name.isprintable()):
        raise InputError(f"name {name!r:.60}; printable text of at most {MAX_TEXT} characters is wanted")
    if isinstance(module, str | os.PathLike):
        unused = {"timesteps": timesteps, "labels": labels, "truth": truth}
        if given_anyway := [name for name, value in unused.items() if value is not None]:
            raise InputError(f"{', '.join(given_anyway)}: only of modules; a checkpoint has its own, or none")
        return _of_checkpoint(Path(module), samples, target, name, balance)
    try:
        import torch
    except ImportError:
        raise EnvironmentMissing("torch is not installed: pip install 'reverb-fpga[train]'") from None
    if type(module).__name__ == "NIRGraph":
        from reverb_fpga.compiler.frontends.nir_modules import NirModule

        module = NirModule(module, dt)
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"a {type(module).__name__} cannot be compiled; give a torch module, a NIR graph, or a checkpoint's path"
        )
    from reverb_fpga.compiler.frontends.modules import compile_module
    from reverb_fpga.compiler.frontends.running import Samples, run_module, unwrapped

    from .balancing import balanced_compilation

    timesteps = None if timesteps is None else _steps(timesteps)
    if not (isinstance(dt, Real) and 0 < dt < np.inf):
        raise InputError(f"dt {dt!r}; a length of time above 0 is wanted")
    given = Samples(_floats(samples))
    kind = type(unwrapped(module)).__name__
    classes = _classes(truth, len(given))
    config = _configuration(target)
    compiled = compile_module(module, given, config, timesteps, labels=labels, name=name or kind)
    if balance:
        compiled, _ = balanced_compilation(compiled, config, array_codes(given.data, compiled.program), measure=False)
    model = Model(compiled.program, compiled.report.notes)
    if classes is not None and not 0 <= classes.min() <= classes.max() < len(model.labels):
        raise InputError(f"truth from {classes.min()} to {classes.max()} of {len(model.labels)} classes")
    model.agreement = compared(run_module(module, given, timesteps), model.logits(given.data), classes)
    return model


def _configuration(target: str) -> Config:
    """A preset; a board's name is told its own."""
    if target in BOARDS and target not in PRESETS:
        raise InputError(f"{target} is a board; it has the configuration target={BOARDS[target].config!r}")
    return preset(target)


def _steps(timesteps: Any) -> int:
    try:
        steps = 0 if isinstance(timesteps, bool) else operator.index(timesteps)
    except TypeError:
        steps = 0
    if steps < 1:
        raise InputError(f"timesteps {timesteps!r}; a whole number of at least 1 is wanted")
    return steps


def _classes(truth: Any, count: int) -> NDArray[np.int64] | None:
    """The true classes of the samples (N,)."""
    if truth is None:
        return None
    try:
        classes = np.asarray(truth)
    except (TypeError, ValueError):
        classes = np.zeros(0)
    if classes.shape != (count,) or not np.issubdtype(classes.dtype, np.integer):
        raise InputError(f"truth of shape {classes.shape} and {classes.dtype}; integers ({count},), one a sample")
    return classes.astype(np.int64)


def _of_checkpoint(path: Path, samples: Any, target: str, name: str | None, balance: bool) -> Model:
    from reverb_fpga.compiler.pipeline import CompileOptions, compile_checkpoint

    from .balancing import balanced_compilation

    pixels = None if samples is None else np.asarray(plain(samples))
    if pixels is not None and (pixels.dtype != np.uint8 or pixels.ndim not in (4, 5)):
        raise InputError(
            f"samples of shape {pixels.shape} and {pixels.dtype}; uint8 (N, channels, height, width), with time (N, T, "
            "channels, height, width), are wanted for a checkpoint"
        )
    config = _configuration(target)
    compiled = compile_checkpoint(path, config, CompileOptions(name=name, images=pixels))
    if balance and pixels is not None:
        codes = encoded(list(np.moveaxis(pixels, -3, -1)), compiled.program)
        compiled, _ = balanced_compilation(compiled, config, codes, measure=False)
    found = None if pixels is None else agreement(path, compiled.program, config, pixels)
    return Model(compiled.program, compiled.report.notes, found)


def _floats(samples: Any) -> NDArray[np.float32]:
    """Samples of a module as float32."""
    if samples is None:
        raise InputError("samples are wanted: some inputs as the module takes them")
    try:
        with np.errstate(over="ignore"):  # beyond float32 they are infinite, which is told
            return real_array(samples).astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            "samples that are no array of real numbers; float (N, channels, height, width), (N, features), or with "
            "time (T, N, channels, height, width) are wanted"
        ) from None
