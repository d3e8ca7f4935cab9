"""Pickled CIFAR batches: plain containers and arrays of bytes, and nothing that could run.

A pickle is a program. Here it is read twice. First its instructions are listed without being executed: only those that
such a batch needs are let through, so few of those that nest or copy that neither stack nor memory can be exhausted.
Then the interpreter of the standard library executes them, but every name that they ask for gives an inert
placeholder: no class, function or module of this process is within reach.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.files import read_regular

__all__ = ["ByteArray", "read_pickle"]

_RARE = frozenset(
    ("INT", "LONG", "LONG1", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD")
)
_PLAIN = _RARE | frozenset(
    (
        *("MARK", "STOP", "POP", "PROTO", "FRAME", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_TUPLE", "LIST", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("DICT", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "MEMOIZE"),
    )
)
_MAX_STEPS = 2_000_000  # CIFAR-100's training split has 250,000
_MAX_RARE = 1000  # one array takes twenty; hashing has no bound on nested tuples, nor on numbers chosen to collide


class _Inert:
    """What stands for a name: it can be passed on, and neither called with effect, nor changed."""

    __slots__ = ("_name",)
    _name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError("it changes a name")

    def __call__(self, *arguments: object) -> object:
        if self._name == "array" and len(arguments) == 3:
            return ByteArray()
        if self._name == "dtype" and arguments and _is_text(arguments[0], "u1", "|u1"):
            return _Inert("bytes")
        if self._name == "encode" and len(arguments) == 2 and _is_text(arguments[1], "latin1", "latin-1"):
            text, _ = arguments
            if type(text) is str:
                return text.encode("latin-1")
        raise pickle.UnpicklingError("it calls something that a batch of images does not hold")

    def __setstate__(self, state: object) -> None:
        """numpy's own types are restored with their byte order, which bytes do not have."""
        if self._name != "bytes":
            raise pickle.UnpicklingError("it changes a name")


class ByteArray:
    """An array of unsigned bytes as numpy pickles it, not yet one of numpy's.

    Attributes
    ----------
    shape : tuple of int
    """

    __slots__ = ("_data", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self._data = b""

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise pickle.UnpicklingError("an array in an unusual form")
        _, shape, kind, fortran, data = state
        if type(kind) is not _Inert or kind._name != "bytes" or type(data) is not bytes or fortran not in (False, 0):
            raise pickle.UnpicklingError("an array that is not of unsigned bytes")
        if (
            type(shape) is not tuple
            or len(shape) > 4
            or not all(type(side) is int and 0 <= side <= len(data) for side in shape)
        ):
            raise pickle.UnpicklingError("an array of impossible shape")
        count = 1
        for side in shape:
            count *= side
        if count != len(data) or min(shape, default=0) < 0:
            raise pickle.UnpicklingError("an array of impossible shape")
        self.shape, self._data = shape, data

    def array(self) -> NDArray[np.uint8]:
        """As an array of numpy's."""
        return np.frombuffer(self._data, np.uint8).reshape(self.shape)


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _Inert(_NAMES[module, name])

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to another file")


def read_pickle(path: Path, limit: int) -> dict[bytes, object]:
    """The dictionary that a pickled batch of at most `limit` bytes holds; arrays in it are :class:`ByteArray`.

    Raises
    ------
    InputError
        The file cannot be read, or holds anything else.
    """
    data = read_regular(path, limit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escape sequences in damaged texts
            _check_steps(data)
            value = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # whatever pickle raises on damaged data
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path}: not a CIFAR batch: {reason}") from None
    if type(value) is not dict:
        raise InputError(f"{path}: not a CIFAR batch: its content is not a dictionary")
    return {key.encode("utf-8", "replace") if type(key) is str else key: entry for key, entry in value.items()}


def _check_steps(data: bytes) -> None:
    rare = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _PLAIN:
            raise pickle.UnpicklingError(f"instruction {opcode.name}, which no batch of images needs")
        rare += opcode.name in _RARE
        if number >= _MAX_STEPS or rare > _MAX_RARE:
            raise pickle.UnpicklingError("more instructions than a batch of images needs")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= number:
            raise pickle.UnpicklingError("a note out of order")  # the memory for notes goes by their largest number


def _is_text(value: object, *texts: str) -> bool:
    return (type(value) is str and value in texts) or (type(value) is bytes and value in [t.encode() for t in texts])
