"""What ``import reverb_fpga`` offers: models that are compiled, loaded and run from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import EnvironmentMissing, InputError

from . import images
from .agreement import Agreement, agreement, compared
from .arrays import array_codes, wanted
from .backends import BackendOptions, config_of, open_backend
from .bundled import load_model

if TYPE_CHECKING:
    from reverb_fpga.sim.verify import Verification

    from .ports import Candidate

__all__ = ["Input", "Model", "compile", "devices", "load"]

Codes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Input:
    """What a model takes.

    Parameters
    ----------
    kind : str
        ``images``: uint8 (N, H, W, C), a single one, paths, or a mixture of sizes; ``array``: float (N, *shape), as the
        module took it.
    shape : tuple of int
        Of one input: (H, W, C) of an image, (C, H, W) or (features,) of an array.
    timesteps : int
        1: an input stands still; else arrays are (T, N, *shape), and images (N, T, H, W, C).
    """

    kind: str
    shape: tuple[int, ...]
    timesteps: int

    def __str__(self) -> str:
        if self.kind == "array":
            return wanted(self.shape, self.timesteps)
        sides = ", ".join(map(str, self.shape))
        return f"images, uint8 (N, {sides})" if self.timesteps == 1 else f"uint8 (N, {self.timesteps}, {sides})"


class Model:
    """A compiled model.

    Attributes
    ----------
    program : Program
    agreement : Agreement or None
        Of a model that was compiled just now: golden model against the module, on the samples.
    notes : tuple of str
        What the compiler could not keep exactly; of a loaded model unknown.
    """

    def __init__(self, program: Program, notes: tuple[str, ...] = (), agreement: Agreement | None = None) -> None:
        from reverb_fpga.sim.golden import GoldenModel

        self.program, self.notes, self.agreement = program, notes, agreement
        self._golden = GoldenModel(program, config_of(program))

    def __repr__(self) -> str:
        return f"<reverb_fpga model {self.program.name} for {self.program.config_name}: takes {self.input}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.program.labels

    @property
    def input(self) -> Input:
        """What it takes."""
        source, steps = self.program.input, self._golden.input_steps
        if source.array is not None:
            return Input("array", source.array.shape, steps)
        return Input("images", (source.height, source.width, source.channels), steps)

    def logits(self, x: Any, backend: str = "golden") -> NDArray[np.float64]:
        """Logits (N, classes), in the units of the network that was compiled.

        Parameters
        ----------
        x : array-like or paths
            See :attr:`input`.
        backend : str
            ``golden``; ``rtl``, the simulated gateware; ``device``, the board that is attached, or its port.

        Raises
        ------
        InputError
            Another shape than the model takes; says which.
        """
        codes = self._codes(x)
        if backend == "golden":
            return np.asarray(self._golden.run(codes) * self.program.logit_scale)
        port = None if backend in ("rtl", "device") else backend
        name = "rtl" if backend == "rtl" else "serial"
        with open_backend(name, self.program, BackendOptions(port=port)) as opened:
            found = [outcome.logits for outcome in opened.stream(codes)]
        return np.asarray(found, dtype=np.float64) * self.program.logit_scale

    def classify(self, x: Any, backend: str = "golden") -> list[str]:
        """The label of every input; as :meth:`logits`."""
        return [self.labels[best] for best in self.logits(x, backend).argmax(axis=1)]

    def layers(self, x: Any) -> dict[str, Codes]:
        """Activation codes (N, T, H, W, C), 0..255, of every layer that spikes, by its name (golden model)."""
        found, _ = self._golden.run_layers(self._codes(x))
        named = zip(self.program.layers, found, strict=True)
        return {layer.name: codes for layer, codes in named if layer.spiking}

    def verify(self, x: Any = None, backend: str = "rtl") -> Verification:
        """Compare the golden model with the gateware, tensor by tensor.

        Parameters
        ----------
        x : array-like or paths, optional
            Inputs to compare on; a bundled image or random codes if not given.
        backend : str
            ``rtl``, the simulated gateware; ``device``, the board that is attached, or its port.

        Raises
        ------
        EnvironmentMissing
            Without the packages of ``reverb-fpga[sim]``, or a C++ compiler.
        """
        from .inputs import Selection
        from .verifying import input_codes, verified

        if backend == "golden":
            raise InputError("backend='golden' is what verify compares with; rtl, device or a port are wanted")
        codes = input_codes(self.program, Selection(limit=1))[1] if x is None else self._codes(x)
        port = None if backend == "rtl" else "auto" if backend == "device" else backend
        return verified(self.program, codes, BackendOptions(port=port))

    def report(self) -> dict[str, Any]:
        """Name, target, layers (name, shape, additions of one step), notes, and the agreement if it was measured."""
        return {
            "name": self.program.name,
            "target": self.program.config_name,
            "input": str(self.input),
            "timesteps": self.program.timesteps,
            "layers": [
                {"name": layer.name, "shape": layer.shape, "additions": layer.additions}
                for layer in self.program.layers
            ],
            "notes": list(self.notes),
            "agreement": None if self.agreement is None else dataclasses.asdict(self.agreement),
        }

    def save(self, path: Path | str) -> Path:
        """Write the program (``.rvb``). Raises InputError if that fails."""
        from reverb_fpga.compiler import rvb

        return rvb.save(self.program, path)

    def _codes(self, x: Any) -> Codes:
        """Input codes (N, T_in, H, W, C)."""
        array = self.program.input.array
        return self._of_images(x) if array is None else array_codes(_numeric(x, self.input), self.program, stacklevel=4)

    def _of_images(self, x: Any) -> Codes:
        transform = self.program.input
        if isinstance(x, str | Path) or (isinstance(x, Sequence) and x and isinstance(x[0], str | Path)):
            paths = [Path(x)] if isinstance(x, str | Path) else [Path(path) for path in x]
            pixels = [images.read_image(path) for path in images.find_images(paths)]
        else:
            pixels = list(self._pixels(x))
        return images.over_time(images.to_codes(pixels, transform), self.program)

    def _pixels(self, x: Any) -> Codes:
        """(N, H, W, C), or (N, T, H, W, C)."""
        values, wanted = np.asarray(x), self.input.shape
        if values.dtype != np.uint8:
            raise InputError(f"an input of {values.dtype}; the model takes {self.input}")
        if wanted[-1] == 1 and (values.ndim == 2 or (values.ndim == 3 and values.shape[1:] == wanted[:2])):
            values = values[..., None]
        if values.shape == wanted:
            values = values[None]
        timed = values.ndim == 5 and values.shape[1] == self._golden.input_steps
        if not len(values) or values.shape[-3:] != wanted or not (values.ndim == 4 or timed):
            raise InputError(f"an input of shape {np.shape(x)}; the model takes {self.input}, or paths of pictures")
        return values


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

    Raises
    ------
    InputError
        What the target cannot express: names the layer and the reason.
    EnvironmentMissing
        Without torch.
    """
    if isinstance(module, str | Path):
        return _of_checkpoint(module, samples, target, name)
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

    if samples is None:
        raise InputError("samples are wanted: some inputs as the module takes them")
    given = Samples(np.asarray(_plain(samples), dtype=np.float32))
    kind = type(unwrapped(module)).__name__
    classes = _classes(truth, len(given))
    compiled = compile_module(module, given, preset(target), timesteps, labels=labels, name=name or kind)
    model = Model(compiled.program, compiled.report.notes)
    model.agreement = compared(run_module(module, given, timesteps), model.logits(given.data), classes)
    return model


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


def _of_checkpoint(path: str | Path, samples: Any, target: str, name: str | None) -> Model:
    from reverb_fpga.compiler.pipeline import CompileOptions, compile_checkpoint

    pixels = None if samples is None else np.asarray(_plain(samples))
    if pixels is not None and pixels.dtype != np.uint8:
        raise InputError(f"samples of {pixels.dtype}; uint8 (N, channels, height, width) are wanted for a checkpoint")
    config = preset(target)
    compiled = compile_checkpoint(Path(path), config, CompileOptions(name=name, images=pixels))
    model = Model(compiled.program, compiled.report.notes)
    if pixels is not None:
        model.agreement = agreement(Path(path), compiled.program, config, pixels)
    return model


def _plain(x: Any) -> Any:
    """Numbers of a torch tensor, wherever it lies."""
    return x.detach().cpu().float().numpy() if hasattr(x, "detach") and x.is_floating_point() else x


def _numeric(x: Any, wanted: Input) -> NDArray[np.float64]:
    try:
        return np.asarray(_plain(x), dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"an input that is no array of numbers; the model takes {wanted}") from None
