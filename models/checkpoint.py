"""Checkpoints: one safetensors file with the weights, and the network's description as JSON in its metadata.

Reading one executes nothing, whatever the file holds; every tensor is checked against the description.
:func:`read_checkpoint` needs no torch.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.models.description import NetworkSpec
from reverb_fpga.models.files import open_regular, write_whole
from reverb_fpga.models.version1 import renamed

if TYPE_CHECKING:
    from reverb_fpga.models.network import Network

__all__ = [
    "STATE_KEY",
    "Checkpoint",
    "load_checkpoint",
    "read_checkpoint",
    "read_tensors",
    "save_checkpoint",
    "write_tensors",
]

STATE_KEY = "reverb_fpga_run"
"""Metadata of a file that holds the state of a run and is no checkpoint (:mod:`reverb_fpga.models.state`)."""

_KEY = "reverb_fpga"
_INFO = "reverb_fpga_info"
_MAX_HEADER = 16 << 20
_MAX_CHECKPOINT = 2 << 30  # 500 million weights; the largest target holds 1.7 million
_MAX_STATE = 8 << 30  # an optimiser keeps two numbers beside every weight
_MAX_RANK = 8
_MAX_NOTE = 1e15
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),  # the upper half of a float32
}
_OURS = ("F32", "I64")  # what this project writes
_PARALLEL, _COMPILED = "module.", "_orig_mod."  # in names: DataParallel puts the one in front, torch.compile the other
_COUNTER = ".num_batches_tracked"  # of BatchNorm: how many batches its averages saw; evaluation does not use it

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in numpy.

    Attributes
    ----------
    spec : NetworkSpec
        The description.
    tensors : mapping of str to float32 array
        Exactly the names and shapes of ``spec.tensor_shapes()``, all finite, scales and variances in range.
    info : mapping of str to number or str
        What training noted: ``accuracy`` (percent, test split), ``density``, ``epochs``, ``seed``; may be empty.
    """

    spec: NetworkSpec
    tensors: Mapping[str, Array]
    info: Mapping[str, float | int | str] = field(default_factory=dict)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside `path` and rename it into place; never leaves half a file."""
    try:
        from safetensors.numpy import save
    except ImportError:
        raise EnvironmentMissing("safetensors is not installed: pip install 'reverb-fpga[train]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save({name: np.asarray(array, order="C") for name, array in tensors.items()}, dict(metadata))
    write_whole(path, _repeatable(data))


def _repeatable(data: bytes) -> bytes:
    """The same file with the texts of its metadata in order, which the library leaves to chance."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a safetensors file of at most 8 GiB from a stranger.

    Read here and not with the library, which reports some defects late or as panics, and so that describing a model
    needs numpy alone. Raises InputError for whatever is not a well-formed file of float32 and int64 tensors.
    """
    with open_regular(path, _MAX_STATE) as file:
        header = _read_header(path, file)
        for name, entry in header.entries.items():
            if entry.kind not in _OURS:
                raise InputError(f"{path}: tensor {name!r:.80} is {entry.kind}, expected one of {', '.join(_OURS)}")
        return {name: _read_tensor(path, file, entry) for name, entry in header.entries.items()}, header.metadata


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies in the file, and what it is."""

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def floating(self) -> bool:
        return self.kind != "I64"


@dataclass(frozen=True)
class _Header:
    entries: dict[str, _Entry]
    metadata: dict[str, str]


def _read_header(path: Path, file: BinaryIO) -> _Header:
    """The description of a file's tensors, which fill it from its header to its end."""
    try:
        size = os.fstat(file.fileno()).st_size
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise InputError(_not_a_checkpoint(path, head))
        text = file.read(length)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InputError(_not_a_checkpoint(path, head)) from None
    if not isinstance(header, dict):
        raise InputError(_not_a_checkpoint(path, head))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(f"{path}: damaged checkpoint: its metadata is not a table of texts")
    entries = {str(name): _entry(path, name, entry, 8 + length) for name, entry in header.items()}
    place = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != place or entry.end > size:
            raise InputError(
                f"{path}: damaged checkpoint: tensor {name!r:.80} lies outside the file, which may be truncated, or "
                "in another one"
            )
        place = entry.end
    if place != size:
        raise InputError(f"{path}: damaged checkpoint: {size - place:,} bytes after its tensors")
    return _Header(entries, metadata)


def _not_a_checkpoint(path: Path, head: bytes) -> str:
    if path.suffix == ".rvb":
        return f"{path}: a compiled program; give the checkpoint that it was compiled from (best.safetensors of a run)"
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return (
            f"{path}: a pickle checkpoint (torch.save) is refused because loading one runs code from the file; "
            "convert it to safetensors"
        )
    return f"{path}: not a checkpoint, or a truncated one (expected a .safetensors file)"


def _entry(path: Path, name: str, entry: object, base: int) -> _Entry:
    where = f"{path}: damaged checkpoint: tensor {name!r:.80}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where} has a malformed header entry")
    kind = entry["dtype"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise InputError(f"{where} has type {kind!r:.20}, expected F32, BF16, F16 or F64")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for values in (shape, offsets):
        if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 1 << 40 for v in values):
            raise InputError(f"{where} has a malformed shape or offsets")
    count = 1
    for side in shape[:_MAX_RANK]:
        count *= side
    if len(shape) > _MAX_RANK or len(offsets) != 2 or offsets[1] - offsets[0] != count * _DTYPES[kind].itemsize:
        raise InputError(f"{where} has a shape that does not go with its offsets")
    return _Entry(kind, tuple(shape), base + offsets[0], base + offsets[1])


def _read_tensor(path: Path, file: BinaryIO, entry: _Entry) -> NDArray[Any]:
    """Its numbers: float32 whatever the width in the file (F64 is rounded), or int64."""
    try:
        file.seek(entry.start)
        data = file.read(entry.end - entry.start)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) != entry.end - entry.start:
        raise InputError(f"{path}: damaged checkpoint: shorter than it was a moment ago")
    found = np.frombuffer(data, _DTYPES[entry.kind]).reshape(entry.shape)
    if entry.kind == "BF16":
        return (found.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):  # beyond float32: infinite, which is found to be no number
        return found.astype("<f4") if entry.kind in ("F16", "F64") else found


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read and check a checkpoint of at most 2 GiB without torch.

    Tensors may be F32, BF16, F16 or F64 (rounded to float32); names may stand behind ``module.`` or ``_orig_mod.``, and
    the batch counters of BatchNorm may be there: what a state dict of a wrapped network holds.

    Raises
    ------
    InputError
        Not a checkpoint, a pickle, truncated, a bad description, or a tensor that is missing, extra, of another
        shape or type, not finite or out of range.
    """
    path = Path(path)
    with open_regular(path, _MAX_CHECKPOINT) as file:
        header = _read_header(path, file)
        metadata = header.metadata
        if STATE_KEY in metadata:
            raise InputError(f"{path}: the state of a run, for --resume only; give best.safetensors beside it")
        if _KEY not in metadata:
            raise InputError(f"{path}: a safetensors file without a reverb-fpga description; train one with `train`")
        try:
            spec = NetworkSpec.from_json(metadata[_KEY])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OverflowError:
            raise InputError(f"{path}: network description: a number that no float can hold") from None
        info = _info(path, metadata.get(_INFO, "{}"))
        entries = _of_this_version(metadata[_KEY], spec, _unwrapped(path, header.entries))
        _check_entries(path, spec, entries)
        tensors = {name: _read_tensor(path, file, entry) for name, entry in entries.items()}
    for name, tensor in tensors.items():
        _check_values(path, name, tensor)
    return Checkpoint(spec, {name: tensors[name] for name in spec.tensor_shapes()}, info)


def _unwrapped(path: Path, entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
    """Tensors under their own names, without what wrappers of torch put before them, and without batch counters."""
    result: dict[str, _Entry] = {}
    for given, entry in entries.items():
        name = given.replace(_COMPILED, "")
        while name.startswith(_PARALLEL):
            name = name.removeprefix(_PARALLEL)
        if name.endswith(_COUNTER) and not entry.shape and not entry.floating:
            continue
        if name in result:
            raise InputError(f"{path}: tensor {name!r:.80} is there twice, once behind a wrapper's name")
        result[name] = entry
    return result


def _of_this_version(text: str, spec: NetworkSpec, entries: dict[str, _Entry]) -> dict[str, _Entry]:
    """The tensors under the names that they have now."""
    if json.loads(text)["format"] != 1:
        return entries
    rename = renamed(tuple(layer.name for layer in spec.layers))
    result: dict[str, _Entry] = {}
    for name, entry in entries.items():
        result[name if rename(name) in result else rename(name)] = entry  # what is there twice is found to be too much
    return result


def _check_entries(path: Path, spec: NetworkSpec, entries: Mapping[str, _Entry]) -> None:
    """Before a tensor is read: are they those of the description?"""
    expected = spec.tensor_shapes()
    for name in entries:
        if name not in expected:
            raise InputError(f"{path}: tensor {name!r:.80} does not belong to the network described")
    for name, shape in expected.items():
        entry = entries.get(name)
        if entry is None:
            raise InputError(f"{path}: tensor {name} is missing")
        if not entry.floating or entry.shape != shape:
            raise InputError(
                f"{path}: tensor {name} is {entry.kind} {entry.shape}, its description asks for floats {shape}"
            )


def _check_values(path: Path, name: str, tensor: Array) -> None:
    if not np.isfinite(tensor).all():
        raise InputError(f"{path}: tensor {name} has entries that are not finite")
    if name.endswith(".scale") and not (tensor > 0).all():
        raise InputError(f"{path}: tensor {name} must be positive")
    if name.endswith("running_var") and not (tensor >= 0).all():
        raise InputError(f"{path}: tensor {name} must not be negative")


def _info(path: Path, text: str) -> dict[str, float | int | str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not all(_is_note(entry) for entry in value.values()):
        raise InputError(f"{path}: damaged checkpoint: its training notes are not a table of numbers and texts")
    accuracy = value.get("accuracy", 0)
    if isinstance(accuracy, str) or not 0 <= accuracy <= 100:
        raise InputError(f"{path}: damaged checkpoint: an accuracy of {accuracy!r:.20} is no percentage")
    return value


def _is_note(value: object) -> bool:
    """A text, or a number that every float format can hold."""
    return isinstance(value, str) or (isinstance(value, int | float) and -_MAX_NOTE <= value <= _MAX_NOTE)


def save_checkpoint(network: Network, path: Path | str, info: Mapping[str, float | int | str] | None = None) -> Path:
    """Write `network` to `path` (temporary file, then rename); returns the path."""
    path = Path(path)
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().float().numpy() for name in network.spec.tensor_shapes()}
    write_tensors(path, tensors, {_KEY: network.spec.to_json(), _INFO: json.dumps(dict(info or {}))})
    return path


def load_checkpoint(path: Path | str) -> Network:
    """The trained network of a checkpoint, in evaluation mode. Errors as :func:`read_checkpoint`."""
    checkpoint = read_checkpoint(path)
    import torch

    from reverb_fpga.models.network import Network

    network = Network(checkpoint.spec)
    state = {name: torch.from_numpy(array.copy()) for name, array in checkpoint.tensors.items()}
    network.load_state_dict(state, strict=False)  # BatchNorm's batch counter is not part of the format
    network.eval()
    return network
