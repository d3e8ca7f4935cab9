"""A model on a backend that stays open: what the Python API and ``reverb-fpga classify`` both run inputs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError

from .backends import Backend, Outcome

__all__ = ["Running"]

Codes = NDArray[np.uint8]


class Running:
    """A model on a backend; :meth:`~reverb_fpga.host.model.Model.on` opens it.

    Parameters
    ----------
    backend : Backend
    encode : callable
        The input codes (N, T_in, H, W, C) of what the model takes.
    """

    def __init__(self, backend: Backend, encode: Callable[[Any], Codes]) -> None:
        self._backend, self._encode = backend, encode

    def logits(self, x: Any) -> NDArray[np.float64]:
        """Logits (N, classes) of a batch; as :meth:`~reverb_fpga.host.model.Model.logits`."""
        return self.logits_of(self._encode(x))

    def classify(self, x: Any) -> list[str]:
        """The label of every input of a batch."""
        labels = self._backend.program.labels
        return [labels[best] for best in self.logits(x).argmax(axis=1)]

    def stream(self, inputs: Iterable[Any]) -> Iterator[NDArray[np.float64]]:
        """Logits (classes,) of single inputs, in order. The next ones are taken while one is computed.

        None among the inputs: there is none now, but there may be one later.

        Raises
        ------
        InputError
            What stands for one input is a batch of several.
        """
        for outcome in self.outcomes(None if x is None else self._one(x) for x in inputs):
            yield self._scaled([outcome])[0]

    def outcomes(self, codes: Iterable[Codes | None]) -> Iterator[Outcome]:
        """What the output layer holds after inputs that are codes already, (T_in, H, W, C); as :meth:`stream`."""
        return self._backend.stream(codes)

    def logits_of(self, codes: Codes) -> NDArray[np.float64]:
        """Logits of input codes (N, T_in, H, W, C)."""
        return self._scaled(list(self.outcomes(codes)))

    def _one(self, x: Any) -> Codes:
        codes = self._encode(x)
        if len(codes) != 1:
            raise InputError(f"{len(codes)} inputs where stream takes one at a time; logits takes them all")
        return codes[0]

    def _scaled(self, outcomes: list[Outcome]) -> NDArray[np.float64]:
        found = np.asarray([outcome.logits for outcome in outcomes], dtype=np.float64)
        return np.asarray(found * self._backend.program.logit_scale)
