"""A compiled model: what it takes, what it says of inputs, and on what it runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.program import Program
from reverb_fpga.hw.errors import InputError

from . import images
from .agreement import Agreement
from .arrays import array_codes, plain, real_array, wanted
from .backends import BackendOptions, config_of, open_backend
from .running import Running

if TYPE_CHECKING:
    from reverb_fpga.sim.verify import Verification

    from .model_report import ModelReport

__all__ = ["Input", "Model"]

Codes = NDArray[np.uint8]
_COUNTED = 10  # bundled images of a report


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
        with self.on(backend) as running:
            return running.logits_of(codes)

    def classify(self, x: Any, backend: str = "golden") -> list[str]:
        """The label of every input; as :meth:`logits`."""
        return [self.labels[best] for best in self.logits(x, backend).argmax(axis=1)]

    @contextmanager
    def on(
        self,
        backend: str = "golden",
        *,
        port: str | None = None,
        baud: int | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Running]:
        """The model on a backend that stays open in the block, for inputs that come one after another.

        Parameters
        ----------
        backend : str
            As of :meth:`logits`, which opens one for every call: a simulator is started, a program is loaded.
        port : str, optional
            Of a board; the first that answers if not given.
        baud : int, optional
            The rate at which the board answers if not given.
        report : callable, optional
            Told what is being done while the backend starts.

        Raises
        ------
        InputError
            A port, but another backend than a board; or two ports.
        DeviceError
            No board, or the line fails.
        """
        name, found = _place(backend)
        if found is not None and port is not None:
            raise InputError(f"two ports, {found} and {port}; one is wanted")
        options = BackendOptions(port=port or found, baud=baud, report=report)
        with open_backend(name, self._golden, options) as opened:
            yield Running(opened, self._codes)

    def layers(self, x: Any) -> dict[str, Codes]:
        """Activation codes (N, T, H, W, C), 0..255, of every layer that spikes, by its name (golden model).

        Channels are those of the network that was compiled, in its order.
        """
        found, _ = self._golden.run_layers(self._codes(x))
        named = zip(self.program.layers, found, strict=True)
        return {layer.name: layer.of_network(codes) for layer, codes in named if layer.spiking}

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
        name, port = _place(backend)
        codes = input_codes(self.program, Selection(limit=1))[1] if x is None else self._codes(x)
        return verified(self.program, codes, BackendOptions(port=port or ("auto" if name == "serial" else None)))

    def report(self, x: Any = None, clock_mhz: float | None = None) -> dict[str, Any]:
        """What it is, and what one input costs: the figures of ``reverb-fpga report --json`` and more.

        Parameters
        ----------
        x : array-like or paths, optional
            Inputs to count over; the bundled images of its data set if not given. Without either, costs are left out:
            ``cycles`` and whatever depends on events is None.
        clock_mhz : float, optional
            For ``images_per_second``.

        Returns
        -------
        dict
            ``name``, ``target``, ``input``, ``timesteps``, ``layers`` (a dict each: ``name``, ``shape``, and the fields
            of :class:`~reverb_fpga.host.model_report.LayerCost`), ``cycles``, ``additions``, ``images_per_second``,
            ``notes``, ``agreement``.
        """
        if clock_mhz is not None and not (isinstance(clock_mhz, Real) and 0 < clock_mhz < np.inf):
            raise InputError(f"clock_mhz {clock_mhz!r}; a number above 0 is wanted")
        program = self.program
        cost = self._cost(x)
        known = [{"name": layer.name, "shape": layer.shape} for layer in program.layers]
        layers = known if cost is None else [dataclasses.asdict(layer) for layer in cost.layers]
        rate = None if cost is None or clock_mhz is None else cost.images_per_second(float(clock_mhz))
        return {
            "name": program.name,
            "target": program.config_name,
            "input": str(self.input),
            "timesteps": program.timesteps,
            "images": 0 if cost is None else cost.images,
            "layers": layers,
            "cycles": None if cost is None else cost.cycles,
            "additions": None if cost is None else cost.additions,
            "images_per_second": rate,
            "notes": list(self.notes),
            "agreement": None if self.agreement is None else dataclasses.asdict(self.agreement),
        }

    def _cost(self, x: Any) -> ModelReport | None:
        from .bundled import bundled_images
        from .model_report import measure

        if x is None:
            if not bundled_images(self.program.dataset):
                return None
            x = [image.path for image in bundled_images(self.program.dataset)[:_COUNTED]]
        return measure(self.program, self._golden.config, self._codes(x))

    def save(self, path: Path | str) -> Path:
        """Write the program (``.rvb``). Raises InputError if that fails."""
        from reverb_fpga.compiler import rvb

        return rvb.save(self.program, path)

    def _codes(self, x: Any) -> Codes:
        """Input codes (N, T_in, H, W, C)."""
        paths = _paths(x)
        if paths:
            from .inputs import Selection
            from .verifying import input_codes

            return input_codes(self.program, Selection(paths=paths))[1]
        if self.program.input.array is not None:
            return array_codes(_numeric(x, self.input), self.program, stacklevel=4)
        return images.encoded(list(self._pixels(x)), self.program)

    def _pixels(self, x: Any) -> Codes:
        """(N, H, W, C), or (N, T, H, W, C)."""
        try:
            values = np.asarray(None if np.ma.is_masked(x) else plain(x))
        except (TypeError, ValueError):
            values = np.zeros(0, dtype=object)
        wanted = self.input.shape
        if values.dtype != np.uint8:
            kind = "no array of numbers" if values.dtype == object else f"an array of {values.dtype}"
            raise InputError(f"an input that is {kind}; the model takes {self.input}, or paths of pictures")
        if self.input.timesteps > 1:
            wanted = (self.input.timesteps, *wanted)
        elif wanted[-1] == 1 and (values.ndim == 2 or (values.ndim == 3 and values.shape[1:] == wanted[:2])):
            values = values[..., None]
        if values.shape == wanted:
            values = values[None]
        if not values.size or values.shape[1:] != wanted:
            raise InputError(f"an input of shape {np.shape(x)}; the model takes {self.input}, or paths of pictures")
        return values


def _place(backend: str) -> tuple[str, str | None]:
    """Which backend, and the port of a board: "device" (or "serial", as the command line has it), or the port itself.

    Raises
    ------
    InputError
        Neither a backend nor anything that looks like a port.
    """
    known: dict[str, tuple[str, str | None]] = {
        "golden": ("golden", None),
        "rtl": ("rtl", None),
        "device": ("serial", None),
        "serial": ("serial", None),
    }
    if isinstance(backend, str) and backend in known:
        return known[backend]
    if not isinstance(backend, str) or not ("/" in backend or backend.upper().startswith("COM")):
        raise InputError(f"no backend {backend!r}; there are golden, rtl, device, and ports of boards: /dev/ttyUSB0")
    return "serial", backend


def _paths(x: Any) -> tuple[Path, ...]:
    """Paths, one or several; none if `x` is something else."""
    several = [x] if isinstance(x, str | os.PathLike) else x
    if isinstance(several, Sequence) and several and all(isinstance(path, str | os.PathLike) for path in several):
        return tuple(Path(path) for path in several)
    return ()


def _numeric(x: Any, wanted: Input) -> NDArray[np.float64]:
    try:
        return real_array(x).astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"an input that is no array of real numbers; the model takes {wanted}") from None
